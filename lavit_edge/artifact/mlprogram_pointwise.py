"""Operations of ML programs that take numbers one by one, and sums and means along axes.

In torch, for :mod:`lavit_edge.artifact.mlprogram`; what holds for all operations is written in
:mod:`lavit_edge.artifact.mlprogram_ops`. A parameter of an activation is a number: one for each channel is unknown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def add(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x + y


def sub(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x - y


def mul(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x * y


def real_div(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x / y


def maximum(x: Tensor, y: Tensor | float) -> Tensor:
    return x.clamp(min=y)


def minimum(x: Tensor, y: Tensor | float) -> Tensor:
    return x.clamp(max=y)


def pow(x: Tensor | float, y: Tensor | float) -> Tensor | float:
    return x**y


def reduce_mean(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return x.mean(axes, keep_dims)


def reduce_sum(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return x.sum(axes, keep_dims)


def reduce_max(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return x.amax(axes, keep_dims)


def reduce_l2_norm(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return torch.linalg.vector_norm(x, dim=axes, keepdim=keep_dims)


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
    add,
    sub,
    mul,
    real_div,
    maximum,
    minimum,
    pow,
    reduce_mean,
    reduce_sum,
    reduce_max,
    reduce_l2_norm,
    greater,
    greater_equal,
    less,
    less_equal,
    select,
)
