"""What the targets share: a missing toolchain is one line, chatter is held back, an artifact appears whole or not at all."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

from torch.export import ExportedProgram

from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError


@contextmanager
def toolchain(name: str, extra: str) -> Iterator[None]:
    """Around a toolchain's imports: what cannot be imported becomes a :class:`UserError` that says what to install."""
    with quiet():
        try:
            yield
        except ImportError as error:
            raise UserError(f"{name} is not usable here ({error}); pip install 'lavit-edge[{extra}]'") from error


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
    bar = sys.modules["tqdm"].tqdm
    return mock.patch.object(bar, "__init__", functools.partialmethod(bar.__init__, disable=True))


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside ``path``.

    When the block ends well, all that was written into that folder moves beside ``path``, over what was there; otherwise it
    vanishes.

    Raises:
        UserError: the folder of ``path`` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}); choose another --out") from error
    try:
        yield folder / path.name
        for new in sorted(folder.iterdir()):
            final = path.parent / new.name
            if final.is_dir():  # a folder cannot be replaced in one step: move the old one out of the way
                os.replace(final, folder / f"{new.name}.old")
            os.replace(new, final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_fit(program: ExportedProgram, contract: InputContract, path: Path, suffix: str) -> None:
    """Raises :class:`UserError` unless the program maps the contract's picture to a logit per label, and the suffix is right."""
    if path.suffix != suffix:
        raise UserError(f"{path.name!r} must end in {suffix}")
    shapes = [tuple(node.meta["val"].shape) for node in program.graph.nodes if node.op == "placeholder"][-1:]
    shapes += [tuple(value.meta["val"].shape) for value in program.graph.output_node().args[0]]
    wanted = [(1, 3, contract.size, contract.size), (1, len(contract.labels))]
    if shapes != wanted:
        raise UserError(f"the program maps {shapes[0]} to {shapes[1:]}, but its contract says {wanted[0]} to {wanted[1]}")
