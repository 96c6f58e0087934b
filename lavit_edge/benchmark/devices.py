"""Where an artifact can be benchmarked. Each runner is a module with ``measure``, imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lavit_edge.benchmark.report import Report
from lavit_edge.errors import UserError

RUNNERS = {
    "host": "lavit_edge.benchmark.host",
    "adb": "lavit_edge.benchmark.adb",
    "adb-app": "lavit_edge.benchmark.adb_app",
    "ssh": "lavit_edge.benchmark.ssh",
    "browser": "lavit_edge.benchmark.browser",
    "ios": "lavit_edge.benchmark.ios",
}
LEAST_RUNS = 50


@dataclass(frozen=True)
class BenchmarkConfig:
    """
    Attributes:
        threads: numbers of threads to measure, one report each.
        seconds: the least duration of each measurement, warm-up not counted.
        force: measure although the self-test fails or the artifact cannot test itself; the report says so.

    Raises:
        UserError: a value is out of range.
    """

    threads: tuple[int, ...] = (1,)
    seconds: float = 10.0
    force: bool = False

    def __post_init__(self) -> None:
        if not self.threads or not all(1 <= count <= 999 for count in self.threads):
            raise UserError(f"threads must be numbers from 1 to 999, not {self.threads}")
        if not 0 < self.seconds <= 24 * 60 * 60:
            raise UserError(f"minutes must be more than 0 and at most a day, not {self.seconds / 60:g}")


class Several(UserError):
    """Some of several measurements failed; ``reports`` has those of the others."""

    def __init__(self, message: str, reports: list[Report]) -> None:
        super().__init__(message)
        self.reports = reports


@contextmanager
def keeping(reports: list[Report]) -> Iterator[None]:
    """What was measured before something failed goes with the error, as :class:`Several`: it may have taken hours."""
    try:
        yield
    except UserError as error:
        if not reports:
            raise
        raise Several(str(error), [*reports, *getattr(error, "reports", ())]) from error


Progress = Callable[[str, float], None]  # what is going on, and the share of the whole that is done


def measure(
    device: str, artifact: Path, settings: BenchmarkConfig, progress: Progress = lambda what, share: None
) -> list[Report]:
    """Benchmarks an artifact on ``host``, ``adb``, ``adb:SERIAL``, ``ssh:USER@HOST``, ``browser`` or ``ios``.

    Raises:
        Several: of several devices or numbers of threads, some failed.
        UserError: no such runner or device, or what the runner says.
    """
    name, _, address = device.partition(":")
    if name not in RUNNERS:
        raise UserError(f"no runner {name!r}; there are {', '.join(RUNNERS)}")
    runner = importlib.import_module(RUNNERS[name])
    return runner.measure(artifact, settings, address or None, progress)
