"""The contract of a module of another package: from a file, and from what timm's models know of their own preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lavit_edge.contract import InputContract
from lavit_edge.contract.contract import FORMATS
from lavit_edge.errors import UserError
from lavit_edge.files import read_json


def contract_of(module: nn.Module, labels: Sequence[str] | None = None, fields: dict[str, Any] | None = None) -> InputContract:
    """The contract of a module.

    Args:
        labels: one name per logit; None: those of ``fields``, or of the module's ``pretrained_cfg``.
        fields: of the contract, as its JSON has them, all or some; the others come from the ``pretrained_cfg``, which timm's
            models have.

    Raises:
        UserError: the labels or the size are nowhere to be found, or the ``pretrained_cfg`` says what no contract can say.
    """
    known = {"format": FORMATS[0], **of_timm(module, fields or {}), **(fields or {})}
    if labels is not None:
        known["labels"] = list(labels)
    if "labels" not in known:
        raise UserError("there are no labels: name a file with one a line (--labels), or write them into the contract")
    if "size" not in known:
        raise UserError(f"{type(module).__name__} does not say its picture size; write a contract with 'size', 'mean' and 'std'")
    return InputContract.from_dict(known)


def of_timm(module: nn.Module, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a contract that a module's ``pretrained_cfg`` has; those of ``fields`` go first."""
    cfg = getattr(module, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        return {}
    channels, height, width = cfg.get("input_size", (3, 224, 224))
    if channels != 3 or height != width:
        raise UserError(f"{type(module).__name__} takes {channels} x {height} x {width}; a contract is of square RGB pictures")
    size = fields.get("size", height)
    found: dict[str, Any] = {"size": size, "interpolation": cfg.get("interpolation", "bicubic")}
    found |= {name: list(cfg[name]) for name in ("mean", "std") if name in cfg}
    mode, share = cfg.get("crop_mode", "center"), cfg.get("crop_pct", 0.875)
    if mode == "squash" and share == 1:
        found["resize"] = "squash"
    elif mode == "center":
        # timm cuts off what the short side has below a pixel, a contract rounds it: the same pixels either way
        found |= {"resize": "crop", "crop_fraction": size / math.floor(size / share)} if isinstance(size, int) else {}
    else:
        raise UserError(
            f"{type(module).__name__} is prepared by crop mode {mode!r}, which no contract has; write one of your own"
        )
    if isinstance(names := cfg.get("label_names"), list | tuple):
        found["labels"] = list(names)
    return {name: value for name, value in found.items() if name not in fields}


def read_labels(file: Path) -> list[str]:
    """Labels from a JSON list, or a text with one a line."""
    if file.suffix == ".json":
        labels = read_json(file)
        if not isinstance(labels, list):
            raise UserError(f"{file} must be a list of names")
        return labels
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no text with a label a line ({error})") from error
