"""From any module that maps pictures to logits to a checkpoint that is quantised and exported like one of this package's own."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lavit_edge.checkpoint import FORMAT, Checkpoint, read_config, save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError, one_line
from lavit_edge.traced.builder import describe, unwrapped
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
            contract's size, cannot be copied or traced, or holds NaN or nothing yet.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"adapt takes a torch.nn.Module, not {reprlib.repr(module)}")
    module = unwrapped(module)
    model = Adapted(_copied(module), contract.size, len(contract.labels), float_layers)
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


def _copied(module: nn.Module) -> nn.Module:
    """On the CPU and in float32."""
    name = describe(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise UserError(f"{name} is TorchScript, which is not traced again; give the torch.nn.Module that it was made of")
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise UserError(f"{name}: {path!r} has no shape yet; call the module once on a picture")
        if tensor.is_meta:
            raise UserError(f"{name}: {path!r} is on the meta device and has no values; load the module's weights first")
    try:
        copied: nn.Module = copy.deepcopy(module)
    except Exception as error:  # as torch.nn.utils.weight_norm's, whose weights are computed
        advice = "; parametrizations.weight_norm makes a module that can" if "weight_norm" in str(error) else ""
        raise UserError(
            one_line(f"{name} cannot be copied{advice} ({type(error).__name__}: {str(error).partition('.')[0]})")
        ) from error
    return copied.cpu().float()


def _tensors(model: Adapted) -> dict[str, Tensor]:
    """The module's state."""
    tensors = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"the module's state {name!r} is a {type(value).__name__}; only tensors are stored")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"the module's tensor {name!r} holds NaN or inf; did the training run that wrote it diverge?")
        tensors[name] = value
    return tensors
