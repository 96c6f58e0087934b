"""From a picture or a camera frame to the model's input, and from its logits to labels. No torch import."""

from lavit_edge.contract.contract import IMAGENET_MEAN, IMAGENET_STD, InputContract

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "InputContract"]
