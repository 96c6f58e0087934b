"""Operations of ML programs that take numbers one by one, and sums and means along axes.

In torch, for :mod:`lavit_edge.artifact.mlprogram`; what holds for all operations is written in
:mod:`lavit_edge.artifact.mlprogram_ops`. A parameter of an activation is a number: one for each channel is unknown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE = {"int32": torch.int32, "int16": torch.int16, "uint16": torch.uint16}  # types of indices


def relu(x: Tensor) -> Tensor:
    return F.relu(x)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """From ``alpha`` to ``beta``: what ReLU6 becomes."""
    return x.clamp(alpha, beta)


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """0 below ``alpha``. coremltools writes hard-swish as ``thresholded_relu(x, -3) * sigmoid_hard(x)``."""
    return torch.where(x >= alpha, x, 0.0)


def elu(x: Tensor, alpha: float) -> Tensor:
    return F.elu(x, alpha)


def gelu(x: Tensor, mode: str) -> Tensor:
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise ValueError(f"mode {mode!r} is unknown")
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def silu(x: Tensor) -> Tensor:
    return F.silu(x)


def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """``alpha x + beta``, kept between 0 and 1."""
    return (alpha * x + beta).clamp(0.0, 1.0)


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def tanh(x: Tensor) -> Tensor:
    return x.tanh()


def exp(x: Tensor) -> Tensor:
    return x.exp()


def abs(x: Tensor) -> Tensor:
    return x.abs()


def square(x: Tensor) -> Tensor:
    return x.square()


def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


def rsqrt(x: Tensor, epsilon: float) -> Tensor:
    return (x + epsilon).rsqrt()


def inverse(x: Tensor, epsilon: float) -> Tensor:
    return 1 / (x + epsilon)


def log(x: Tensor, epsilon: float) -> Tensor:
    return (x + epsilon).log()


def erf(x: Tensor) -> Tensor:
    return x.erf()


def exp2(x: Tensor) -> Tensor:
    return x.exp2()


def sin(x: Tensor) -> Tensor:
    return x.sin()


def cos(x: Tensor) -> Tensor:
    return x.cos()


def tan(x: Tensor) -> Tensor:
    return x.tan()


def atan(x: Tensor) -> Tensor:
    return x.atan()


def sinh(x: Tensor) -> Tensor:
    return x.sinh()


def cosh(x: Tensor) -> Tensor:
    return x.cosh()


def sign(x: Tensor) -> Tensor:
    return x.sign()


def floor(x: Tensor) -> Tensor:
    return x.floor()


def ceil(x: Tensor) -> Tensor:
    return x.ceil()


def round(x: Tensor) -> Tensor:
    """Ties to even."""
    return x.round()


def identity(x: Tensor) -> Tensor:
    return x


def add(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x + y


def sub(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x - y


def mul(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x * y


def real_div(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x / y


def floor_div(x: Tensor, y: Tensor | float) -> Tensor:
    return torch.floor_divide(x, y)


def maximum(x: Tensor, y: Tensor | float) -> Tensor:
    return x.clamp(min=y)


def minimum(x: Tensor, y: Tensor | float) -> Tensor:
    return x.clamp(max=y)


def pow(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x**y


def reduce_mean(x: Tensor, keep_dims: bool, axes: list[int] | None = None) -> Tensor:
    return x.mean(axes, keep_dims)


def reduce_sum(x: Tensor, keep_dims: bool, axes: list[int] | None = None) -> Tensor:
    return x.sum(axes, keep_dims)


def reduce_max(x: Tensor, keep_dims: bool, axes: list[int] | None = None) -> Tensor:
    return x.amax(axes or (), keep_dims)


def reduce_min(x: Tensor, keep_dims: bool, axes: list[int] | None = None) -> Tensor:
    return x.amin(axes or (), keep_dims)


def reduce_l2_norm(x: Tensor, keep_dims: bool, axes: list[int] | None = None) -> Tensor:
    return torch.linalg.vector_norm(x, dim=axes, keepdim=keep_dims)


def reduce_log_sum_exp(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return x.logsumexp(axes, keep_dims)


def reduce_argmax(x: Tensor, axis: int, keep_dims: bool, output_dtype: str = "int32") -> Tensor:
    return cast(x.argmax(axis, keep_dims), output_dtype)


def cumsum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    if exclusive or reverse:
        raise ValueError("a sum that is exclusive or runs backwards is unknown")
    return x.cumsum(axis)


def cast(x: Tensor, dtype: str) -> Tensor:
    """To a floating type, which the declared type of the output rounds to; whole numbers to others."""
    if dtype in ("fp16", "fp32"):
        return x.float()
    if dtype not in WHOLE or x.is_floating_point():
        raise ValueError(f"dtype {dtype!r} of {x.dtype} is unknown")
    return x.to(WHOLE[dtype])


def equal(x: Tensor, y: Tensor | float) -> Tensor:
    return x == y


def not_equal(x: Tensor, y: Tensor | float) -> Tensor:
    return x != y


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    return x & y


def logical_or(x: Tensor, y: Tensor) -> Tensor:
    return x | y


def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    return x ^ y


def logical_not(x: Tensor) -> Tensor:
    return ~x


def greater(x: Tensor, y: Tensor | float) -> Tensor:
    return x > y


def greater_equal(x: Tensor, y: Tensor | float) -> Tensor:
    return x >= y


def less(x: Tensor, y: Tensor | float) -> Tensor:
    return x < y


def less_equal(x: Tensor, y: Tensor | float) -> Tensor:
    return x <= y


def select(cond: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    return torch.where(cond, a, b)


OPERATIONS = (
    relu,
    clip,
    leaky_relu,
    thresholded_relu,
    elu,
    gelu,
    silu,
    sigmoid,
    sigmoid_hard,
    softplus,
    tanh,
    exp,
    abs,
    square,
    sqrt,
    rsqrt,
    inverse,
    log,
    erf,
    exp2,
    sin,
    cos,
    tan,
    atan,
    sinh,
    cosh,
    sign,
    floor,
    ceil,
    round,
    identity,
    add,
    sub,
    mul,
    real_div,
    floor_div,
    maximum,
    minimum,
    pow,
    reduce_mean,
    reduce_sum,
    reduce_max,
    reduce_min,
    reduce_l2_norm,
    reduce_log_sum_exp,
    reduce_argmax,
    cumsum,
    cast,
    equal,
    not_equal,
    logical_and,
    logical_or,
    logical_xor,
    logical_not,
    greater,
    greater_equal,
    less,
    less_equal,
    select,
)
