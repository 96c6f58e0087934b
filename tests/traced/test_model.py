"""Small modules with one difficulty each: what becomes of them, and that their logits stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.metrics import sqnr
from lavit_edge.models.blocks import Add
from lavit_edge.traced.model import Adapted, TracedModule

SIZE, CLASSES = 32, 4


class Net(nn.Module):
    """A stem of 8 channels at a quarter of the size, the difficulty, mean, head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(3, 8, 4, 4), middle, nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)).mean((2, 3)))


def settled(module: nn.Module) -> nn.Module:
    """With batch norms that do something."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            for tensor in (each.running_mean, each.weight, each.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
    return module


def deploy(middle: nn.Module) -> TracedModule:
    """The traced form; its logits are the module's for another batch than the one it was traced with."""
    torch.manual_seed(0)
    module = settled(Net(middle)).eval()
    traced = Adapted(module, SIZE, CLASSES).deploy()
    picture = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert sqnr(module(picture).numpy(), traced(picture).numpy()) > 90
    return traced


def kinds(traced: TracedModule) -> dict[str, str]:
    called = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    return {path: type(traced.get_submodule(path)).__name__ for path in called}


def operators(traced: TracedModule) -> set[str]:
    return {str(node.target).removeprefix("aten.") for node in traced.graph.nodes if node.op == "call_function"}


def of(function: Callable[[Tensor, nn.Module], Tensor], *parts: nn.Module) -> nn.Module:
    """A module with parts ``0``, ``1``, ... that computes ``function(x, parts)``."""

    class Of(nn.ModuleList):
        def forward(self, x: Tensor) -> Tensor:
            return function(x, self)

    return Of(parts)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor) -> Tensor:
    return x.transpose(1, 2).unflatten(2, (8, 8))


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1)


def test_first_and_last_layers_stay_float_by_order() -> None:
    traced = deploy(of(lambda x, m: m[0](x), conv()))
    assert traced.float_layers == ("stem", "head")
    assert kinds(traced) == {"stem": "Conv2d", "middle.0": "Conv2d", "head": "Linear"}


@pytest.mark.parametrize(
    "middle",
    [
        of(lambda x, m: m[1](m[0](x)), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
        of(lambda x, m: to_map(m[1](m[0](tokens(x)).flatten(0, 1)).reshape(-1, 64, 8)), nn.Linear(8, 8), nn.BatchNorm1d(8)),
        of(lambda x, m: m[1](m[0](tokens(x)).transpose(1, 2)).unflatten(2, (8, 8)), nn.Linear(8, 8), nn.BatchNorm1d(8)),
        of(lambda x, m: m[1](m[0](x).flatten(2)).unflatten(2, (8, 8)), conv(), nn.BatchNorm1d(8)),
    ],
    ids=["conv", "flattened tokens", "transposed tokens", "flattened map"],
)
def test_batch_norm_is_folded_into_the_layer_before_it(middle: nn.Module) -> None:
    traced = deploy(middle)
    assert traced.notes == ("1 of 1 batch norms folded into the layers before them",)
    assert not {"batch_norm.default", "mul.Tensor"} & operators(traced)


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (of(lambda x, m: m[1](m[0](x).relu()), conv(), nn.BatchNorm2d(8)), "no convolution or linear map is right before it"),
        (of(lambda x, m: m[1](y := m[0](x)) + y, conv(), nn.BatchNorm2d(8)), "middle.0 is read by others, too"),
        (
            of(lambda x, m: to_map(m[1](m[0](tokens(x)))), nn.Linear(8, 8), nn.BatchNorm1d(64)),
            "its channels are not those of middle.0",
        ),
    ],
    ids=["after relu", "read twice", "over tokens"],
)
def test_batch_norm_that_cannot_be_folded_is_named(middle: nn.Module, reason: str) -> None:
    traced = deploy(middle)
    assert traced.notes == (
        "0 of 1 batch norms folded into the layers before them",
        f"batch norm middle.1: {reason}: it is computed in float",
    )
    assert {"mul.Tensor", "add.Tensor"} <= operators(traced)
    assert "batch_norm.default" not in operators(traced)


class Scaled(nn.Module):
    """A layer, its channels (or all, or some axis of it) times a stored scale."""

    def __init__(self, layer: nn.Module, scale: Tensor | float, divides: bool = False) -> None:
        super().__init__()
        self.layer, self.divides = layer, divides
        self.scale = nn.Parameter(scale) if isinstance(scale, Tensor) else scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x) if isinstance(self.layer, nn.Conv2d) else self.layer(tokens(x))
        x = x / self.scale if self.divides else self.scale * x
        return x if isinstance(self.layer, nn.Conv2d) else to_map(x)


GAINS = torch.linspace(0.5, 1.5, 8)


@pytest.mark.parametrize(
    "scaled",
    [
        Scaled(nn.Linear(8, 8), GAINS),
        Scaled(conv(), GAINS[:, None, None]),
        Scaled(nn.Conv2d(8, 8, 3, padding=1, bias=False), GAINS[None, :, None, None]),
        Scaled(conv(), 1.7),
        Scaled(conv(), torch.tensor(0.3), divides=True),
    ],
    ids=["of tokens", "of a map", "without bias", "a number", "a divisor"],
)
def test_a_stored_scale_is_folded_into_the_layer_before_it(scaled: nn.Module) -> None:
    """LayerScale: what the sum reads is then int8, and so is the sum."""
    traced = deploy(of(lambda x, m: m[2]((y := m[0](x)) + m[1](y)), conv(), scaled, conv()))
    assert traced.notes == ("1 of 1 scales folded into the layers before them",)
    assert not {"mul.Tensor", "div.Tensor"} & operators(traced)
    assert "Add" in kinds(traced).values()


@pytest.mark.parametrize(
    ("scaled", "note"),
    [
        (Scaled(conv(), torch.rand(8, 8) + 1), ()),  # of the places on the map
        (Scaled(nn.Linear(8, 8), torch.rand(64, 1) + 1), ()),  # of the tokens
        (
            Scaled(conv(), 1e-6),
            (
                "0 of 1 scales folded into the layers before them",
                "the scale behind middle.0.layer is too small for weights in fp16: it is computed in float",
            ),
        ),
    ],
    ids=["places", "tokens", "too small for fp16"],
)
def test_other_scales_stay(scaled: nn.Module, note: tuple[str, ...]) -> None:
    traced = deploy(of(lambda x, m: m[0](x), scaled))
    assert traced.notes == note
    assert "mul.Tensor" in operators(traced)


def test_what_autocast_and_grad_wrap_is_part_of_the_graph() -> None:
    """EfficientViT's attention turns autocast off around itself."""

    def wrapped(x: Tensor, m: nn.Module) -> Tensor:
        with torch.autocast("cpu", enabled=False), torch.enable_grad():
            first, second = m[0](x).relu_().chunk(2, 1)
        return m[1](torch.cat([second, first], 1))

    assert operators(deploy(of(wrapped, conv(), conv()))) >= {"relu.default", "chunk.default", "cat.default"}


def test_slices_of_everything_are_left_out() -> None:
    """As ExecuTorch does, so that its calls and the program's are counted alike."""

    class Slices(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:][:, :, ::2]

    traced = deploy(nn.Sequential(nn.Conv2d(8, 9, 1), Slices()))
    assert sum("slice" in str(node.target) for node in traced.graph.nodes) == 2, "of five, with one for each axis up to its own"


def test_what_changes_neither_values_nor_type_is_left_out() -> None:
    def function(x: Tensor, m: nn.Module) -> Tensor:
        y = m[0](x.float().clone()).to(torch.float32).type_as(x)
        z = y.clone()
        z.mul_(2)
        return y.to(torch.float64).float() + z

    found = operators(deploy(of(function, conv())))
    assert found - {"_assert_tensor_metadata.default", "mean.dim"} == {"mul.Tensor", "add.Tensor", "to.dtype"}


def test_overwriting_activations_become_new_values() -> None:
    traced = deploy(of(lambda x, m: m[1](m[0](x)), conv(), nn.ReLU6(inplace=True)))
    assert "hardtanh.default" in operators(traced)
    assert not any(name.endswith("_.default") for name in operators(traced))


def test_a_value_overwritten_under_another_reader_is_functionalised() -> None:
    def function(x: Tensor, m: nn.Module) -> Tensor:
        y = m[0](x)
        view = y[:, :4]
        view += 1
        return y * y

    assert not any("_." in name for name in operators(deploy(of(function, conv()))))


def test_a_view_of_a_copy_is_a_reshape() -> None:
    """ConViT: torch's functionalisation makes the copy that a view needs, and copies are left out."""

    def function(x: Tensor, m: nn.Module) -> Tensor:
        y = m[0](x)
        view = y[:, :4]
        view += 1
        return m[1](y.transpose(2, 3).contiguous().view(-1, 8, 4, 16))

    found = operators(deploy(of(function, conv(), conv())))
    assert "reshape.default" in found
    assert not found & {"clone.default", "view.default", "_unsafe_view.default"}


def test_additions_of_int8_tensors_that_a_layer_reads_become_modules() -> None:
    inner = deploy(of(lambda x, m: m[2](((y := m[0](x).relu()) + m[1](y)).relu()), conv(), conv(), conv()))
    assert kinds(inner)["middle.add"] == "Add"
    assert isinstance(inner.get_submodule("middle.add"), Add)
    with_stem = deploy(of(lambda x, m: m[1](x + m[0](x)), conv(), conv()))
    assert "Add" not in kinds(with_stem).values(), "the stem is float"
    norm = nn.GroupNorm(1, 8)
    normalised = deploy(of(lambda x, m: m[3](m[2](m[0](x) + m[1](x))), conv(), conv(), norm, conv()))
    assert "Add" not in kinds(normalised).values(), "a norm alone reads the sum"


@pytest.mark.parametrize("padding", ["same", "reflect", "odd"])
def test_every_padding_is_that_of_a_quantisable_layer(padding: str) -> None:
    options = {"same": dict(kernel_size=3, padding="same"), "odd": dict(kernel_size=4, padding="same")}
    layer = nn.Conv2d(8, 8, **options.get(padding, dict(kernel_size=3, padding=1, padding_mode="reflect")))
    found = deploy(of(lambda x, m: m[0](x), layer)).get_submodule("middle.0")
    assert isinstance(found, nn.Conv2d)
    assert found.padding_mode == "zeros"
    assert found.padding == ((1, 1) if padding == "same" else (0, 0))


@pytest.mark.parametrize(
    ("sides", "own", "by_the_layer"),
    [((2, 2, 1, 1), 0, (1, 2)), ((1, 1, 1, 1), (0, 2), (1, 3)), ((0, 1, 0, 1), 0, None), ((-1, -1, 1, 1), 1, None)],
)
def test_zeros_on_both_sides_of_a_map_are_left_to_the_layer(
    sides: tuple[int, ...], own: Any, by_the_layer: tuple[int, int] | None
) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=own)
    traced = deploy(of(lambda x, m: m[0](F.pad(x, sides)), layer))
    assert traced.get_submodule("middle.0").padding == (by_the_layer or layer.padding)
    assert ("pad.default" in operators(traced)) == (by_the_layer is None)


@pytest.mark.parametrize("options", [{"value": 1.0}, {"mode": "reflect"}])
def test_other_numbers_than_zeros_around_a_map_stay(options: dict[str, Any]) -> None:
    traced = deploy(of(lambda x, m: m[0](F.pad(x, (1, 1, 1, 1), **options)), nn.Conv2d(8, 8, 3)))
    assert traced.get_submodule("middle.0").padding == (0, 0)


def four_axes(x: Tensor, m: nn.Module) -> Tensor:
    query, key, value = m[0](tokens(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(2, 3) / 2 + m.table).softmax(-1)
    return to_map((weights @ value).transpose(1, 2).flatten(2))


def fused(x: Tensor, m: nn.Module) -> Tensor:
    query, key, value = m[0](tokens(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    return to_map(F.scaled_dot_product_attention(query, key, value, attn_mask=m.table).transpose(1, 2).flatten(2))


def causal(x: Tensor, m: nn.Module) -> Tensor:
    query, key, value = m[0](tokens(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    return to_map(F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3).transpose(1, 2).flatten(2))


def masked(x: Tensor, m: nn.Module) -> Tensor:
    query, key, value = m[0](tokens(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    return to_map(F.scaled_dot_product_attention(query, key, value, m.table > -0.5).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("function", [four_axes, fused, causal, masked])
def test_attention_of_four_axes_gets_three(function: Callable[[Tensor, nn.Module], Tensor]) -> None:
    middle = of(function, nn.Linear(8, 24))
    middle.register_parameter("table", nn.Parameter(torch.randn(2, 64, 64)))
    traced = deploy(middle)
    (softmax,) = (node for node in traced.graph.nodes if "softmax" in str(node.target))
    assert softmax.meta["val"].shape == (6, 64, 64)
    assert {"bmm.default"} <= operators(traced)
    assert not {"matmul.default", "scaled_dot_product_attention.default"} & operators(traced)
    assert kinds(traced)["middle.0"] == "Linear"


def test_multihead_attention_is_layers_and_products() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    traced = deploy(of(lambda x, m: to_map(m[0](y := tokens(x), y, y, need_weights=False)[0]), attention))
    assert kinds(traced)["middle.0.in_proj"] == kinds(traced)["middle.0.out_proj"] == "Linear"
    assert "bmm.default" in operators(traced)


def test_a_weight_used_twice_becomes_two_layers() -> None:
    traced = deploy(of(lambda x, m: m[0](m[0](x).relu()), conv()))
    assert {"middle.0", "middle.0_2"} <= set(kinds(traced))


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: torch.einsum("bnc,dc->bnd", x, w),
        lambda x, w: torch.tensordot(x, w, dims=([2], [0])),
        torch.inner,
        torch.matmul,
        lambda x, w: torch.addmm(w[0], x.reshape(-1, 8), w).reshape(-1, 64, 8),
        lambda x, w: x @ w[None],
    ],
    ids=["einsum", "tensordot", "inner", "matmul", "addmm", "with an axis of one"],
)
def test_every_product_with_a_stored_matrix_is_a_layer(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    middle = of(lambda x, m: to_map(product(tokens(x), m.matrix)))
    middle.register_parameter("matrix", nn.Parameter(torch.randn(8, 8)))
    traced = deploy(middle)
    assert list(kinds(traced).values()) == ["Conv2d", "Linear", "Linear"]
    assert not {"bmm.default", "mm.default", "matmul.default", "add.Tensor"} & operators(traced)


def test_a_convolution_of_one_axis_is_a_layer() -> None:
    """Efficient channel attention, and the mean that it reads."""

    def function(x: Tensor, m: nn.Module) -> Tensor:
        means = x.mean((2, 3))[:, None]
        return x * m[1](m[0](means)).sigmoid().transpose(1, 2)[..., None]

    ahead = nn.Conv1d(1, 2, 3, stride=1, padding="same", bias=False)
    traced = deploy(of(function, ahead, nn.Conv1d(2, 1, 3, padding=2, dilation=2)))
    assert list(kinds(traced).values()) == ["Conv2d", "Conv2d", "Conv2d", "Linear"]
    assert "conv1d.default" not in operators(traced)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: F.rms_norm(x, (8,)), {"rsqrt.default"}),
        (lambda x: torch.einsum("bchw,bdhw->bcd", x, x)[:, :, :1, None] * x, {"bmm.default"}),
        (F.mish, {"log1p.default", "tanh.default"}),
        (lambda x: F.channel_shuffle(x, 2), set()),
        (lambda x: torch.where((x > 0) & (x < 1), x, -x), {"bitwise_and.Tensor"}),
        (lambda x: F.adaptive_max_pool2d(x, (4, 1)), {"max_pool2d.default"}),
        (lambda x: F.adaptive_max_pool2d(x, (3, 5)), {"amax.default"}),
    ],
)
def test_what_a_back_end_lacks_is_written_in_simpler_operators(function: Callable[[Tensor], Tensor], found: set[str]) -> None:
    names = operators(deploy(of(lambda x, m: function(x))))
    assert names >= found
    lacking = {"rms_norm", "einsum", "mish", "channel_shuffle", "__and__", "adaptive_max_pool2d"}
    assert lacking.isdisjoint(name.partition(".")[0] for name in names)


def test_what_no_picture_reaches_is_computed_once() -> None:
    """A convolution whose weight is standardised each time."""

    def standardised(x: Tensor, m: nn.Module) -> Tensor:
        weight = m[0].weight
        return F.conv2d(x, (weight - weight.mean((1, 2, 3), keepdim=True)) * 2, m[0].bias, padding=1)

    traced = deploy(of(standardised, conv()))
    assert list(kinds(traced).values()).count("Conv2d") == 2
    assert "sub.Tensor" not in operators(traced)


def test_float_layers_are_chosen_by_pattern() -> None:
    module = Net(of(lambda x, m: m[0](x), conv()))
    assert Adapted(module, SIZE, CLASSES, ["middle.*"]).deploy().float_layers == ("middle.*",)
