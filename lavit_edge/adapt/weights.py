"""Weights that came from elsewhere: safetensors, one file or shards, mended where that is safe, and said."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lavit_edge.checkpoint import PICKLES, WEIGHTS, check_fit
from lavit_edge.errors import UserError
from lavit_edge.files import check_shape, read_json

INDEX = ".index.json"


def load_weights(module: nn.Module, source: Path) -> list[str]:
    """Fills a module, strictly.

    Args:
        source: a safetensors file, the ``.index.json`` of one in shards, or a folder with ``model.safetensors`` or its index.

    Returns:
        What was mended, a line each.

    Raises:
        UserError: it cannot be read, is a pickle, or holds other tensors than the module has.
    """
    tensors, notes = read_weights(source), []
    if prefix := _prefix(set(tensors), set(module.state_dict())):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        notes.append(f"weights: prefix {prefix!r} taken off every name")
    turned = set()
    for name, wanted in module.state_dict().items():
        value = tensors.get(name)
        if value is not None and value.dtype != wanted.dtype and value.is_floating_point() and wanted.is_floating_point():
            turned.add(str(value.dtype).removeprefix("torch."))
            tensors[name] = value.to(wanted.dtype)
    notes += [f"weights: {kind} turned to float32" for kind in sorted(turned)]
    check_fit(module, tensors, str(source), type(module).__name__)
    module.load_state_dict(tensors)
    return notes


def _prefix(names: set[str], wanted: set[str]) -> str:
    """What all names begin with, parts up to a dot, where none is wanted as it is but some without it: ``module.`` of
    DataParallel, ``_orig_mod.`` of torch.compile, ``model.`` of Lightning."""
    prefix = ""
    while names and not names & wanted:
        part = min(names).partition(".")[0] + "."
        if not all(name.startswith(part) for name in names):
            return ""
        names, prefix = {name.removeprefix(part) for name in names}, prefix + part
    return prefix


def read_weights(source: Path) -> dict[str, Tensor]:
    """All tensors of a file, of shards by their index, or of a folder."""
    if source.is_dir():
        index = source / f"{WEIGHTS}{INDEX}"
        source = index if index.is_file() else source / WEIGHTS
    if source.suffix in PICKLES:
        raise UserError(
            f"{source} is a pickle, which can run code when it is opened; where you trust it, save its state_dict with "
            "safetensors.torch.save_file and name that"
        )
    if not source.name.endswith(INDEX):
        return _load(source)
    index = read_json(source)
    check_shape(index, {"weight_map": dict}, str(source))
    tensors: dict[str, Tensor] = {}
    for name in sorted({str(file) for file in index["weight_map"].values()}):
        if Path(name).name != name:
            raise UserError(f"{source} names a shard {name!r} outside its folder")
        tensors |= _load(source.parent / name)
    if missing := sorted(set(index["weight_map"]) - set(tensors)):
        raise UserError(f"{source} promises tensor {missing[0]!r}, its shards have none ({len(missing)} in all)")
    return tensors


def _load(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"there are no weights at {file}")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged or not a safetensors file ({error})") from error
