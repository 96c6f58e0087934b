"""The operations of Core ML's ML programs that our exports contain, in torch, for :mod:`lavit_edge.artifact.mlprogram`.

One function per operation, named as in MIL, and its parameters are the operation's inputs: what a function does not take is
unknown and refused. Floating values arrive and leave as float32; rounding to fp16 is the evaluator's business, so every
operation accumulates in float32. Semantics: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
(opset of iOS 17). A value that a function does not know raises :class:`ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

INTEGERS = {"int8": torch.int8, "uint8": torch.uint8}


def const(val: Any) -> Any:
    return val


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor | int, scale: Tensor | float, axis: int) -> Tensor:
    return dequantize(quantized_data, scale, zero_point, axis)


def quantize(
    input: Tensor, scale: Tensor | float, output_dtype: str, zero_point: Tensor | int = 0, axis: int | None = None
) -> Tensor:
    """``clip(round(input / scale) + zero_point)``, ties to even."""
    if output_dtype not in INTEGERS:
        raise ValueError(f"output_dtype {output_dtype!r} is unknown")
    limits = torch.iinfo(INTEGERS[output_dtype])
    levels = torch.round(input / _along(axis, scale, input)) + _along(axis, zero_point, input)
    return levels.clamp(limits.min, limits.max).to(INTEGERS[output_dtype])


def dequantize(input: Tensor, scale: Tensor | float, zero_point: Tensor | int = 0, axis: int | None = None) -> Tensor:
    """``scale * (input - zero_point)``."""
    if input.dtype not in INTEGERS.values():
        raise ValueError(f"input of {input.dtype} is unknown")
    return (input.float() - _along(axis, zero_point, input)) * _along(axis, scale, input)


def _along(axis: int | None, value: Tensor | float, data: Tensor) -> Tensor | float:
    """A vector of quantisation parameters, shaped to broadcast along ``axis`` of ``data``; a scalar as it is."""
    if not isinstance(value, Tensor):
        return value
    if axis is None:
        raise ValueError("a vector scale or zero_point needs an axis")
    shape = [1] * data.ndim
    shape[axis] = -1
    return value.float().reshape(shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def conv(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    if x.ndim != 4:
        raise ValueError(f"an input of rank {x.ndim} is unknown")
    if pad_type == "custom":
        top, bottom, left, right = pad
        if not 0 <= min(pad) <= max(pad) < max(weight.shape[2:]):
            raise ValueError(f"pad {pad} beyond the kernel is unknown")
        x = F.pad(x, (left, right, top, bottom))
    elif pad_type != "valid":
        raise ValueError(f"pad_type {pad_type!r} is unknown")
    return F.conv2d(x, weight, bias, strides, 0, dilations, groups)


def matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def batch_norm(x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def layer_norm(x: Tensor, axes: list[int], gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    if sorted(axis % x.ndim for axis in axes) != list(range(x.ndim - len(axes), x.ndim)):
        raise ValueError(f"axes {axes} are unknown: only the last ones are known")
    return F.layer_norm(x, x.shape[-len(axes) :], gamma, beta, epsilon)


def softmax(x: Tensor, axis: int) -> Tensor:
    return x.softmax(axis)


def gelu(x: Tensor, mode: str) -> Tensor:
    if mode != "EXACT":
        raise ValueError(f"mode {mode!r} is unknown")
    return F.gelu(x)


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def add(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x + y


def sub(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x - y


def mul(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x * y


def reduce_mean(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return x.mean(axes, keep_dims)


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    if 0 in shape:
        raise ValueError(f"shape {shape} is unknown: a 0 means the input's own size")
    return x.reshape(shape)


def transpose(x: Tensor, perm: list[int]) -> Tensor:
    return x.permute(perm)


def pad(x: Tensor, pad: list[int], mode: str, constant_val: float) -> Tensor:
    """``pad``: before and after each axis, from the first on."""
    if (
        mode != "constant"
        or len(pad) != 2 * x.ndim
        or min(pad) < 0
        or any(sum(pad[i : i + 2]) > 8 for i in range(0, len(pad), 2))
    ):
        raise ValueError(f"mode {mode!r}, or pad {pad}, is unknown: by a constant, up to 8 a side of every axis, is known")
    last_first = [number for axis in range(x.ndim - 1, -1, -1) for number in pad[2 * axis : 2 * axis + 2]]
    return F.pad(x, last_first, value=constant_val)


def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """``x[begin:end]`` along each axis; from the start, to the end, or one entry without its axis, where a mask says so."""
    if stride is not None and set(stride) != {1}:
        raise ValueError(f"stride {stride} is unknown")
    no = [False] * x.ndim
    axes = zip(begin, end, begin_mask or no, end_mask or no, squeeze_mask or no, strict=True)
    return x[
        tuple(a if alone else slice(None if from_start else a, None if to_end else b) for a, b, from_start, to_end, alone in axes)
    ]


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """The one kind that torch's ``grid_sample`` becomes: bilinear, zero outside, the map from -1 to 1 and its pixels' edges."""
    kind = (sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)
    if kind != ("bilinear", "constant", 0.0, "normalized_minus_one_to_one", False):
        raise ValueError(f"{kind} is unknown")
    return F.grid_sample(x, coordinates, align_corners=False)


def cast(x: Tensor, dtype: str) -> Tensor:
    """Between the floating types alone: the declared type of the output says whether it is rounded."""
    if dtype not in ("fp16", "fp32") or not x.is_floating_point():
        raise ValueError(f"dtype {dtype!r} of {x.dtype} is unknown")
    return x


def classify(probabilities: Tensor, classes: list[str]) -> tuple[str, dict[str, float]]:
    """The most probable class, and every class with its probability."""
    flat = probabilities.flatten().tolist()
    if len(flat) != len(classes) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{len(flat)} probabilities for {len(classes)} classes, which must be strings")
    return classes[max(range(len(flat)), key=flat.__getitem__)], dict(zip(classes, flat, strict=True))


OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        const,
        constexpr_affine_dequantize,
        quantize,
        dequantize,
        linear,
        conv,
        matmul,
        batch_norm,
        layer_norm,
        softmax,
        gelu,
        relu,
        add,
        sub,
        mul,
        reduce_mean,
        reshape,
        transpose,
        pad,
        slice_by_index,
        pixel_shuffle,
        resample,
        cast,
        classify,
    )
}
