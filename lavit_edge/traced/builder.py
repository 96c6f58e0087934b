"""A model by the name of the function that builds it, ``package:function``. Importing it runs code: only on the user's word."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lavit_edge.errors import UserError


def build(spec: dict[str, Any], source: str, trust: bool) -> nn.Module:
    """The module that ``{"builder": "package:function", "options": {...}}`` names, in fp32 and eval mode.

    Args:
        source: names where the specification stands, in errors.
        trust: the user trusts the builder; otherwise nothing is imported.

    Raises:
        UserError: it is not trusted, cannot be imported, refuses its options or returns no module.
    """
    name, options = spec.get("builder"), spec.get("options", {})
    if not isinstance(name, str) or not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"{source}: a builder is 'package:function' with an object of options")
    if not trust:
        raise UserError(
            f"{source} is built by {name}, and importing that runs code: if you trust it, say --trust-builder "
            "(in Python: load_checkpoint(path, trust_builder=True))"
        )
    builder = import_builder(name)
    try:
        module = builder(**options)
    except Exception as error:  # it is anybody's code
        shown = json.dumps(options, default=repr)
        raise UserError(f"builder {name} refuses {shown} ({type(error).__name__}: {error})") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"builder {name} returns {type(module).__name__}, not a torch.nn.Module")
    return unwrapped(module).float().eval()


def unwrapped(module: nn.Module) -> nn.Module:
    """Without what ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` put around a module."""
    while True:
        if isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        elif isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def import_builder(name: str) -> Callable[..., Any]:
    """The function ``package.module:function``. Raises :class:`UserError` where there is none."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise UserError(f"builder {name!r} must be package:function, such as timm:create_model")
    torchvision_operators()
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except AttributeError as error:
        raise UserError(f"builder {name}: {module_name} has no {path!r}") from error
    except Exception as error:  # whatever the module does when it is imported
        raise UserError(f"builder {name} cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise UserError(f"builder {name} is a {type(found).__name__}, not a function")
    return found


@functools.cache
def torchvision_operators() -> torch.library.Library | None:
    """Two operators that torchvision looks for when it is imported, and its wheel for another torch lacks; timm imports it.

    They live while what is returned is kept, and only where there is no working torchvision.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return None
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


def describe(module: nn.Module) -> str:
    """Package and class of a module."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"
