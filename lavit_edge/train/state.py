"""What a run needs to go on: written whole or not at all, and refused by another run."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lavit_edge.errors import UserError
from lavit_edge.files import follow_umask


def save_state(file: Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    """Writes a safetensors file in place of the old one. A kill at any moment, or a full disk, leaves the old one as it was.

    Raises:
        OSError: it could not be written; nothing has changed.
    """
    temporary = file.with_suffix(".part")
    try:
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary, facts)
        follow_umask(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())  # or a power cut could leave the new name on old blocks
        os.replace(temporary, file)
    except (SafetensorError, OSError) as error:  # safetensors wraps the system's errors in its own
        temporary.unlink(missing_ok=True)
        raise OSError(str(error)) from error


def load_state(file: Path, identity: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and facts of a state.

    Args:
        identity: facts that the state must share with the run that goes on; all that it has but ``progress``.

    Raises:
        UserError: the state is damaged, or another run's.
    """
    try:
        with safe_open(file, "pt") as stream:
            facts = stream.metadata() or {}
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); choose another --out") from error
    for name in {**identity, **facts}:
        if name != "progress" and facts.get(name) != identity.get(name):
            raise UserError(f"{file} was written with another {name}; resume with the same options or choose another --out")
    return tensors, facts


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments and step counts, by parameter number."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, moments in state.items() for name, value in moments.items()}


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    state = optimizer.state_dict()
    parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    for key, moment in tensors.items():
        index, name = key.split(".")
        if moment.ndim:  # fused AdamW walks memory: moments in another memory format than their weight would be mixed up
            moment = torch.empty_like(parameters[int(index)]).copy_(moment)
        state["state"].setdefault(int(index), {})[name] = moment
    optimizer.load_state_dict(state)
