"""The measuring loop, alone or in turns with other processes on the same machine.

Two runs of the same artifact one after the other, 12 s each, were 12 % apart (root mean square) on a virtual machine of two cores
that others load too: what neighbours do changes within seconds. Processes that take turns, one inference each, meet the same
neighbours, and the median of their ratios is then 0.3 % apart. So artifacts that are to be compared are best measured in turns;
their reports say so in ``settings.turns``, and :mod:`lavit_edge.bench.statistics` pairs their runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection, wait
from types import TracebackType

from lavit_edge.errors import UserError

GO, DONE, END = b"go", b"done", b"end"
LONGEST_WAIT = 600.0  # seconds that a turn may take: loading and the warm-up are before the first one


class Over(Exception):  # noqa: N818, not an error: the measurement has come to its end
    """The conductor has ended the measurement."""


class Turn(AbstractContextManager["Turn"]):
    """One process's side: entering waits for the turn, leaving passes it on. Raises :class:`Over` at the end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __enter__(self) -> Turn:
        if self.connection.recv_bytes() == END:
            raise Over
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if error is None:
            self.connection.send_bytes(DONE)


def timed_runs(
    run: Callable[[], object],
    seconds: float,
    least_runs: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    turn: Turn | None = None,
) -> tuple[list[int], list[int]]:
    """Runs again and again until ``seconds`` have passed and ``least_runs`` are done; in turns, until the conductor ends it.

    Returns:
        How long each run took and when it began, in nanoseconds of ``clock``, in order: what :func:`lavit_edge.bench.report.latency`
        takes.
    """
    samples: list[int] = []
    starts: list[int] = []
    mine: AbstractContextManager[object] = turn or nullcontext()
    begun = clock()
    while turn or len(samples) < least_runs or clock() - begun < seconds * 1e9:
        try:
            with mine:
                start = clock()
                run()
                end = clock()
        except Over:
            break
        samples.append(end - start)
        starts.append(start)
    return samples, starts


def conduct(connections: Sequence[Connection], seconds: float, least_runs: int) -> None:
    """Gives the turns: rounds of one inference each, until each side has had ``seconds`` and ``least_runs``.

    The order within a round is reversed in every other round, so that nobody always follows the same neighbour.

    Raises:
        UserError: a process ended, or did not come back from its turn.
    """
    spent, rounds = [0.0] * len(connections), 0
    while rounds < least_runs or min(spent) < seconds:
        for side in range(len(connections)):
            begun = time.perf_counter()
            _send(connections[side], GO)
            if not wait([connections[side]], LONGEST_WAIT):
                raise UserError(f"the process of turn {side + 1} has not come back for {LONGEST_WAIT:.0f} s")
            try:
                connections[side].recv_bytes()
            except EOFError as error:
                raise UserError(f"the process of turn {side + 1} ended during its measurement") from error
            spent[side] += time.perf_counter() - begun
        rounds += 1
    for connection in connections:
        _send(connection, END)


def _send(connection: Connection, message: bytes) -> None:
    try:
        connection.send_bytes(message)
    except OSError as error:
        raise UserError("a process that takes turns has ended") from error
