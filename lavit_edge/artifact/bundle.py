"""A bundle: the artifacts of one checkpoint in a folder with their manifest, and the check that they agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lavit_edge.artifact.runners import SUFFIXES, open_artifact
from lavit_edge.checkpoint import Checkpoint, file_sha256, load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError, one_line
from lavit_edge.files import check_shape, read_json
from lavit_edge.parity.agreement import FAKE, FLOAT, PROGRAM, Gates, Parity, compare

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FORMAT = "lavit_edge.bundle/1"
MANIFEST, PARITY, VERDICT, PAGE, CARD = "manifest.json", "parity.json", "verdict.json", "parity.html", "README.md"
SHAPE = {
    "precision": str,
    "checkpoint": {"name": str, "sha256": dict},
    "checkpoint_path": str,
    "targets": dict,
    "artifacts": dict,
}  # of the manifest, as far as it is read
FREE_PICTURES = Path(__file__).parent.parent / "pictures_cc0"
BUNDLED = Path(__file__).parent.parent / "checkpoints"

Run = Callable[[np.ndarray], np.ndarray]  # uint8 (size, size, 3) -> float32 logits (classes,)


@dataclass(frozen=True)
class Bundle:
    """An exported folder, its manifest read and its files checked against it."""

    path: Path
    manifest: dict[str, Any]

    @property
    def precision(self) -> str:
        return self.manifest["precision"]

    @property
    def runnable(self) -> list[Path]:
        """The artifacts that this host can execute: all but a ``.pte`` for the Core ML delegate."""
        return [self.path / name for name in self.manifest["artifacts"] if not needs_apple(name, self.manifest["targets"])]


def open_bundle(path: Path) -> Bundle:
    """Reads ``manifest.json`` and checks every artifact's sha256.

    Raises:
        UserError: no bundle, or an artifact is missing or not the one that was exported.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"{path} is not a bundle: it has no {MANIFEST}; python -m lavit_edge.export makes one")
    manifest = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{file}: expected format {FORMAT!r}; export the bundle again")
    check_shape(manifest, SHAPE, str(file))
    if manifest["precision"] not in ("int8", "float"):
        raise UserError(f"{file}: precision {manifest['precision']!r} is neither int8 nor float; export the bundle again")
    if not manifest["artifacts"]:
        raise UserError(f"{file} lists no artifacts; export the bundle again")
    for name, entry in manifest["artifacts"].items():
        check_shape(entry, {"sha256": str}, str(file), f"artifacts.{name}")
        if name != Path(name).name or name != one_line(name) or name in {"", ".", ".."}:
            raise UserError(f"{file}: artifact {name!r} is not the plain name of a file beside it")
        if Path(name).suffix not in SUFFIXES:
            raise UserError(f"{file}: artifact {name!r} is of an unknown kind; those of a bundle end in {', '.join(SUFFIXES)}")
        if not (path / name).exists():
            raise UserError(f"{path / name} is missing; export the bundle again")
        if artifact_sha256(path / name) != entry["sha256"]:
            raise UserError(f"{path / name} is not what {MANIFEST} describes (its sha256 differs); export the bundle again")
    return Bundle(path, manifest)


def needs_apple(name: str, targets: dict[str, Any]) -> bool:
    """Whether an artifact runs on Apple devices alone. ``targets`` is the manifest's record of the options."""
    if not name.endswith(".pte"):
        return False
    check_shape(targets, {"executorch": {"options": {"backend": str}}}, MANIFEST, "targets")
    return targets["executorch"]["options"]["backend"] == "coreml"


def artifact_sha256(path: Path) -> str:
    """Hex digest of a file; of a package, the digest of its files' names and digests in order.

    Raises:
        UserError: the path, or what is below it, is neither a file nor a folder: a link leads out of what the digest covers.
    """
    for item in (path, *path.rglob("*")):
        if item.is_symlink() or not (item.is_file() or item.is_dir()) or item.name != one_line(item.name):
            raise UserError(f"{item} is a link, or no file, or oddly named; an artifact is made of plain files and folders")
    if path.is_file():
        return file_sha256(path)
    lines = [f"{file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def bundled_checkpoints() -> dict[str, Path]:
    """The checkpoints that ship with the package, by name."""
    return {folder.name: folder for folder in sorted(BUNDLED.iterdir()) if folder.is_dir()} if BUNDLED.is_dir() else {}


def checkpoint_of(bundle: Bundle, override: Path | None) -> Checkpoint:
    """The checkpoint that a bundle was exported from, found by its recorded place and checked by its hashes."""
    recorded = bundle.manifest["checkpoint"]
    path = override or bundled_checkpoints().get(recorded["name"]) or bundle.path / bundle.manifest["checkpoint_path"]
    if not path.exists():
        raise UserError(f"the bundle's checkpoint {recorded['name']!r} is not at {path}; name it with --checkpoint")
    checkpoint = load_checkpoint(path)
    if checkpoint.config.get("sha256") != recorded["sha256"]:
        raise UserError(
            f"{path} is not the checkpoint that this bundle was exported from (its hashes differ); name it with --checkpoint"
        )
    return checkpoint


def forms(checkpoint: Checkpoint, artifacts: list[Path], program: ExportedProgram | None) -> dict[str, Run]:
    """Every form of the model that the matrix compares, by name; those of int8 when there is an int8 ``program``.

    Each runs on one thread: three runtimes whose threads spin and wait for each other took minutes over 50 pictures on two cores.
    """
    import torch

    from lavit_edge.models.deployed import Deployed
    from lavit_edge.quantize import fake_quantized

    def from_torch(module: Callable[[torch.Tensor], torch.Tensor]) -> Run:
        @torch.no_grad()
        def run(picture: np.ndarray) -> np.ndarray:
            return module(torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous())[0].numpy()

        return run

    torch.set_num_threads(1)
    runs = {FLOAT: from_torch(Deployed(checkpoint.model, checkpoint.contract).eval())}
    if program is not None:
        runs[FAKE] = from_torch(fake_quantized(checkpoint))
        runs[PROGRAM] = from_torch(program.module())
    return runs | {path.name: open_artifact(path, threads=1) for path in artifacts}


def free_pictures(contract: InputContract) -> PictureFolder:
    """The pictures that ship with the package; their classes are not the model's, so they show agreement and no accuracy."""
    return PictureFolder(FREE_PICTURES, "val")


def labelled_pictures(data: Path, contract: InputContract, count: int) -> PictureFolder:
    """``count`` pictures of ``data``'s val split, evenly over the classes."""
    return PictureFolder(data, "val", contract.labels).spread(count)


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
