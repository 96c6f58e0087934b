"""Every form of a bundle's model, from torch to the artifacts, run on the same pictures and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lavit_edge.artifact.bundle import Bundle
from lavit_edge.artifact.runners import open_artifact
from lavit_edge.checkpoint import Checkpoint, bundled_checkpoints, load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.parity.agreement import FAKE, FLOAT, PROGRAM, Gates, Parity, compare

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram


Run = Callable[[np.ndarray], np.ndarray]  # uint8 (size, size, 3) -> float32 logits (classes,)


def checkpoint_of(bundle: Bundle, override: Path | None, trust_builder: bool = False) -> Checkpoint:
    """The checkpoint that a bundle was exported from, found by its recorded place and checked by its hashes."""
    recorded = bundle.manifest["checkpoint"]
    path = override or bundled_checkpoints().get(recorded["name"]) or bundle.path / bundle.manifest["checkpoint_path"]
    if not path.exists():
        raise UserError(f"the bundle's checkpoint {recorded['name']!r} is not at {path}; name it with --checkpoint")
    checkpoint = load_checkpoint(path, trust_builder=trust_builder)
    if checkpoint.config.get("sha256") != recorded["sha256"]:
        raise UserError(
            f"{path} is not the checkpoint that this bundle was exported from (its hashes differ); name it with --checkpoint"
        )
    return checkpoint


@contextmanager
def one_thread() -> Iterator[None]:
    """Around what runs in several runtimes. Three whose threads spin and wait for each other took minutes over 50 pictures on two
    cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def from_torch(module: Callable[[Tensor], Tensor]) -> Run:
    """What maps ``(1, 3, size, size)`` float32 in 0..255 to ``(1, classes)`` logits, as a :data:`Run`."""
    import torch

    @torch.no_grad()
    def run(picture: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous())[0].numpy()

    return run


def forms(checkpoint: Checkpoint, artifacts: list[Path], program: ExportedProgram | None) -> dict[str, Run]:
    """Every form of the model that the matrix compares, by name; those of int8 when there is an int8 ``program``."""
    from lavit_edge.models.deployed import Deployed
    from lavit_edge.quantize import fake_quantized

    runs = {FLOAT: from_torch(Deployed(checkpoint.model, checkpoint.contract).eval())}
    if program is not None:
        runs[FAKE] = from_torch(fake_quantized(checkpoint))
        runs[PROGRAM] = from_torch(program.module())
    return runs | {path.name: open_artifact(path, threads=1) for path in artifacts}


def measure(
    runs: dict[str, Run],
    folder: PictureFolder,
    contract: InputContract,
    *,
    labelled: bool,
    reference: str,
    gates: Gates,
    strict: bool,
    console: Console,
) -> Parity:
    """Runs every form on every picture and compares."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in runs}
    targets = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("comparing", total=len(folder))
        for picture, target in folder.inputs(contract, strict):
            targets.append(target)
            for name, run in runs.items():
                rows[name].append(run(picture))
                if rows[name][-1].shape != (len(contract.labels),):
                    got = rows[name][-1].shape
                    raise UserError(f"{name} gives {got}, not a logit for each of {len(contract.labels)} labels; export it again")
            progress.advance(bar)
    logits = {name: np.stack(values) for name, values in rows.items()}
    parity = compare(logits, np.array(targets) if labelled else None, reference, gates)
    parity.skipped = [str(error) for error in folder.skipped]
    return parity
