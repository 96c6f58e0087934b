"""The augmentation of :mod:`lavit_edge.data.augment` for whole batches, as tensor code on any device.

Each picture gets its own box and its own operations; they are drawn in the host's memory, so that nothing here makes a GPU wait
for its host or the other way round. Why not kornia (0.9.0): its RandAugment picks operations and one magnitude for a whole batch
and draws them from torch's global generator, its pictures are floats, and its crops are not antialiased. Six of the thirteen
operations are look-up tables and five are one affine sampling, so that exact ones are shorter than driving it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lavit_edge.data.augment import FILL, OPERATIONS

BLENDED = ("color", "contrast", "sharpness")
TABLED = ("posterize", "solarize", "brightness")
MOVED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def crop_batch(pixels: Tensor, boxes: np.ndarray, flips: np.ndarray, size: int) -> Tensor:
    """Each picture's box, resized with PIL's antialiased bilinear filter, mirrored where asked.

    The filter is linear and separable: a matrix of weights per picture and axis, and two batched products. With its pixels on
    fixed places and antialiasing it is what ``Image.resize(box=...)`` computes, which ``grid_sample`` is not.

    Args:
        pixels: uint8 RGB ``(B, H, W, 3)``.
        boxes: ``(B, 4)`` of left, top, right, bottom, as fractions of width and height.
        flips: ``(B,)`` booleans.

    Returns:
        uint8 ``(B, 3, size, size)``.
    """
    count, height, width, _ = pixels.shape
    left, top, right, bottom = to_device(boxes.T.astype(np.float32), pixels.device)
    # mirrored: the weights of the output's columns in the other order, from right to left
    mirrored = to_device(flips.astype(bool), pixels.device)
    first, last = torch.where(mirrored, right, left), torch.where(mirrored, left, right)
    across, down = _weights(first * width, last * width, width, size), _weights(top * height, bottom * height, height, size)
    rows = (down @ pixels.float().reshape(count, height, width * 3)).view(count, size, width, 3)
    planes = rows.permute(0, 3, 1, 2).reshape(count, 3 * size, width) @ across.transpose(1, 2)
    return planes.add_(0.5).to(torch.uint8).view(count, 3, size, size)  # a mean of pixels: in range


def _weights(first: Tensor, last: Tensor, length: int, size: int) -> Tensor:
    """Triangle filter ``(B, size, length)`` from ``length`` pixels to ``size`` in ``[first, last]``; as wide as a step, so that
    shrinking averages, and at least a pixel."""
    step = (last - first) / size
    places = torch.arange(max(length, size), device=first.device) + 0.5
    centres = first[:, None] + places[:size] * step[:, None]
    weights = (1 - (places[:length] - centres[:, :, None]).abs() / step.abs().clamp(min=1)[:, None, None]).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def rand_augment_batch(planes: Tensor, operations: np.ndarray, magnitudes: np.ndarray) -> Tensor:
    """Each picture's distortions one after the other, in place.

    Args:
        planes: uint8 ``(B, 3, S, S)``.
        operations, magnitudes: ``(B, R)``, as of :func:`lavit_edge.data.augment.draw_operations`.
    """
    for numbers, m in zip(operations.T, magnitudes.T, strict=True):
        names = np.array(OPERATIONS)[numbers.astype(int)]
        for group in (("autocontrast",), ("equalize",), TABLED, MOVED, *((name,) for name in BLENDED)):
            chosen = np.flatnonzero(np.isin(names, group))
            if len(chosen):  # known on the host, which does not have to ask the device
                index = to_device(chosen, planes.device)
                planes.index_copy_(0, index, _distort(planes[index], names[chosen], m[chosen]))
    return planes


def _distort(x: Tensor, names: np.ndarray, m: np.ndarray) -> Tensor:
    """Pictures of one group."""
    if names[0] == "autocontrast":
        return _look_up(x, _autocontrast(x))
    if names[0] == "equalize":
        return _look_up(x, _equalize(x))
    if names[0] in TABLED:
        tables = np.stack([_table(name, value) for name, value in zip(names, m, strict=True)])
        return _look_up(x, to_device(tables, x.device)[:, None].expand(-1, 3, -1))
    if names[0] in MOVED:
        matrices = np.stack([_matrix(name, value, x.shape[-1]) for name, value in zip(names, m, strict=True)])
        return _move(x, to_device(matrices, x.device))
    other = {"color": _grey, "contrast": _mean_grey, "sharpness": _smooth}[names[0]](x)
    factor = to_device((1 + 0.9 * m).astype(np.float32), x.device)[:, None, None, None]
    return _to_uint8(other + factor * (x - other))


def _look_up(x: Tensor, tables: Tensor) -> Tensor:
    """``tables[b, c, x[b, c, ...]]``; uint8 ``(B, 3, 256)``."""
    return tables.gather(2, x.flatten(2).long()).view(x.shape)


def _table(name: str, m: float) -> np.ndarray:
    levels = np.arange(256)
    if name == "posterize":
        return (levels & -(2 ** round(abs(m) * 4))).astype(np.uint8)
    if name == "solarize":
        return np.where(levels < 256 - round(abs(m) * 128), levels, 255 - levels).astype(np.uint8)
    return np.clip(np.float32(1 + 0.9 * m) * levels.astype(np.float32), 0, 255).astype(np.uint8)  # brightness


def _autocontrast(x: Tensor) -> Tensor:
    low, high = (value.double()[..., None] for value in x.flatten(2).aminmax(dim=2))
    levels = torch.arange(256, device=x.device, dtype=torch.float64)
    scale = torch.full_like(low, 255) / (high - low)  # 255 / tensor would be 255 times the rounded reciprocal
    return torch.where(high > low, (levels * scale - low * scale).clamp(0, 255), levels).to(torch.uint8)


def _equalize(x: Tensor) -> Tensor:
    values = x.flatten(2).long()
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.long, device=x.device)
    counts.scatter_add_(2, values, torch.ones_like(values))  # integers: the order of the sum does not matter
    step = (values.shape[2] - counts.gather(2, values.amax(2, keepdim=True))) // 255
    before = step // 2 + counts.cumsum(2) - counts
    tables = (before // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, tables, torch.arange(256, device=x.device)).to(torch.uint8)


def _grey(x: Tensor) -> Tensor:
    """ITU-R 601-2 luma in PIL's fixed point, float ``(B, 1, S, S)``."""
    red, green, blue = x.int().split(1, dim=1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).float()


def _mean_grey(x: Tensor) -> Tensor:
    return (_grey(x).double().mean((1, 2, 3), keepdim=True) + 0.5).floor().float()


def _smooth(x: Tensor) -> Tensor:
    """3 x 3 mean in which the middle counts five times; the border stays."""
    out = x.float()
    rows = out[..., :-2] + out[..., 1:-1] + out[..., 2:]  # not a convolution by channel, which a CPU takes ten times as long for
    sums = rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]
    out[..., 1:-1, 1:-1] = (sums.add_(4 * out[..., 1:-1, 1:-1]).add_(6.5) / 13).floor_()
    return out


def _matrix(name: str, m: float, side: int) -> np.ndarray:
    """``(2, 3)`` from places in the output to places in the input, in pixels."""
    if name == "rotate":
        angle = -math.radians(30 * m)
        linear, middle = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]), np.full(2, side / 2)
        return np.column_stack([linear, middle - linear @ middle])
    shear, shift = 0.3 * m, 0.3 * m * side
    rows: dict[str, Any] = {
        "shear_x": [[1, shear, -0.15 * m * side], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [shear, 1, -0.15 * m * side]],
        "translate_x": [[1, 0, shift], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, shift]],
    }
    return np.array(rows[name])


def _move(x: Tensor, matrices: Tensor) -> Tensor:
    """Bilinear samples at ``matrices @ (x, y, 1)`` of each pixel's middle; what lies outside is filled."""
    side = x.shape[-1]
    middles = torch.arange(side, dtype=torch.float64, device=x.device) + 0.5  # double, as PIL's, decides what is outside
    across, down = (
        (row[:, 0, None, None] * middles + row[:, 1, None, None] * middles[:, None] + row[:, 2, None, None])
        for row in matrices.unbind(1)
    )
    outside = (across < 0) | (across >= side) | (down < 0) | (down >= side)
    grid = (torch.stack([across, down], 3) * (2 / side) - 1).float()
    sampled = F.grid_sample(x.float(), grid, "bilinear", "border", align_corners=False)
    fill = to_device(np.array(FILL, np.float32), x.device).view(1, 3, 1, 1)
    # PIL cuts off decimals, of sums in double precision: single precision must not fall short of a whole number
    return _to_uint8(torch.where(outside[:, None], fill, sampled.add_(1e-3)))


def erase_batch(planes: Tensor, holes: np.ndarray) -> Tensor:
    """Fills each picture's hole with noise from torch's global generator, in place.

    Args:
        planes: uint8 ``(B, 3, S, S)``.
        holes: ``(B, 4)`` of top, left, height, width; a height of 0 is no hole.
    """
    chosen = np.flatnonzero(holes[:, 2])
    if len(chosen):
        index = to_device(chosen, planes.device)
        top, left, height, width = to_device(holes[chosen].T.astype(np.int64), planes.device)[..., None, None, None]
        x = torch.arange(planes.shape[-1], device=planes.device)
        y = x[:, None]
        hole = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        whole = planes[index]
        noise = torch.randint(0, 256, whole.shape, dtype=torch.uint8, device=planes.device)
        planes.index_copy_(0, index, torch.where(hole, noise, whole))
    return planes


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A small array on the device; through pinned memory, from which the host need not wait for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _to_uint8(x: Tensor) -> Tensor:
    return x.clamp_(0, 255).to(torch.uint8)
