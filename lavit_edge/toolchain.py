"""Toolchains that may be missing, and that say more than anybody asked for."""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from lavit_edge.errors import UserError


@contextmanager
def toolchain(name: str, extra: str) -> Iterator[None]:
    """Around a toolchain's imports: what cannot be imported becomes a :class:`UserError` that says what to install."""
    with quiet():
        try:
            yield
        except ImportError as error:
            raise missing(name, extra, error) from error


@contextmanager
def converting(tool: str) -> Iterator[None]:
    """Around a conversion: what the tool cannot convert becomes a :class:`UserError` with its reason, on one line."""
    with quiet(), _no_collection():
        try:
            yield
        except (UserError, OSError, MemoryError):  # the commands have lines for them
            raise
        except Exception as error:  # the tools' exceptions share no base
            cause: BaseException = error
            while cause.__cause__ is not None:  # torch's ONNX exporter names the operator in the innermost
                cause = cause.__cause__
            reason = " ".join(str(cause).split())[:300] or type(cause).__name__
            raise UserError(f"{tool} cannot convert this program: {reason}") from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leaves cycles of garbage be: ExecuTorch makes millions of objects that live on, and to go through them took 5 of 28 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def missing(name: str, extra: str, error: ImportError) -> UserError:
    """What to raise where a toolchain cannot be imported: it says what to install."""
    return UserError(f"{name} is not usable here ({error}); pip install 'lavit-edge[{extra}]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back Python warnings, log records below ERROR and tqdm's bars (coremltools draws four); exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), _no_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _no_bars() -> AbstractContextManager:
    if "tqdm" not in sys.modules:  # whoever draws bars has imported it; it is no dependency of ours
        return nullcontext()
    from unittest import mock  # brings asyncio, a tenth of a second

    bar = sys.modules["tqdm"].tqdm
    return mock.patch.object(bar, "__init__", functools.partialmethod(bar.__init__, disable=True))


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Around native code that logs to file descriptor 2 whatever the log level: five lines on CPU features and threads."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
