"""Two rules for all tests: in continuous integration a skipped test has failed, and files go to temporary directories."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

_INTEGRATION = Path(__file__).parent / "integration"
_CI = os.environ.get("CI", "").lower() in ("true", "1", "yes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stands in tests/integration talks to real servers, marked or not."""
    for item in items:
        if _INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Turn a skip into a failure that says what is missing."""
    report = (yield).get_result()
    if _CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI nothing may be: {report.longrepr}"


@pytest.fixture(autouse=True)
def _files_go_to_a_temporary_directory(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trial's own place for them is the current directory: the checkout."""
    monkeypatch.setattr(SynchronousTestCase, "mktemp", lambda self: str(tmp_path_factory.mktemp("trial") / "temp"))
