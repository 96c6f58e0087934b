"""A bundle: the artifacts of one checkpoint in a folder with their manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavit_edge.artifact.runners import SUFFIXES
from lavit_edge.artifact.signing import SIGNATURE
from lavit_edge.errors import UserError, one_line
from lavit_edge.files import check_shape, file_sha256, read_json

FORMAT = "lavit_edge.bundle/1"
MANIFEST, PARITY, VERDICT, PAGE, CARD = "manifest.json", "parity.json", "verdict.json", "parity.html", "README.md"
FILES = (MANIFEST, PARITY, VERDICT, PAGE, CARD, SIGNATURE, *(f"model{suffix}" for suffix in SUFFIXES))  # what export writes
SHAPE = {
    "precision": str,
    "checkpoint": {"name": str, "sha256": dict},
    "checkpoint_path": str,
    "targets": dict,
    "artifacts": dict,
}  # of the manifest, as far as it is read


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
