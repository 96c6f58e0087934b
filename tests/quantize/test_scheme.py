"""The quantised layers against loops of whole numbers, and the checks on the int8 form."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lavit_edge.checkpoint import INT8
from lavit_edge.errors import UserError
from lavit_edge.models.blocks import Add
from lavit_edge.quantize import scheme
from lavit_edge.quantize.scheme import check_tensors, chosen_float_layers, default_float_layers, quantizable, quantized_model

INPUT, OUTPUT = (0.031, 7), (0.052, -20)


def layer_tensors(layer: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    out = len(layer.weight)
    tensors = {
        "0.weight": torch.randint(-127, 128, layer.weight.shape, generator=rng, dtype=torch.int8),
        "0.weight_scale": 0.001 + 0.003 * torch.rand(out, generator=rng),
        "0.bias": torch.randn(out, generator=rng),
    }
    for end, (scale, zero_point) in (("input", INPUT), ("output", OUTPUT)):
        tensors |= {f"0.{end}_scale": torch.tensor(scale), f"0.{end}_zero_point": torch.tensor(zero_point, dtype=torch.int32)}
    return tensors


def code(value: float, scale: float, zero_point: int) -> int:
    return max(-128, min(127, round(value / scale) + zero_point))  # round() takes ties to even, as torch does


def finish(total: int, channel: int, tensors: dict[str, torch.Tensor]) -> float:
    """The sum of products of whole numbers to the layer's output."""
    value = total * INPUT[0] * tensors["0.weight_scale"][channel].item() + tensors["0.bias"][channel].item()
    return (code(value, *OUTPUT) - OUTPUT[1]) * OUTPUT[0]


def test_linear_is_whole_number_arithmetic():
    model = nn.Sequential(nn.Linear(5, 4))
    tensors = layer_tensors(model[0])
    x = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(6, 4)
    for row in range(6):
        codes = [code(x[row, i].item(), *INPUT) for i in range(5)]
        for channel in range(4):
            total = sum((codes[i] - INPUT[1]) * int(tensors["0.weight"][channel, i]) for i in range(5))
            expected[row, channel] = finish(total, channel, tensors)
    for kind in ("int8", "fake"):
        torch.testing.assert_close(quantized_model(copy.deepcopy(model), tensors, (), kind)(x), expected, rtol=0, atol=1e-5)


def test_grouped_strided_convolution_is_whole_number_arithmetic():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2))
    tensors = layer_tensors(model[0])
    x = 3 * torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(1, 6, 3, 3)
    for channel in range(6):
        for row in range(3):
            for column in range(3):
                total = 0
                for c in range(2):
                    for i in range(3):
                        for j in range(3):
                            y, z = 2 * row + i - 1, 2 * column + j - 1
                            if 0 <= y < 6 and 0 <= z < 6:  # padding is zero, so its code is the zero point
                                value = code(x[0, channel // 3 * 2 + c, y, z].item(), *INPUT)
                                total += (value - INPUT[1]) * int(tensors["0.weight"][channel, c, i, j])
                expected[0, channel, row, column] = finish(total, channel, tensors)
    for kind in ("int8", "fake"):
        torch.testing.assert_close(quantized_model(copy.deepcopy(model), tensors, (), kind)(x), expected, rtol=0, atol=1e-5)


def test_an_addition_rounds_its_sum_once():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add, self.other = Add(), Add()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(self.add(x, x.flip(1)), x)

    tensors = {"add.output_scale": torch.tensor(OUTPUT[0]), "add.output_zero_point": torch.tensor(OUTPUT[1], dtype=torch.int32)}
    x = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    rounded = [[(code(a + b, *OUTPUT) - OUTPUT[1]) * OUTPUT[0] for a, b in zip(r, r[::-1], strict=True)] for r in x.tolist()]
    for kind in ("int8", "fake"):
        model = quantized_model(Sum(), tensors, {"other"}, kind)  # a float layer is an addition, too
        torch.testing.assert_close(model(x), torch.tensor(rounded) + x, rtol=0, atol=1e-5)


def test_a_convolution_that_pads_otherwise_is_refused():
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ValueError, match="zeros"):
        quantized_model(model, layer_tensors(model[0]), (), "int8")


def test_every_layer_but_the_first_embedding_and_the_head_is_quantised(deployed):
    layers = {path for path, module in deployed.model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert default_float_layers(deployed.model) == {"head", "stages.0.embedding.0.conv"}
    assert set(quantizable(deployed.model, {"head", "stages.1.blocks.0.mixer.conv"})) == layers - {
        "head",
        "stages.1.blocks.0.mixer.conv",
    }
    assert len(layers) == 49


def test_float_layers_are_asked_for_by_pattern(monkeypatch):
    monkeypatch.setattr(scheme, "default_float_layers", lambda model: frozenset({"head"}))
    blocks = nn.ModuleList(nn.ModuleDict({"ffn": nn.Linear(2, 2), "conv": nn.Conv2d(2, 2, 1), "add": Add()}) for _ in range(2))
    model = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(2, 2)})
    chosen = chosen_float_layers(model, ["*.ffn", "blocks.1.add"])
    assert chosen == {"head", "blocks.0.ffn", "blocks.1.ffn", "blocks.1.add"}
    with pytest.raises(UserError, match=r"^--float-layers block.1.conv: no such layer; one is called blocks.1.conv$"):
        chosen_float_layers(model, ["head", "block.1.conv"])


EMBEDDING = "stages.1.embedding.channels.conv"
SPOILED = {
    "is missing": lambda t: t.pop("stages.2.blocks.0.attention.query.conv.input_scale"),
    "not part": lambda t: t.update(extra=torch.zeros(1)),
    "expected torch.int8": lambda t: t.update({f"{EMBEDDING}.weight": t[f"{EMBEDDING}.weight"].float()}),
    "expected torch.float32 \\(32,\\)": lambda t: t.update({f"{EMBEDDING}.weight_scale": torch.ones(3)}),
    "not positive": lambda t: t[f"{EMBEDDING}.weight_scale"].__setitem__(2, 0.0),
    "add_ffn.output_scale' is missing": lambda t: t.pop("stages.2.blocks.0.add_ffn.output_scale"),
    "add_ffn.input_scale' is not part": lambda t: t.update({"stages.2.blocks.0.add_ffn.input_scale": torch.ones(())}),
    "add_ffn.output_zero_point' is -129": lambda t: t["stages.2.blocks.0.add_ffn.output_zero_point"].fill_(-129),
    "NaN": lambda t: t[f"{EMBEDDING}.output_scale"].fill_(float("nan")),
    "outside": lambda t: t[f"{EMBEDDING}.output_zero_point"].fill_(200),
}


@pytest.mark.parametrize("message", SPOILED)
def test_a_spoiled_int8_form_is_refused(message, deployed, int8):
    tensors, float_layers = load_file(int8 / INT8), default_float_layers(deployed.model)
    check_tensors(deployed.model, tensors, float_layers, "file")
    SPOILED[message](tensors)
    with pytest.raises(UserError, match=message):
        check_tensors(deployed.model, tensors, float_layers, "file")
