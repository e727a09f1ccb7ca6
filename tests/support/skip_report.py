"""Report of deselected tests at the end of a run, also with several processes."""

from collections import Counter

import pytest

KINDS = ("external", "faults", "slow")


class LeftOut:
    """Counts what `-m` deselects, by marker."""

    def __init__(self, config: pytest.Config) -> None:
        """Send a pytest-xdist worker's count to the process that started it."""
        self._config = config
        self._counts: Counter[str] = Counter()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count."""
        self._counts.update(kind for item in items for kind in KINDS if item.get_closest_marker(kind))

    def pytest_sessionfinish(self) -> None:
        """Send the count."""
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["left_out"] = dict(self._counts)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Receive a worker's count; all workers collect the same tests."""
        self._counts = Counter(getattr(node, "workeroutput", {}).get("left_out") or self._counts)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the report."""
        if self._counts:
            counts = ", ".join(f"{self._counts[kind]} {kind}" for kind in KINDS if self._counts[kind])
            terminalreporter.write_line(f"left out: {counts}")
