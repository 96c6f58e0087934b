"""Operations of ML programs that move numbers, and those that go over a map with a window or a grid.

In torch, for :mod:`lavit_edge.artifact.mlprogram`; what holds for all operations is written in
:mod:`lavit_edge.artifact.mlprogram_ops`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lavit_edge.artifact.mlprogram_pointwise import cast


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    if 0 in shape:
        raise ValueError(f"shape {shape} is unknown: a 0 means the input's own size")
    return x.reshape(shape)


def transpose(x: Tensor, perm: list[int]) -> Tensor:
    return x.permute(perm)


def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """Axes of length 1 where ``axes`` say, counted in the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: list[int]) -> Tensor:
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {axes} of {tuple(x.shape)} are not all of length 1")
    return x.squeeze(axes)


def concat(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    if interleave:  # the first slice of each, then the second
        axis %= values[0].ndim
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


def stack(values: list[Tensor], axis: int) -> Tensor:
    return torch.stack(values, axis)


def split(x: Tensor, axis: int, split_sizes: list[int] | None = None, num_splits: int | None = None) -> tuple[Tensor, ...]:
    """Into parts of those sizes, or into so many of one size."""
    if split_sizes is None:
        split_sizes = [x.shape[axis] // num_splits] * num_splits if num_splits else []
    return x.split(split_sizes, axis)


def tile(x: Tensor, reps: list[int]) -> Tensor:
    return x.repeat(reps)


def pad(x: Tensor, pad: list[int], mode: str, constant_val: float = 0.0) -> Tensor:
    """``pad``: before and after each axis, from the first on, or of as many last axes as it names."""
    if mode not in ("constant", "reflect", "replicate") or len(pad) % 2 or len(pad) > 2 * x.ndim or min(pad) < 0:
        raise ValueError(f"mode {mode!r}, or pad {pad}, is unknown")
    sides = last_first(pad)
    if mode == "constant":
        return F.pad(x, sides, value=constant_val)
    if any(sides[4:]):
        raise ValueError(f"pad {pad} with mode {mode!r} is unknown: of the last two axes alone it is known")
    return F.pad(x, sides[:4], mode)


def last_first(pad: list[int]) -> list[int]:
    """Padding before and after each axis as torch takes it, the last axis first."""
    return [side for i in range(len(pad) - 2, -1, -2) for side in pad[i : i + 2]]


def slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """``x[begin:end:stride]`` along each axis; from the start, to the end, or one entry without its axis, by a mask."""
    if stride is not None and min(stride) < 1:
        raise ValueError(f"stride {stride} is unknown")
    no = [False] * x.ndim
    axes = zip(begin, end, stride or [1] * x.ndim, begin_mask or no, end_mask or no, squeeze_mask or no, strict=True)
    return x[tuple(a if alone else slice(None if first else a, None if last else b, by) for a, b, by, first, last, alone in axes)]


def gather(x: Tensor, indices: Tensor | list[int], axis: int, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Entries of one axis by their numbers: what ``roll``, an index that is a list, and an embedding become."""
    stored = indices if isinstance(indices, list) else []
    if batch_dims or not all(isinstance(index, int) and 0 <= index < x.shape[axis] for index in stored):
        raise ValueError("indices of several axes, or beyond the axis, are unknown")
    numbers = torch.as_tensor(indices, device=x.device).long()
    return x.index_select(axis, numbers.flatten()).unflatten(axis, numbers.shape)


def gather_along_axis(x: Tensor, indices: Tensor | list, axis: int, validate_indices: bool = False) -> Tensor:
    return torch.gather(x, axis, torch.as_tensor(indices).long())


def argsort(x: Tensor, axis: int, ascending: bool) -> Tensor:
    return cast(x.argsort(dim=axis, descending=not ascending, stable=True), "int32")


def topk(
    x: Tensor, k: int, axis: int, ascending: bool, sort: bool, return_indices: bool = True, output_indices_dtype: str = "int32"
) -> tuple[Tensor, ...]:
    found = x.topk(k, axis, largest=not ascending, sorted=sort)
    return (found.values, cast(found.indices, output_indices_dtype)) if return_indices else (found.values,)


def band_part(x: Tensor, lower: int, upper: int) -> Tensor:
    """Zero beyond so many diagonals below and above the main one; -1: none is."""
    below = x if lower < 0 else x.triu(-lower)
    return below if upper < 0 else below.tril(upper)


def crop(x: Tensor, crop_height: list[int], crop_width: list[int]) -> Tensor:
    """Without so many first and last rows and columns."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def reverse(x: Tensor, axes: list[int]) -> Tensor:
    return x.flip(axes)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


def max_pool(x: Tensor, kernel_sizes: list[int], strides: list[int], pad_type: str, pad: list[int], ceil_mode: bool) -> Tensor:
    pool = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[_ranked(x)]
    return pool(x, kernel_sizes, strides, _both_sides(pad_type, pad), ceil_mode=ceil_mode)


def avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int],
    pad_type: str,
    pad: list[int],
    exclude_padding_from_average: bool,
    ceil_mode: bool,
) -> Tensor:
    pool = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}[_ranked(x)]
    return pool(x, kernel_sizes, strides, _both_sides(pad_type, pad), ceil_mode, not exclude_padding_from_average)


def _ranked(x: Tensor) -> int:
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"an input of rank {x.ndim} is unknown")
    return x.ndim


def _both_sides(pad_type: str, pad: list[int]) -> list[int] | int:
    """Padding of a pooling along its axes, which torch knows alike on both sides alone."""
    if pad_type == "valid":
        return 0
    if pad_type != "custom" or pad[::2] != pad[1::2]:
        raise ValueError(f"pad_type {pad_type!r} with pad {pad} is unknown")
    return pad[::2]


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float, scale_factor_width: float) -> Tensor:
    if not (float(scale_factor_height).is_integer() and float(scale_factor_width).is_integer()):
        raise ValueError(f"scale factors {scale_factor_height} and {scale_factor_width}, not whole, are unknown")
    return F.interpolate(x, _scaled(x, scale_factor_height, scale_factor_width))


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """``half_pixel_centers`` is, and must be, the opposite of ``align_corners``. torch's ``recompute_scale_factor``."""
    if half_pixel_centers == align_corners:
        raise ValueError("align_corners that equals half_pixel_centers is unknown")
    size = _scaled(x, scale_factor_height, scale_factor_width)
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def _scaled(x: Tensor, height: float, width: float) -> list[int]:
    return [int(side * factor) for side, factor in zip(x.shape[-2:], (height, width), strict=True)]


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


OPERATIONS = (
    reshape,
    transpose,
    expand_dims,
    squeeze,
    concat,
    stack,
    split,
    tile,
    pad,
    slice_by_index,
    gather,
    gather_along_axis,
    argsort,
    topk,
    band_part,
    crop,
    reverse,
    pixel_shuffle,
    pixel_unshuffle,
    max_pool,
    avg_pool,
    upsample_nearest_neighbor,
    upsample_bilinear,
    resample,
)
