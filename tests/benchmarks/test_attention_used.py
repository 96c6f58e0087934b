"""What attention contributes: a branch that is a constant is told from one that is used, in every architecture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from attention_used import attention_layers, used
from torch import nn

import lavit_edge
from lavit_edge import create_model
from lavit_edge.checkpoint import find_checkpoint
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches

PICTURES = [torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
TARGETS = torch.arange(8)
MAPS = ["maps of the picture's own", "maps that are uneven", "what other places say"]
REDUCED = ("lavit_tiny", "pvt_nano")  # fewer keys than queries


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
    rows = used(model, PICTURES, TARGETS)
    layers = list(attention_layers(model))
    assert (rows[0].same_top1, rows[0].sqnr) == (1.0, math.inf)
    assert [row.without for row in rows[1 : len(layers) + 1]] == layers
    assert all(0 < row.sqnr < 100 for row in rows[1 : len(layers) + 1])
    assert rows[len(layers) + 1].sqnr < max(row.sqnr for row in rows[1 : len(layers) + 1])
    assert [row.without for row in rows[len(layers) + 1 :]] == ["all attention", *MAPS[: 2 if name in REDUCED else 3]]
    assert all(row.sqnr < 200 for row in rows[len(layers) + 2 :]), "its maps reach the logits"


def test_attention_that_is_a_constant_is_seen() -> None:
    _, *rows = used(net("lavit_mobile_s", gain=0.0), PICTURES, TARGETS)
    assert min(row.sqnr for row in rows) > 100  # the order of a mean's sum is left
    assert {row.same_top1 for row in rows} == {1.0}


def test_maps_that_say_nothing_are_seen() -> None:
    """Queries of nothing look everywhere alike, scores with a large diagonal at their own place."""
    model = net("lavit_mobile_s")
    layers = [module for path, module in model.named_modules() if path.endswith(".attention")]
    nn.init.zeros_(layers[0].query.norm.weight)  # type: ignore[union-attr, arg-type]
    found = sqnr_without(model)
    assert min(found["maps of the picture's own"], found["maps that are uneven"]) > 100
    assert found["what other places say"] < 60
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0], torch.eye(4).expand(len(inputs[0]) * 4, 4, 4) * 1e4))
        layer.scores = lambda x, carried: carried  # type: ignore[assignment]
    found = sqnr_without(model)
    assert min(found["maps of the picture's own"], found["what other places say"]) > 100
    assert max(found["maps that are uneven"], found["all attention"]) < 60


def sqnr_without(model: nn.Module) -> dict[str, float]:
    return {row.without: row.sqnr for row in used(model, PICTURES, TARGETS)}


def test_the_constant_is_the_mean_of_all_pictures() -> None:
    model = net("lavit_mobile_s")
    apart, together = used(model, PICTURES, TARGETS), used(model, [torch.cat(PICTURES)], TARGETS)
    assert [row.sqnr for row in apart[1:]] == pytest.approx([row.sqnr for row in together[1:]], abs=0.01)


def test_a_net_without_attention_is_refused() -> None:
    with pytest.raises(UserError, match="no attention"):
        used(net("lavit_mobile_s", heads=(0, 0, 0, 0)), PICTURES, TARGETS)


def test_the_bundled_checkpoint_uses_its_attention() -> None:
    """That bundled up to commit d153b2b had 41 dB without any attention, and 54 where no place saw another."""
    checkpoint = find_checkpoint("lavit_mobile_s_imagenette160")
    folder = PictureFolder(Path(lavit_edge.__file__).parent / "pictures_cc0", "val").spread(24)
    pictures = [of_batch for of_batch, _ in batches(folder, checkpoint.contract, 12)]
    rows = used(Deployed(checkpoint.model, checkpoint.contract).eval(), pictures, torch.zeros(24))  # of other classes
    without = {row.without: row.sqnr for row in rows}
    assert without["all attention"] < 20
    assert max(without[words] for words in MAPS) < 30, without
