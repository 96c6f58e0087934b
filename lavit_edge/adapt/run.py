"""From any module that maps pictures to logits to a checkpoint that is quantised and exported like one of this package's own."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.checkpoint import FORMAT, Checkpoint, read_config, save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.traced.builder import describe
from lavit_edge.traced.model import Adapted


def adapt(
    module: nn.Module,
    contract: InputContract,
    float_layers: Sequence[str] | None = None,
    *,
    out: Path | str | None = None,
    builder: str | None = None,
    options: dict[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint of a module: what ``lavit_edge.quantize`` and ``lavit_edge.export`` take. The module stays as it is.

    Args:
        module: maps normalised ``(B, 3, size, size)`` to ``(B, classes)`` logits, as ``contract`` says.
        float_layers: paths or shell patterns of the layers that stay float; None: the first embedding and the head.
        out: a new folder to save it in; None: it is in memory alone.
        builder: ``package:function`` that gives such a module for ``options``. Without one, a saved checkpoint is loaded again
            with ``load_checkpoint(path, module=...)``.

    Returns:
        The checkpoint; ``config["adapted"]["notes"]`` says, a line each, what was done to the module and what could not be done.

    Raises:
        UserError: the module has two inputs, gives no logits or another number of them than the contract has labels, refuses the
            contract's size, cannot be traced, or holds NaN.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"adapt takes a torch.nn.Module, not {reprlib.repr(module)}")
    model = Adapted(copy.deepcopy(module).cpu().float(), contract.size, len(contract.labels), float_layers)
    tensors = _tensors(model)
    notes = list(model.deploy().notes)
    spec: dict[str, Any] = {"builder": builder, "options": options or {}} if builder else {"module": describe(module)}
    if float_layers is not None:
        spec["float_layers"] = list(float_layers)
    facts = {"adapted": {"module": describe(module), "notes": notes}}
    if out is None:
        config = {"format": FORMAT, "model": spec, "contract": contract.to_dict(), "sha256": {}, **facts}
        return Checkpoint(Path(type(module).__name__), model, contract, config)
    save_checkpoint(out, tensors, model=spec, contract=contract, card=card(module, builder, options, notes), facts=facts)
    return Checkpoint(Path(out), model, contract, read_config(Path(out)))


def card(module: nn.Module, builder: str | None, options: dict[str, Any] | None, notes: Sequence[str]) -> str:
    """The model card: where the module comes from, and what was done to it."""
    made = f"`{builder}` with `{options or {}}`" if builder else "a module in Python"
    lines = [f"# {type(module).__name__}", "", f"`{describe(module)}`, from {made}; adapted by lavit-edge.", ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes)]) + "\n"


def _tensors(model: Adapted) -> dict[str, Tensor]:
    """The module's state, each tensor with memory of its own: tied weights are two in the file."""
    tensors = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"the module's state {name!r} is a {type(value).__name__}; only tensors are stored")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"the module's tensor {name!r} holds NaN or inf; the training run that wrote it diverged")
        tensors[name] = value.detach().clone()
    return tensors
