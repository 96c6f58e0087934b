"""The operations of ML programs against torch, one by one, in full precision and in fp16."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("coremltools")
import coremltools as ct
import torch.ao.quantization.fx._decomposed  # registers the quantized_decomposed operators

from lavit_edge.artifact import mlprogram_ops
from lavit_edge.artifact.mlprogram import MLProgram
from lavit_edge.errors import UserError

Q = torch.ops.quantized_decomposed


class Function(nn.Module):
    """A function as a module, with a parameter to use."""

    def __init__(self, function: Callable[..., Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.parameter = nn.Parameter(torch.randn(shape)) if shape else None

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.parameter is None else self.function(x, self.parameter)


def half_grid(module: nn.Module) -> nn.Module:
    """Every floating tensor rounded to what fp16 can hold, so that storing it in fp16 loses nothing."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().float()
    return module.eval()


def save(module: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    program = torch.export.export(module.eval(), (torch.randn(shape),)).run_decompositions({})
    target, precision = ct.target.iOS17, ct.precision.FLOAT16
    ct.convert(program, minimum_deployment_target=target, compute_precision=precision, skip_model_load=True).save(str(path))
    return path


def run(program: MLProgram, x: Tensor) -> Tensor:
    (name,), (output,) = program.inputs, program.outputs
    return torch.from_numpy(program.predict({name: x.numpy()})[output])


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.running_mean, norm.running_var = torch.randn(8), torch.rand(8) + 0.5
    return norm


def over_channels(x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)


def attention(x: Tensor) -> Tensor:
    """Heads of a fused projection, as timm's transformers split it."""
    query, key, value = x.reshape(1, 16, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value)


def separable(x: Tensor) -> Tensor:
    """MobileViTv2's: one score for each place, and a context that is the same for all."""
    query, key, value = x.split([1, 8, 8], 1)
    context = (key * query.softmax(-1)).sum(-1, keepdim=True)
    return value.relu() * context.expand_as(value)


CASES: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": ("linear", lambda: nn.Linear(32, 48), (1, 16, 32)),
    "linear without bias": ("linear", lambda: nn.Linear(32, 48, bias=False), (1, 16, 32)),
    "patches": ("conv", lambda: nn.Conv2d(3, 16, 4, 4), (1, 3, 16, 16)),
    "padded, strided": ("conv", lambda: nn.Conv2d(3, 16, 3, 2, padding=1, bias=False), (1, 3, 15, 16)),
    "padding not square": ("conv", lambda: nn.Conv2d(3, 4, 3, padding=(2, 1)), (1, 3, 8, 9)),
    "depthwise": ("conv", lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32), (1, 32, 8, 8)),
    "grouped, dilated": ("conv", lambda: nn.Conv2d(8, 12, 3, dilation=2, groups=4), (1, 8, 9, 9)),
    "matmul": ("matmul", lambda: Function(lambda x, w: torch.bmm(x, w), 4, 16, 6), (4, 9, 16)),
    "matmul, y transposed": ("matmul", lambda: Function(lambda x, w: torch.bmm(x, w.transpose(1, 2)), 4, 6, 16), (4, 9, 16)),
    "softmax": ("softmax", lambda: nn.Softmax(-1), (2, 16, 16)),
    "layer_norm": ("layer_norm", lambda: nn.LayerNorm(32), (1, 16, 32)),
    "layer_norm of two axes": ("layer_norm", lambda: nn.LayerNorm((4, 8)), (2, 4, 8)),
    "batch_norm": ("batch_norm", batch_norm, (1, 8, 5, 5)),
    "gelu": ("gelu", lambda: nn.GELU(), (1, 16, 32)),
    "relu": ("relu", lambda: nn.ReLU(), (1, 16, 32)),
    "add": ("add", lambda: Function(lambda x, w: x + w, 1, 1, 32), (1, 16, 32)),
    "sub": ("sub", lambda: Function(lambda x, w: w - x, 32), (1, 16, 32)),
    "mul": ("mul", lambda: Function(lambda x, w: x * w, 16, 1), (1, 16, 32)),
    "mul by a number": ("mul", lambda: Function(lambda x: x * 0.375), (1, 16, 32)),
    "reduce_mean": ("reduce_mean", lambda: Function(lambda x: x.mean(1)), (1, 16, 32)),
    "reduce_mean, kept": ("reduce_mean", lambda: Function(lambda x: x.mean((2, 3), keepdim=True)), (1, 4, 5, 6)),
    "reshape": ("reshape", lambda: Function(lambda x: x.unflatten(2, (4, 8))), (1, 16, 32)),
    "pad": ("pad", lambda: Function(lambda x: nn.functional.pad(x, (0, 0, 1, 0))), (1, 16, 32)),
    "pad, two axes": ("pad", lambda: Function(lambda x: nn.functional.pad(x, (2, 3, 0, 1), value=0.5)), (2, 4, 8)),
    "select an index": ("slice_by_index", lambda: Function(lambda x: x[:, 0]), (1, 16, 32)),
    "slice": ("slice_by_index", lambda: Function(lambda x: x[:, 3:-2, 1:]), (1, 16, 32)),
    "pixel_shuffle": ("pixel_shuffle", lambda: nn.PixelShuffle(2), (1, 8, 3, 4)),
    "transpose": ("transpose", lambda: Function(lambda x: x.permute(0, 2, 1, 3)), (1, 4, 5, 6)),
    "softmax over channels": ("softmax", lambda: nn.Softmax(1), (1, 8, 5, 5)),
    "clip": ("clip", nn.ReLU6, (1, 16, 32)),
    "clip, one side": ("clip", lambda: Function(lambda x: x.clamp(min=0.5)), (1, 16, 32)),
    "leaky_relu": ("leaky_relu", lambda: nn.LeakyReLU(0.125), (1, 16, 32)),
    "elu": ("elu", nn.ELU, (1, 16, 32)),
    "silu": ("silu", nn.SiLU, (1, 16, 32)),
    "sigmoid": ("sigmoid", nn.Sigmoid, (1, 16, 32)),
    "sigmoid_hard": ("sigmoid_hard", nn.Hardsigmoid, (1, 16, 32)),
    "softplus": ("softplus", nn.Softplus, (1, 16, 32)),
    "tanh": ("tanh", nn.Tanh, (1, 16, 32)),
    "exp": ("exp", lambda: Function(torch.exp), (1, 16, 32)),
    "abs": ("abs", lambda: Function(torch.abs), (1, 16, 32)),
    "sqrt": ("sqrt", lambda: Function(lambda x: x.abs().sqrt()), (1, 16, 32)),
    "rsqrt": ("rsqrt", lambda: Function(lambda x: (x.abs() + 1).rsqrt()), (1, 16, 32)),
    "erf": ("erf", lambda: Function(torch.erf), (1, 16, 32)),
    "real_div": ("real_div", lambda: Function(lambda x: x / x.abs().amax(-1, keepdim=True)), (1, 16, 32)),
    "maximum": ("maximum", lambda: Function(torch.maximum, 32), (1, 16, 32)),
    "minimum": ("minimum", lambda: Function(torch.minimum, 32), (1, 16, 32)),
    "pow": ("pow", lambda: Function(lambda x: x.abs() ** 1.5), (1, 16, 32)),
    "reduce_sum": ("reduce_sum", lambda: Function(lambda x: x.abs().sum(-1)), (1, 16, 32)),
    "reduce_max": ("reduce_max", lambda: nn.AdaptiveMaxPool2d(1), (1, 4, 5, 6)),
    "reduce_l2_norm": ("reduce_l2_norm", lambda: Function(lambda x: x.norm(dim=-1, keepdim=True)), (1, 16, 32)),
    "expand_dims": ("expand_dims", lambda: Function(lambda x: x.unsqueeze(2)), (1, 16, 32)),
    "squeeze": ("squeeze", lambda: Function(lambda x: x.squeeze(0)), (1, 16, 32)),
    "concat": ("concat", lambda: Function(lambda x: torch.cat([x, x.relu()], 1)), (1, 4, 5, 6)),
    "concat of a parameter": ("concat", lambda: Function(lambda x, w: torch.cat([w, x], 1), 1, 1, 32), (1, 16, 32)),
    "instance_norm": ("instance_norm", lambda: nn.InstanceNorm2d(4, eps=0.01, affine=True), (1, 4, 5, 6)),
    "greater": ("greater", lambda: Function(lambda x: torch.where(x > 0.1, x, x * 2)), (1, 16, 32)),
    "greater_equal": ("greater_equal", lambda: Function(lambda x: torch.where(x >= 0.25, x, x * 2)), (1, 16, 32)),
    "less": ("less", lambda: Function(lambda x, w: torch.where(x < w, x, w), 32), (1, 16, 32)),
    "less_equal": ("less_equal", lambda: Function(lambda x: torch.where(x <= 0, x.exp(), x)), (1, 16, 32)),
    "select": ("select", lambda: Function(lambda x: torch.where(x > 0, x, -x.exp())), (1, 16, 32)),
    "pixel_unshuffle": ("pixel_unshuffle", lambda: nn.PixelUnshuffle(2), (1, 2, 6, 8)),
    "stack, side by side": ("concat", lambda: Function(lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2)), (1, 8, 4, 6)),
    "stack": ("stack", lambda: Function(lambda x: torch.stack([x, x.relu()], 1)), (1, 16, 32)),
    "split": ("split", lambda: Function(lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1)), (1, 8, 5, 6)),
    "tile": ("tile", lambda: Function(lambda x: x.expand(3, 16, 32)), (1, 16, 32)),
    "gather": ("gather", lambda: Function(lambda x: x.roll((2, 1), (2, 3))), (1, 4, 5, 6)),
    "gather by a list": ("gather", lambda: Function(lambda x: x[:, [2, 0, 2]]), (1, 4, 5, 6)),
    "reverse": ("reverse", lambda: Function(lambda x: x.flip(2)), (1, 4, 5, 6)),
    "every other": ("slice_by_index", lambda: Function(lambda x: x[:, :, ::2, 1::3]), (1, 4, 5, 6)),
    "pad by far": ("pad", lambda: nn.ZeroPad2d(20), (1, 4, 5, 6)),
    "pad by reflection": ("pad", lambda: nn.ReflectionPad2d((1, 2, 0, 1)), (1, 4, 5, 6)),
    "pad by replication": ("pad", lambda: nn.ReplicationPad2d((1, 2, 0, 1)), (1, 4, 5, 6)),
    "same padding": ("conv", lambda: nn.Conv2d(3, 4, 4, padding="same"), (1, 3, 8, 9)),
    "max_pool": ("max_pool", lambda: nn.MaxPool2d(3, 2, 1), (1, 4, 9, 12)),
    "max_pool, rounded up": ("max_pool", lambda: nn.MaxPool2d(2, 2, ceil_mode=True), (1, 4, 9, 12)),
    "avg_pool": ("avg_pool", lambda: nn.AvgPool2d(3, 2, 1), (1, 4, 9, 12)),
    "avg_pool without padding": ("avg_pool", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (1, 4, 9, 12)),
    "avg_pool, rounded up": ("avg_pool", lambda: nn.AvgPool2d(3, 2, 1, True, False), (1, 4, 8, 11)),
    "avg_pool, rounded up with padding": ("avg_pool", lambda: nn.AvgPool2d(3, 2, 1, True), (1, 4, 8, 11)),
    "avg_pool to a size": ("avg_pool", lambda: nn.AdaptiveAvgPool2d(3), (1, 4, 9, 12)),
    "upsample_nearest_neighbor": ("upsample_nearest_neighbor", lambda: nn.Upsample(scale_factor=2), (1, 4, 5, 7)),
    "upsample_bilinear": ("upsample_bilinear", lambda: nn.Upsample((10, 21), mode="bilinear"), (1, 4, 5, 7)),
    "upsample_bilinear of corners": (
        "upsample_bilinear",
        lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        (1, 4, 5, 7),
    ),
}
MAP = (1, 8, 5, 6)
for name in ("exp2", "sin", "cos", "tan", "atan", "sinh", "cosh", "sign", "floor", "ceil", "round"):
    CASES[name] = (name, functools.partial(Function, getattr(torch, name)), MAP)
CONDITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "equal": lambda x: x == x.amax(1, keepdim=True),
    "not_equal": lambda x: x != x.amax(1, keepdim=True),
    "logical_not": lambda x: ~(x > 0),
    "logical_and": lambda x: torch.logical_and(x > 0, x < 1),
    "logical_or": lambda x: torch.logical_or(x > 1, x < -1),
    "logical_xor": lambda x: torch.logical_xor(x > 0, x > 1),
}
for name, condition in CONDITIONS.items():
    CASES[name] = (name, functools.partial(Function, lambda x, condition=condition: torch.where(condition(x), x, -x)), MAP)
CASES |= {
    "reduce_min": ("reduce_min", lambda: Function(lambda x: x.amin((2, 3))), MAP),
    "reduce_log_sum_exp": ("reduce_log_sum_exp", lambda: Function(lambda x: x.logsumexp(1)), MAP),
    "reduce_argmax": ("reduce_argmax", lambda: Function(lambda x: x.argmax(1).float()), MAP),
    "mean of all": ("reduce_mean", lambda: Function(lambda x: x + x.mean().relu()), MAP),
    "cumsum": ("cumsum", lambda: Function(lambda x: x.cumsum(1)), (1, 3, 5, 6)),
    "topk": ("topk", lambda: Function(lambda x: x.topk(2, 1)[0]), MAP),
    "sorted": ("gather_along_axis", lambda: Function(lambda x: x.sort(1)[0]), MAP),
    "argsort": ("argsort", lambda: Function(lambda x: x.argsort(1).float()), MAP),
    "embedding": ("gather", lambda: Function(lambda x, w: F.embedding(x.argmax(1), w), 8, 4), MAP),
    "triu": ("band_part", lambda: Function(lambda x: x.triu(1)), MAP),
    "tril": ("band_part", lambda: Function(lambda x: x.tril(-1)), MAP),
    "floor_div": ("floor_div", lambda: Function(lambda x: torch.floor_divide(x, 0.5)), MAP),
    "a condition as a number": ("cast", lambda: Function(lambda x: x * (x > 0.5)), MAP),
    "conv_transpose": ("conv_transpose", lambda: nn.ConvTranspose2d(8, 4, 3, 2, padding=1), (1, 8, 5, 5)),
    "conv_transpose, cropped": ("crop", lambda: nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1), (1, 8, 5, 5)),
    "of one axis": ("conv", lambda: nn.Conv1d(8, 4, 3, padding=1), (1, 8, 20)),
    "of three axes": ("conv", lambda: nn.Conv3d(2, 3, 3, padding=(0, 1, 2)), (1, 2, 4, 6, 5)),
    "pooling of one axis": ("max_pool", lambda: nn.MaxPool1d(3, 2, padding=1), (1, 8, 20)),
    "average of one axis": ("avg_pool", lambda: nn.AvgPool1d(4), (1, 8, 20)),
}
# what takes several operations, each rounded in fp16, so that only the size of the result bounds the error
COMPOSED: dict[str, tuple[set[str], Callable[[], nn.Module], tuple[int, ...]]] = {
    "hard-swish": ({"thresholded_relu", "sigmoid_hard"}, nn.Hardswish, (1, 16, 32)),
    # coremltools adds 1e-4 to what it inverts
    "inverse": ({"inverse"}, lambda: Function(lambda x: 1 / (x.abs() + 1)), (1, 16, 32)),
    "log": ({"log"}, lambda: Function(lambda x: (x.abs() + 1).log()), (1, 16, 32)),
    "group norm": ({"square", "sqrt", "real_div"}, lambda: nn.GroupNorm(1, 8), (1, 8, 5, 6)),
    "channels-last norm": ({"layer_norm", "transpose"}, lambda: Function(over_channels), (1, 8, 5, 6)),
    "unit length": ({"reduce_l2_norm", "maximum", "real_div"}, lambda: Function(lambda x: F.normalize(x, dim=-1)), (1, 16, 32)),
    "gated": ({"split", "sigmoid"}, lambda: nn.GLU(1), (1, 8, 5, 6)),
    "local response norm": ({"avg_pool", "pow"}, lambda: nn.LocalResponseNorm(3), (1, 8, 5, 6)),
    "attention": ({"split", "squeeze", "matmul", "softmax"}, lambda: Function(attention), (1, 16, 96)),
    "separable attention": ({"split", "reduce_sum", "tile"}, lambda: Function(separable), (1, 17, 4, 9)),
}


def saved(make: Callable[[], nn.Module], shape: tuple[int, ...], folder: Path) -> tuple[Path, Tensor, Tensor]:
    """A module as a package, an input that fp16 holds, and what torch gives for it."""
    torch.manual_seed(0)
    module, x = half_grid(make()), torch.randn(shape).half().float()
    with torch.no_grad():
        return save(module, shape, folder / "m.mlpackage"), x, module(x)


@pytest.mark.parametrize("case", CASES)
def test_an_operation_equals_torch(case: str, tmp_path: Path) -> None:
    operation, make, shape = CASES[case]
    path, x, expected = saved(make, shape, tmp_path)
    program = MLProgram(path, "float32")
    assert operation in [kind for kind, _ in program.operations]
    torch.testing.assert_close(run(program, x), expected, rtol=1e-5, atol=2e-6)
    rounded = run(MLProgram(path, "float16"), x)
    assert torch.equal(rounded, rounded.half().float())
    torch.testing.assert_close(rounded, expected, rtol=2.0**-10, atol=2e-6)


@pytest.mark.parametrize("case", COMPOSED)
def test_operations_together_equal_torch(case: str, tmp_path: Path) -> None:
    operations, make, shape = COMPOSED[case]
    path, x, expected = saved(make, shape, tmp_path)
    program = MLProgram(path, "float32")
    assert operations <= {kind for kind, _ in program.operations}
    torch.testing.assert_close(run(program, x), expected, rtol=1e-4, atol=1e-5)
    largest = float(expected.abs().max())
    torch.testing.assert_close(run(MLProgram(path, "float16"), x), expected, rtol=0.0, atol=2.0**-9 * largest)


def test_gelu_by_tanh_equals_torch() -> None:
    """By itself, since coremltools 9.0 writes ``EXACT`` for either form of an exported program: up to 5e-4 off."""
    x = torch.randn(1000)
    assert torch.equal(mlprogram_ops.OPERATIONS["gelu"](x, "TANH_APPROXIMATION"), F.gelu(x, approximate="tanh"))
    with pytest.raises(ValueError, match="SIGMOID_APPROXIMATION"):
        mlprogram_ops.OPERATIONS["gelu"](x, "SIGMOID_APPROXIMATION")


def low_variance() -> nn.Module:
    norm = nn.BatchNorm2d(8, eps=2.0**-10)
    norm.running_mean, norm.running_var = torch.randn(8), torch.full((8,), 2.0**-12)
    return norm


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.LayerNorm(32, eps=1e-6), (1, 16, 32)),
        (low_variance, (1, 8, 5, 5)),
        (lambda: nn.GroupNorm(1, 8, eps=1e-6), (1, 8, 5, 6)),
    ],
    ids=["layer_norm", "batch_norm", "group norm"],
)
def test_a_small_epsilon_is_the_programs(make: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path) -> None:
    """In full precision, on values whose variance is as small: without it results were 41 % larger, with 1e-5 57 % smaller."""
    torch.manual_seed(0)
    module, x = half_grid(make()), 1e-3 * torch.randn(shape)
    exported = torch.export.export(module, (x,)).run_decompositions({})
    full = ct.convert(exported, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32)
    full.save(str(tmp_path / "m.mlpackage"))
    with torch.no_grad():
        torch.testing.assert_close(run(MLProgram(tmp_path / "m.mlpackage"), x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operation", ["rsqrt", "inverse", "log"])
def test_what_is_added_before_an_operation_is_added(operation: str) -> None:
    x, function = torch.tensor([0.0, 1e-6, 1.0]), {"rsqrt": torch.rsqrt, "inverse": torch.reciprocal, "log": torch.log}[operation]
    assert torch.equal(mlprogram_ops.OPERATIONS[operation](x, 1e-4), function(x + 1e-4))


def test_a_program_in_full_precision_is_not_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(32, 48), torch.randn(1, 16, 32)
    exported = torch.export.export(module, (x,)).run_decompositions({})
    full = ct.convert(exported, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32)
    full.save(str(tmp_path / "m.mlpackage"))
    for precision in ("float16", "float32"):
        program = MLProgram(tmp_path / "m.mlpackage", precision)
        torch.testing.assert_close(run(program, x), module(x).detach(), rtol=1e-5, atol=1e-6)


def test_half_precision_rounds_after_every_operation(tmp_path: Path) -> None:
    """1 + 2^-11 is halfway to fp16's next number: rounded at once it is gone, kept in float32 it is not."""
    module = Function(lambda x: ((x + 2.0**-11).relu() - 1.0) * 2048.0)
    path = save(module, (1, 4), tmp_path / "m.mlpackage")
    x = torch.ones(1, 4)
    assert run(MLProgram(path, "float16"), x).tolist() == [[0.0] * 4]
    assert run(MLProgram(path, "float32"), x).tolist() == [[1.0] * 4]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Function(lambda x: x.cumprod(1)), r"scatter -> \S+: the operation is unknown"),
        (nn.ConvTranspose1d(4, 4, 3), "rank 3"),
    ],
    ids=["scatter", "transposed conv1d"],
)
def test_what_torch_has_and_we_do_not_is_refused(module: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        MLProgram(save(module, (1, 4, 8), tmp_path / "m.mlpackage"))


@pytest.mark.parametrize("spread", [0.5, 2.0])  # within the map, and far beyond it
def test_sampling_equals_torch(spread: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    places = (spread * torch.randn(1, 5, 7, 2)).clamp(-4, 4)
    module = half_grid(Function(lambda x, places: nn.functional.grid_sample(x, places, align_corners=False), 1, 5, 7, 2))
    assert module.parameter is not None
    module.parameter.data = places.half().float()
    x = torch.randn(1, 3, 6, 8).half().float()
    path = save(module, (1, 3, 6, 8), tmp_path / "m.mlpackage")
    with torch.no_grad():
        torch.testing.assert_close(run(MLProgram(path, "float32"), x), module(x), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", [dict(mode="nearest"), dict(padding_mode="border"), dict(align_corners=True)])
def test_another_kind_of_sampling_is_refused(kind: dict[str, Any], tmp_path: Path) -> None:
    kind = {"align_corners": False, **kind}
    module = Function(lambda x, places: nn.functional.grid_sample(x, places, **kind), 1, 5, 7, 2)
    with pytest.raises(UserError, match=r"resample -> \S+: .* is unknown"):
        MLProgram(save(module, (1, 3, 6, 8), tmp_path / "m.mlpackage"))
