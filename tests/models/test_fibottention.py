from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lavit_edge import create_model
from lavit_edge.errors import UserError
from lavit_edge.models.fibottention import (
    FibonacciAttention,
    Fibottention,
    attention_mask,
    fibonacci_offsets,
    head_order,
)

# of the authors' code for 196 patches and 12 heads
OFFSETS = [[1, 2, 3, 5], [4, 7], [6, 10], [9, 15], [12, 20], [14, 23], [17, 28], [19, 31], [22, 36], [25, 41], [27, 44], [30, 49]]
ORDERS = [
    [2, 10, 9, 6, 11, 3, 4, 8, 5, 1, 12, 7],
    [8, 12, 1, 9, 6, 7, 4, 11, 5, 2, 10, 3],
    [10, 12, 4, 5, 8, 7, 9, 3, 6, 11, 2, 1],
]


def tiny(image_size: int = 64, **options: Any) -> Fibottention:
    torch.manual_seed(0)
    model = create_model(
        "fibottention_nano", num_classes=10, image_size=image_size, **{"dim": 32, "heads": 4, "depth": 3, **options}
    )
    assert isinstance(model, Fibottention)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def layers(model: nn.Module) -> list[FibonacciAttention]:
    return [module for module in model.modules() if isinstance(module, FibonacciAttention)]


def test_offsets_are_the_authors() -> None:
    assert fibonacci_offsets(196, 12) == OFFSETS


def test_heads_share_no_offset() -> None:
    offsets = [offset for pattern in fibonacci_offsets(1024, 16) for offset in pattern]
    assert len(set(offsets)) == len(offsets)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_orders_are_the_authors(layer: int) -> None:
    assert [pattern + 1 for pattern in head_order(layer, 12)] == ORDERS[layer]
    assert head_order(layer, 12, shuffle=False) == list(range(12))


@pytest.mark.parametrize(
    ("tokens", "heads", "percent"),
    [(196, 12, 1.99), (196, 6, 3.54), (196, 3, 4.45), (196, 8, 2.90), (49, 8, 4.65), (64, 12, 3.11)],
)
def test_density_of_the_pairs_of_patches(tokens: int, heads: int, percent: float) -> None:
    mask = attention_mask(fibonacci_offsets(tokens, heads), tokens)
    assert 100 * float(mask[:, 1:, 1:].float().mean()) == pytest.approx(percent, abs=0.005)


@pytest.mark.parametrize(("tokens", "heads"), [(196, 12), (49, 8), (4, 4), (1, 3)])
def test_no_row_of_a_mask_is_empty_and_pairs_are_by_distance(tokens: int, heads: int) -> None:
    patterns = fibonacci_offsets(tokens, heads)
    mask = attention_mask(patterns, tokens)
    assert bool(mask.any(-1).all())
    assert bool(mask[:, 0].all())
    assert bool(mask[:, :, 0].all())
    for head, row, column in ((0, 0, tokens - 1), (heads - 1, tokens // 2, tokens // 3)):
        assert bool(mask[head, 1 + row, 1 + column]) == (abs(row - column) in patterns[head])


def test_attention_sees_the_pairs_of_the_mask_alone() -> None:
    model = tiny()
    for index, layer in enumerate(layers(model)):
        order = head_order(index, 4)
        x = torch.randn(2, 17, 32)
        query, key, value = (linear(x).reshape(2, 17, 4, 8).transpose(1, 2) for linear in (layer.query, layer.key, layer.value))
        mask = torch.zeros(4, 17, 17, dtype=torch.bool)
        mask[:, 0, :] = mask[:, :, 0] = True
        for head in range(4):
            for offset in fibonacci_offsets(16, 4)[order[head]]:
                for row in range(16 - offset):
                    mask[head, 1 + row, 1 + row + offset] = mask[head, 1 + row + offset, 1 + row] = True
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[None])
        torch.testing.assert_close(layer(x), layer.project(attended.transpose(1, 2).reshape(2, 17, 32)), rtol=1e-4, atol=1e-5)


def test_the_multiplicative_form_gives_masked_pairs_a_score_of_zero() -> None:
    layer = layers(tiny(multiplicative=True))[0]
    x = torch.randn(1, 17, 32)
    with torch.no_grad():
        scores = layer.scores(x, x)
        masked = layer.mask == 0
        assert bool((scores[masked] == 0).all())
        assert float(scores.softmax(-1)[masked].min()) > 0
        assert bool(scores[~masked].ne(0).all())


@pytest.mark.parametrize("size", [32, 64, 160])
@pytest.mark.parametrize(
    "options", [{}, {"shifts": True}, {"multiplicative": True}, {"shuffle": False}, {"shifts": True, "heads": 8}]
)
def test_every_inference_form_computes_the_training_form(size: int, options: dict[str, Any]) -> None:
    model = tiny(size, **options)
    deployed, x = model.deploy(), torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(deployed(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(deployed.deploy()(x), expected, rtol=1e-4, atol=1e-5)


def test_deployed_layers_share_one_mask() -> None:
    model = tiny()
    assert len({layer.mask.data_ptr() for layer in layers(model)}) == 3
    assert not all(torch.equal(layer.mask, layers(model)[0].mask) for layer in layers(model))
    assert len({layer.mask.data_ptr() for layer in layers(model.deploy())}) == 1


def test_masks_are_no_part_of_a_checkpoint() -> None:
    assert not [name for name in tiny().state_dict() if "mask" in name]
    assert set(tiny().state_dict()) == set(create_model("vit_nano", dim=32, heads=4, depth=3).state_dict())


def test_shifts_have_no_place_where_masked_pairs_have_weight() -> None:
    with pytest.raises(UserError, match="shifts leaves out masked pairs"):
        tiny(multiplicative=True, shifts=True)
