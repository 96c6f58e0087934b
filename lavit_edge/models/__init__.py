"""The architectures, one file each, and the registry that builds them by name."""

from lavit_edge.models import lavit as _lavit  # noqa: F401  (registers its variants)
from lavit_edge.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
