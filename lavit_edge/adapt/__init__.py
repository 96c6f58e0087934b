"""A model of another package becomes a checkpoint."""

from lavit_edge.adapt.run import adapt

__all__ = ["adapt"]
