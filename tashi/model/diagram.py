"""The table of states as a page of documentation: `python -m tashi.model.diagram > docs/reference/states.md`."""

from __future__ import annotations

from tashi.model.states import TABLE, InstanceState


def page() -> str:
    """The page: a diagram of what moves an instance from state to state, and the whole table."""
    moves: dict[tuple[str, str], list[str]] = {}
    for (state, happening), after in TABLE.items():
        if after is not state:
            moves.setdefault((state.name, after.name), []).append(happening.value)
    lines = ["# The states of an instance", "", "Made from the table in `tashi/model/states.py`; a test keeps the two equal.", ""]
    lines += ["```mermaid", "stateDiagram-v2", "    [*] --> Pending: created"]
    lines += [f"    {before} --> {after}: {', '.join(happenings)}" for (before, after), happenings in moves.items()]
    lines += ["    Exited --> [*]", "```", "", "| state | happening | state after |", "|---|---|---|"]
    for state in InstanceState:
        rows = [(happening.value, after.name) for (before, happening), after in TABLE.items() if before is state]
        lines += [f"| {state.name} ({state.value}) | {happening} | {after} |" for happening, after in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
