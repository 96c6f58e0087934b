from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from lavit_edge import create_model
from lavit_edge.errors import UserError
from lavit_edge.models.blocks import PositionBias
from lavit_edge.models.lit import LIT, DeformableMerging, RelativeAttention


def deformable_convolution(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """In plain loops: 2x2, stride 2, no padding; ``(C, h, w)``, ``(8, h/2, w/2)`` -> ``(C', h/2, w/2)``."""
    channels, height, width = x.shape
    values, moves, weights = x.tolist(), offset.tolist(), weight.tolist()

    def pixel(channel: int, row: int, column: int) -> float:
        return values[channel][row][column] if 0 <= row < height and 0 <= column < width else 0.0

    def at(channel: int, row: float, column: float) -> float:
        if not (-1 < row < height and -1 < column < width):
            return 0.0
        top, left = math.floor(row), math.floor(column)
        down, right = row - top, column - left
        upper = (1 - right) * pixel(channel, top, left) + right * pixel(channel, top, left + 1)
        lower = (1 - right) * pixel(channel, top + 1, left) + right * pixel(channel, top + 1, left + 1)
        return (1 - down) * upper + down * lower

    result = torch.zeros(len(weight), height // 2, width // 2, dtype=torch.float64)
    for y in range(height // 2):
        for x_ in range(width // 2):
            for i in range(2):
                for j in range(2):
                    tap = 2 * i + j
                    row, column = 2 * y + i + moves[2 * tap][y][x_], 2 * x_ + j + moves[2 * tap + 1][y][x_]
                    sampled = [at(channel, row, column) for channel in range(channels)]
                    for out in range(len(weight)):
                        result[out, y, x_] += sum(weights[out][c][i][j] * sampled[c] for c in range(channels))
    return result + bias[:, None, None]


def merging(deformable: bool = True) -> DeformableMerging:
    torch.manual_seed(0)
    layer = DeformableMerging(in_dim=3, dim=5, grid=3, deformable=deformable).double().eval()
    assert isinstance(layer.norm, nn.BatchNorm2d)
    for value in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
        assert value is not None
        nn.init.normal_(value)
    return layer


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("spread", [0.3, 3.0])  # pixels; the second reaches far beyond the map
def test_merging_is_a_deformable_convolution(spread: float, folded: bool) -> None:
    layer = merging()
    assert layer.offset is not None
    assert layer.offset.bias is not None
    nn.init.normal_(layer.offset.weight, std=0.1)
    nn.init.normal_(layer.offset.bias, std=spread)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        assert layer.conv.bias is not None
        offsets = layer.offset(x)
        convolved = torch.stack([deformable_convolution(*each, layer.conv.weight, layer.conv.bias) for each in zip(x, offsets)])  # noqa: B905
        expected = nn.functional.gelu(layer.norm(convolved)).flatten(2).transpose(1, 2)
        if folded:
            layer.fold()
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)  # torch's places are float32


def test_zero_offsets_are_a_plain_convolution() -> None:
    model = create_model("lit_nano", num_classes=10, image_size=64).eval()
    assert isinstance(model, LIT)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.frozen()(x), model(x), rtol=1e-4, atol=1e-4)  # offsets start at zero
    layer = merging()
    assert layer.offset is not None
    for parameter in layer.offset.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        plain = nn.functional.conv2d(x, layer.conv.weight, layer.conv.bias, stride=2)
        expected = nn.functional.gelu(layer.norm(plain)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


def test_a_frozen_model_has_the_weights_of_one_built_without_offsets() -> None:
    model = create_model("lit_nano", num_classes=10, image_size=64)
    assert isinstance(model, LIT)
    frozen, plain = model.frozen(), create_model("lit_nano", num_classes=10, image_size=64, deformable=False)
    assert set(model.state_dict()) - set(frozen.state_dict()) == {
        f"stages.{stage}.embedding.offset.{kind}" for stage in (1, 2, 3) for kind in ("weight", "bias")
    }
    plain.load_state_dict(frozen.state_dict())
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters()) == 4 * 8 * (32 + 64 + 160) + 24


def test_offsets_move_the_result_and_the_first_stages_have_no_attention() -> None:
    torch.manual_seed(0)
    model = create_model("lit_nano", num_classes=10, image_size=64).eval()
    assert [[block.attention is None for block in stage.blocks] for stage in model.stages] == [  # type: ignore[union-attr]
        [True] * 2,
        [True] * 2,
        [False] * 4,
        [False] * 2,
    ]
    x, moved = torch.randn(1, 3, 64, 64), copy.deepcopy(model)
    for module in moved.modules():
        if isinstance(module, DeformableMerging):
            assert module.offset is not None
            assert module.offset.bias is not None
            nn.init.constant_(module.offset.bias, 0.5)
    with torch.no_grad():
        assert not torch.allclose(moved(x), model(x), atol=1e-3)


@pytest.mark.parametrize("folded", [False, True])
def test_the_relative_bias_is_by_rows_and_columns_apart(folded: bool) -> None:
    torch.manual_seed(0)
    layer = RelativeAttention(dim=8, heads=2, grid=3).double()
    layer.bias.start()
    table = layer.bias.position_table.detach().clone()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    query, key, value = (linear(x).reshape(2, 9, 2, 4).transpose(1, 2) for linear in (layer.query, layer.key, layer.value))
    bias = torch.zeros(2, 9, 9, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            bias[:, i, j] = table[(i // 3 - j // 3 + 2) * 5 + i % 3 - j % 3 + 2]
    attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
    expected = layer.project(attended.transpose(1, 2).reshape(2, 9, 8))
    if folded:
        layer.fold()
        layer.bias.fold()
    torch.testing.assert_close(layer(x), expected)


def test_a_folded_bias_has_no_gather() -> None:
    bias = PositionBias(heads=2, grid=3)
    bias.fold()
    assert tuple(bias.position_table.shape) == (2, 9, 9)
    assert bias() is bias.position_table


def test_the_class_token_needs_plain_blocks() -> None:
    with pytest.raises(UserError, match="class_token"):
        create_model("lit_nano", class_token=True)
    model = create_model("lit_tiny", image_size=64, num_classes=10, depths=(1, 1, 1, 1))
    assert tuple(model.state_dict()["stages.3.position"].shape) == (1, 5, 512)
    assert "stages.2.class_token" not in model.state_dict()
