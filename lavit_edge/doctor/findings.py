"""What a check is and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "known", "FAIL", "not installed"]


@dataclass(frozen=True)
class Finding:
    """One row of the report.

    Attributes:
        group: ``versions``, ``host`` or a toolchain.
        status: ``known`` is a defect of a tool that is here and that we go around; only ``FAIL`` makes the exit code 1.
        detail: what was seen.
        mend: the step that mends it, empty where there is nothing to mend.
    """

    group: str
    name: str
    status: Status
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Probe:
    """A check that tries the thing itself.

    Attributes:
        look: returns the status and what was seen; whatever it raises is a FAIL.
        mend: the step that mends a FAIL.
    """

    name: str
    look: Callable[[], tuple[Status, str]]
    mend: str


def examine(group: str, probes: Iterable[Probe]) -> Iterator[Finding]:
    """Runs one probe after the other."""
    for probe in probes:
        try:
            status, detail = probe.look()
        except Exception as error:  # a broken toolchain raises anything
            status, detail = "FAIL", one_line(error)
        yield Finding(group, probe.name, status, detail, probe.mend if status == "FAIL" else "")


def one_line(error: BaseException) -> str:
    """An exception as the first line of its text, behind its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
