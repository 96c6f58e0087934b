"""The operations of Core ML's ML programs that coremltools makes of image classifiers, in torch, for
:mod:`lavit_edge.artifact.mlprogram`: quantised tensors, products and norms here, all others in the two modules beside this.

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

from lavit_edge.artifact import mlprogram_pointwise, mlprogram_shapes

CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
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
    if x.ndim not in CONVOLUTIONS:
        raise ValueError(f"an input of rank {x.ndim} is unknown")
    if pad_type == "custom":
        if (
            not 0
            <= min(pad)
            <= max(pad)
            <= max(apart * (side - 1) for side, apart in zip(weight.shape[2:], dilations, strict=True))
        ):
            raise ValueError(f"pad {pad} beyond the kernel is unknown")
        x = F.pad(x, mlprogram_shapes.last_first(pad))
    elif pad_type not in ("valid", "same"):
        raise ValueError(f"pad_type {pad_type!r} is unknown")
    return CONVOLUTIONS[x.ndim](x, weight, bias, strides, "same" if pad_type == "same" else "valid", dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    output_shape: list[int],
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    """``pad``: rows and columns taken off the result, alike on both sides, before it is made as long as ``output_shape``."""
    sides = [0, 0, 0, 0] if pad_type == "valid" else pad
    if x.ndim != 4 or pad_type not in ("valid", "custom") or sides[::2] != sides[1::2]:
        raise ValueError(f"rank {x.ndim}, pad_type {pad_type!r}, or pad {pad}, is unknown")
    axes = zip(output_shape[2:], x.shape[2:], weight.shape[2:], strides, dilations, sides[::2], strict=True)
    more = [wanted - ((size - 1) * by + apart * (kernel - 1) + 1 - 2 * off) for wanted, size, kernel, by, apart, off in axes]
    return F.conv_transpose2d(x, weight, bias, strides, sides[::2], more, groups, dilations)


def matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def batch_norm(x: Tensor, mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def layer_norm(x: Tensor, axes: list[int], epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    if sorted(axis % x.ndim for axis in axes) != list(range(x.ndim - len(axes), x.ndim)):
        raise ValueError(f"axes {axes} are unknown: only the last ones are known")
    return F.layer_norm(x, x.shape[-len(axes) :], gamma, beta, epsilon)


def instance_norm(x: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def softmax(x: Tensor, axis: int) -> Tensor:
    return x.softmax(axis)


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
        conv_transpose,
        matmul,
        batch_norm,
        layer_norm,
        instance_norm,
        softmax,
        classify,
        *mlprogram_pointwise.OPERATIONS,
        *mlprogram_shapes.OPERATIONS,
    )
}
