from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from lavit_edge import create_model
from lavit_edge.errors import UserError
from lavit_edge.models.lsla import LightAttention, PatchMerging, from_windows, to_windows, window_of

PARTS = ("light", "dynamic_scale", "inner_bias", "outer_bias")


def attention(**parts: bool) -> LightAttention:
    torch.manual_seed(0)
    layer = LightAttention(8, 2, 4, 2, **{**dict.fromkeys(PARTS, True), **parts}).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def in_loops(layer: LightAttention, x: Tensor, parts: dict[str, bool]) -> Tensor:
    """One window and head after another, by the formula: ``(1, 16, 8)``, 4 x 4 tokens in windows of 2 x 2, two heads."""
    result = torch.zeros_like(x)
    for top, left in itertools.product((0, 2), (0, 2)):
        tokens = [(top + i) * 4 + left + j for i in range(2) for j in range(2)]
        window = x[0, tokens]
        query = layer.query(window)
        keys = window if layer.key is None else layer.key(window)
        values = window if layer.value is None else layer.value(window)
        heads = []
        for head in range(2):
            channels = slice(4 * head, 4 * head + 4)
            scale = layer.log_scale[head].exp() if parts["dynamic_scale"] else 0.5  # type: ignore[index]
            scores = scale * query[:, channels] @ keys[:, channels].T
            inner, outer = torch.zeros(4, 4, dtype=x.dtype), torch.zeros(4, 4, dtype=x.dtype)
            for i, j in itertools.product(range(4), range(4)):
                entry = (i // 2 - j // 2 + 1) * 3 + i % 2 - j % 2 + 1
                if layer.inner is not None:
                    inner[i, j] = layer.inner.position_table[entry, head]
                if layer.outer is not None:
                    outer[i, j] = layer.outer.position_table[entry, head]
            heads.append(((scores + inner).softmax(-1) + outer) @ values[:, channels])
        result[0, tokens] = layer.project(torch.cat(heads, 1))
    return result


@pytest.mark.parametrize("off", [None, *PARTS])
def test_attention_is_its_formula_with_each_part_on_and_off(off: str | None) -> None:
    parts = {part: part != off for part in PARTS}
    layer, x = attention(**parts), torch.randn(1, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), in_loops(layer, x, parts))
    switches = dict(light=layer.key is None, dynamic_scale=layer.log_scale is not None)
    assert parts == {**switches, "inner_bias": layer.inner is not None, "outer_bias": layer.outer is not None}


@pytest.mark.parametrize("off", [None, *PARTS])
def test_the_folded_form_computes_the_training_form(off: str | None) -> None:
    layer, x = attention(**{part: part != off for part in PARTS}), torch.randn(3, 16, 8, dtype=torch.float64)
    folded = copy.deepcopy(layer)
    for module in folded.modules():
        if hasattr(module, "fold"):
            module.fold()
    names = [name for name, _ in folded.named_parameters()]
    assert "log_scale" not in names
    with torch.no_grad():
        torch.testing.assert_close(folded(x), layer(x))
        for module in folded.modules():
            if hasattr(module, "fold"):
                module.fold()
        torch.testing.assert_close(folded(x), layer(x))


def test_a_new_outer_bias_is_zero_and_limits_afterwards() -> None:
    model = create_model("lsla_nano", num_classes=10, image_size=64)
    tables = {name: value for name, value in model.state_dict().items() if name.endswith("outer.position_table")}
    assert len(tables) == 10
    assert not any(value.any() for value in tables.values())
    layer = attention(inner_bias=False)
    assert layer.outer is not None
    x = torch.randn(1, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.outer.position_table += 100.0  # in the softmax, a constant would change nothing
        assert not torch.allclose(layer(x), before)


@pytest.mark.parametrize(("grid", "window"), [(4, 2), (6, 3), (4, 4), (4, 1)])
def test_windows_and_back(grid: int, window: int) -> None:
    x = torch.arange(2.0 * grid**2 * 3).reshape(2, grid**2, 3)
    windows = to_windows(x, grid, window)
    assert torch.equal(from_windows(windows, grid, window), x)
    rows = x[0].reshape(grid, grid, 3)[:window, -window:]  # the last window of the first band
    assert torch.equal(windows[grid // window - 1], rows.reshape(-1, 3))


def test_merging_sets_the_four_tokens_of_a_block_side_by_side() -> None:
    layer = PatchMerging(2, 3, 2).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    tokens = torch.stack([x[0, :, y : y + 2, z : z + 2].permute(1, 2, 0).flatten() for y in (0, 2) for z in (0, 2)])
    torch.testing.assert_close(layer(x)[0], layer.reduce(layer.norm(tokens)))


@pytest.mark.parametrize(("grid", "window", "found"), [(56, 14, 14), (40, 14, 10), (5, 7, 5), (16, 7, 4), (2, 7, 2)])
def test_the_window_tiles_the_map(grid: int, window: int, found: int) -> None:
    assert window_of(grid, window) == found


def test_a_size_that_no_window_tiles_is_one_line() -> None:
    with pytest.raises(UserError, match="no window of about 7 tiles a 34x34 map"):
        create_model("lsla_nano", image_size=544)
