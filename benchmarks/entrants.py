"""Who is compared in benchmarks/trained_alike.py and pareto.py: nets of this package, their twins, and nets of timm.

A further one is a line here. Those of ``mobile_variants.py`` can be named, too.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import mobile_variants
import torch
from torch import Tensor, nn

from lavit_edge.errors import UserError
from lavit_edge.models import create_model, list_models
from lavit_edge.models.classifier import Classifier
from lavit_edge.models.registry import register
from lavit_edge.traced.builder import import_builder
from lavit_edge.traced.model import Adapted, TracedModule

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # name here -> name in the registry, options
    "lavit_mobile_s-none": ("lavit_mobile_s", dict(heads=(0, 0, 0, 0))),
    "lavit_mobile_s-vanilla": ("lavit_mobile_s", dict(num_vanilla=(99, 99, 99, 99))),
    "lavit_mobile_m-none": ("lavit_mobile_m", dict(heads=(0, 0, 0, 0))),
    "lavit_mobile_m-vanilla": ("lavit_mobile_m", dict(num_vanilla=(99, 99, 99, 99))),
}
TIMM = {  # name here -> name in timm
    "MobileNetV2": "mobilenetv2_100",
    "MobileNetV4-conv-small": "mobilenetv4_conv_small",
    "MobileOne-S0": "mobileone_s0",
    "EfficientNet-Lite0": "efficientnet_lite0",
    "RepViT-M0.9": "repvit_m0_9",
    "PVTv2-b0": "pvt_v2_b0",
}
ENTRANTS = ("lavit_mobile_s", "lavit_mobile_m", *VARIANTS, *TIMM)


class StridedDepthwise(nn.Conv2d):
    """Trains in fp32 on a CPU, where oneDNN's bf16 gradient is slow: 0.42 instead of 0.73 s a step of MobileNetV4, 64 pictures of
    128 pixels, 1.06 instead of 1.32 of MobileNetV2. ``lavit_mobile_s`` does the same."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class TimmClassifier(Classifier):
    """A net of timm: its pooled features, and its own classifier as the head. Any size that the net takes.

    Args:
        name: in timm.
        options: of ``timm.create_model``.
    """

    def __init__(self, name: str, num_classes: int, image_size: int, **options: Any) -> None:
        nn.Module.__init__(self)  # neither stages nor first weights are those of this package
        self.image_size, self.num_classes = image_size, num_classes
        self.body = create_timm(name, num_classes=num_classes, **options)
        self.head = self.body.get_classifier()
        self.body.reset_classifier(0)
        for conv in self.body.modules():
            if type(conv) is nn.Conv2d and conv.groups > 1 and conv.stride[0] > 1:
                conv.__class__ = StridedDepthwise

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.body(x), []

    def deploy(self) -> TracedModule:  # type: ignore[override]
        """What ``lavit_edge.adapt`` makes of it: parts re-parameterised, batch norms folded."""
        parts = nn.Sequential(OrderedDict(body=self.body, head=self.head))
        return Adapted(copy.deepcopy(parts), self.image_size, self.num_classes).deploy()


def create_timm(name: str, **options: Any) -> Any:
    """A net of timm with random weights. Raises :class:`UserError` where timm is not installed: docs/peers.md says how."""
    return import_builder("timm:create_model")(name, pretrained=False, **options)


def of_timm(name: str) -> Callable[..., Classifier]:
    def build(*, num_classes: int, image_size: int, drop_path: float = 0.0) -> Classifier:
        return TimmClassifier(name, num_classes, image_size, **({"drop_path_rate": drop_path} if drop_path else {}))

    return build


def register_entrants() -> None:
    """From here on they are trained, stored and loaded as all models of the package."""
    builders: dict[str, Callable[..., Classifier]] = {name: of_timm(timm_name) for name, timm_name in TIMM.items()}
    builders |= {name: functools.partial(create_model, of, **options) for name, (of, options) in VARIANTS.items()}
    builders |= mobile_variants.BUILDERS
    for name, builder in builders.items():
        builder.__name__ = name
        register(builder)


def check_names(names: list[str]) -> None:
    """Raises :class:`UserError` unless all are entrants or names of the registry, and timm is there if it is needed."""
    for name in names:
        if name not in (*ENTRANTS, *list_models()):
            raise UserError(f"unknown model {name!r}; entrants: {', '.join(ENTRANTS)}, and whatever lavit_edge.list_models() has")
    if set(TIMM) & set(names):
        import_builder("timm:create_model")
