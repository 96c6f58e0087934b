"""What attention contributes: a branch that is a constant is told from one that is used, in every architecture."""

from __future__ import annotations

import math

import pytest
import torch
from attention_used import attention_layers, used
from torch import nn

from lavit_edge import create_model
from lavit_edge.errors import UserError

PICTURES = [torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
TARGETS = torch.arange(8)


def net(name: str, gain: float = 1.0, **options: object) -> nn.Module:
    """With residual branches that weigh ``gain`` where a batch norm ends them."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=10, image_size=64, **options).eval()
    for path, module in model.named_modules():
        if path.endswith("attention.project.norm"):
            nn.init.constant_(module.weight, gain)  # type: ignore[arg-type]
            nn.init.normal_(module.bias)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize(
    "name", ["lavit_mobile_s", "lavit_tiny", "vit_nano", "pvt_nano", "lit_nano", "lsla_nano", "fibottention_nano"]
)
def test_attention_that_varies_is_seen(name: str) -> None:
    model = net(name)
    untouched, *layers, together = used(model, PICTURES, TARGETS)
    assert (untouched.same_top1, untouched.sqnr) == (1.0, math.inf)
    assert [row.layer for row in layers] == list(attention_layers(model))
    assert all(0 < row.sqnr < 100 for row in layers)
    assert together.sqnr < max(row.sqnr for row in layers)


def test_attention_that_is_a_constant_is_seen() -> None:
    _, *layers, together = used(net("lavit_mobile_s", gain=0.0), PICTURES, TARGETS)
    assert min(row.sqnr for row in [*layers, together]) > 100  # the order of a mean's sum is left
    assert together.same_top1 == 1.0


def test_the_constant_is_the_mean_of_all_pictures() -> None:
    model = net("lavit_mobile_s")
    apart, together = used(model, PICTURES, TARGETS), used(model, [torch.cat(PICTURES)], TARGETS)
    assert [row.sqnr for row in apart[1:]] == pytest.approx([row.sqnr for row in together[1:]], abs=0.01)


def test_a_net_without_attention_is_refused() -> None:
    with pytest.raises(UserError, match="no attention"):
        used(net("lavit_mobile_s", heads=(0, 0, 0, 0)), PICTURES, TARGETS)
