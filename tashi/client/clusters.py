"""Files that hold a cluster, for `tashi snapshot` and `tashi plan`: Tashi's own text, or Ganeti's for htools; each is recognised."""

from __future__ import annotations

import sys

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.scheduling.snapshot import Snapshot


def read_file(path: str) -> Snapshot:
    """The cluster in the file (-: in stdin); YourMistake names the file, and what is wrong with it and where."""
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except OSError as error:
        raise YourMistake(BAD_ARGUMENT, f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise YourMistake(BAD_ARGUMENT, f"cannot read {path}: byte {error.start + 1} is no UTF-8") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    try:
        if "|" in first.split(maxsplit=1)[0] if first else False:
            from tashi.scheduling.text import ganeti

            return ganeti.read(text)
        from tashi.scheduling.text.reading import read

        return read(text)
    except YourMistake as mistake:
        raise YourMistake(mistake.code, f"{path}: {mistake.message}") from None


def as_text(snapshot: Snapshot, format: str) -> str:
    """The cluster in the format "tashi" or "ganeti"; YourMistake when it cannot be said there."""
    if format == "ganeti":
        from tashi.scheduling.text import ganeti

        return ganeti.write(snapshot)
    from tashi.scheduling.text.writing import write

    return write(snapshot)
