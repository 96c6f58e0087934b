"""The architectures, one file each, and the registry that builds them by name."""

import importlib
import pkgutil

from lavit_edge.models.registry import create_model, list_models

for _module in pkgutil.iter_modules(__path__):  # each architecture's file registers its variants
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["create_model", "list_models"]
