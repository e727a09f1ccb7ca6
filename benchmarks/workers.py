"""Worker processes that a benchmark controls with lines of JSON, and samples of their work."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: operations, seconds, CPU seconds of the serving process, and bytes of a response body."""

    operations: int
    seconds: float
    cpu_seconds: float
    client_cpu_seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    failed: int = 0
    size: int = 0

    @property
    def rate(self) -> float:
        """Return operations per second."""
        return self.operations / self.seconds

    @property
    def cpu(self) -> float:
        """Return microseconds of CPU per operation."""
        return 1e6 * self.cpu_seconds / self.operations


def build_sample(
    began: float, ended: float, latencies: list[float], cpu_seconds: float, **more: float
) -> dict[str, Any]:
    """Return the JSON of a sample."""
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * share)] if latencies else 0.0 for share in (0.5, 0.99))
    count = max(len(latencies), 1)
    return asdict(Sample(count, ended - began, cpu_seconds, p50=p50, p99=p99, **more))  # type: ignore[arg-type]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Worker:
    """A module of this folder in its own process."""

    def __init__(self, module: str, errors: Path, environment: Mapping[str, str]) -> None:
        """Write standard error to the file `errors`."""
        self._errors = errors.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        """Wait until it is ready."""
        self.ready: dict[str, Any] = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def measure(self, **command: Any) -> Sample:
        """Send a command that answers with a sample."""
        return Sample(**self.ask(**command))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"A process of the benchmark ended: see {self._errors.name}.")
        answer: dict[str, Any] = json.loads(line)
        return answer


def run_worker(command: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    """Execute commands in the worker, in one event loop, until there are no more."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        write_response({})
        for line in sys.stdin:
            write_response(runner.run(_one(command, json.loads(line))))


async def _one(command: Callable[..., Awaitable[dict[str, Any]]], arguments: dict[str, Any]) -> dict[str, Any]:
    return await command(**arguments)


def write_response(answer: dict[str, Any]) -> None:
    """Write a response."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
