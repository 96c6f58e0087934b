"""Camera frames to upright RGB pictures. The reference that every app's own conversion is tested against (tests/golden/).

Android's cameras give YUV_420_888 (three planes with strides) or NV21, iPhones and browsers BGRA or RGBA, all of them turned as
the sensor is built in. What follows is the input contract's (:mod:`lavit_edge.contract.pictures`). No torch import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lavit_edge.errors import UserError

Format = Literal["yuv_420_888", "nv21", "bgra", "rgba"]
PLANES: dict[str, int] = {"yuv_420_888": 3, "nv21": 2, "bgra": 1, "rgba": 1}


@dataclass(frozen=True)
class Plane:
    """
    Attributes:
        data: bytes; the last row may end behind its last pixel.
        row_stride, pixel_stride: bytes from a row to the next, and from a pixel to the next.
    """

    data: bytes
    row_stride: int
    pixel_stride: int


@dataclass(frozen=True)
class Frame:
    """
    Attributes:
        format: ``yuv_420_888``: planes Y, U, V. ``nv21``: Y, then V and U in turns. ``bgra``, ``rgba``: one plane.
        width, height: in pixels, as the sensor gives them; odd ones are allowed, chroma planes then have ``(side + 1) // 2``.
        rotation: by how many degrees the frame must be turned clockwise to stand upright: 0, 90, 180 or 270.
        mirrored: whether the upright picture is flipped left to right, as front cameras show it.
    """

    format: Format
    width: int
    height: int
    planes: Sequence[Plane]
    rotation: int = 0
    mirrored: bool = False


def to_rgb(frame: Frame) -> NDArray[np.uint8]:
    """The upright picture, uint8 RGB ``(height, width, 3)``.

    YUV is JFIF's: ITU-R BT.601 coefficients, full range, in fixed point of 16 bits, each chroma sample for its 2 x 2 pixels.
    Alpha is ignored, since cameras give opaque pixels.

    Raises:
        UserError: unknown format or rotation, a wrong number of planes, or a plane too short for its strides.
    """
    if frame.format not in PLANES:
        raise UserError(f"frame: unknown format {frame.format!r}; there are {', '.join(PLANES)}")
    if len(frame.planes) != PLANES[frame.format]:
        raise UserError(f"frame: {frame.format} has {PLANES[frame.format]} planes, not {len(frame.planes)}")
    if frame.rotation not in (0, 90, 180, 270):
        raise UserError(f"frame: rotation must be 0, 90, 180 or 270 degrees, not {frame.rotation}")
    if frame.width < 1 or frame.height < 1:
        raise UserError(f"frame: {frame.width} x {frame.height} pixels are none")
    if frame.format in ("bgra", "rgba"):
        order = (2, 1, 0) if frame.format == "bgra" else (0, 1, 2)
        channels = [_pixels(frame.planes[0], frame.width, frame.height, offset) for offset in order]
        picture = np.stack(channels, -1)
    else:
        half = ((frame.width + 1) // 2, (frame.height + 1) // 2)
        y = _pixels(frame.planes[0], frame.width, frame.height)
        if frame.format == "nv21":
            v, u = (_pixels(frame.planes[1], *half, offset) for offset in (0, 1))
        else:
            u, v = (_pixels(plane, *half) for plane in frame.planes[1:])
        picture = _yuv_to_rgb(y, u, v)
    picture = np.rot90(picture, -frame.rotation // 90)
    return np.ascontiguousarray(picture[:, ::-1] if frame.mirrored else picture)


def _yuv_to_rgb(y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = y.shape
    luma = y.astype(np.int32) << 16
    # 1.402, 0.344136, 0.714136 and 1.772 times 2^16: integers, so that every language comes to the same bits
    blue, red = (np.repeat(np.repeat(plane, 2, 0), 2, 1)[:height, :width].astype(np.int32) - 128 for plane in (u, v))
    channels = (luma + 91881 * red, luma - 22554 * blue - 46802 * red, luma + 116130 * blue)
    return np.stack([np.clip((channel + 32768) >> 16, 0, 255) for channel in channels], -1).astype(np.uint8)


def _pixels(plane: Plane, width: int, height: int, offset: int = 0) -> NDArray[np.uint8]:
    data = np.frombuffer(plane.data, np.uint8)[offset:]
    if plane.pixel_stride < 1 or plane.row_stride < (width - 1) * plane.pixel_stride + 1:
        raise UserError(f"frame: strides of {plane.row_stride} and {plane.pixel_stride} bytes do not hold {width} pixels a row")
    if len(data) < (height - 1) * plane.row_stride + (width - 1) * plane.pixel_stride + 1:
        raise UserError(f"frame: a plane of {len(plane.data)} bytes is too short for {width} x {height} pixels")
    return np.lib.stride_tricks.as_strided(data, (height, width), (plane.row_stride, plane.pixel_stride), writeable=False)
