"""Augmentation: per picture with PIL in the loader's workers, per batch with torch on the training device."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

Box = tuple[float, float, float, float]
FILL = (124, 116, 104)  # RGB of what a distortion uncovers: ImageNet's mean


def random_box(rng: np.random.Generator, min_scale: float) -> Box:
    """A crop as fractions of width and height ``(left, top, right, bottom)``: area in ``[min_scale, 1]``, aspect in
    ``[3/4, 4/3]`` of the picture's own (Szegedy et al., 2015)."""
    for _ in range(10):
        area, aspect = rng.uniform(min_scale, 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            return left, top, left + width, top + height
    return 0.0, 0.0, 1.0, 1.0


def crop(image: Image.Image, box: Box, size: int, flip: bool) -> Image.Image:
    """The box of the picture, resized to ``size`` x ``size`` and mirrored if asked."""
    width, height = image.size
    pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=pixels)
    return ImageOps.mirror(image) if flip else image


def _affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


OPERATIONS = (
    "autocontrast", "equalize", "posterize", "solarize", "color", "contrast", "brightness", "sharpness",
    "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip


def _operations(m: float, side: int) -> list[Callable[[Image.Image], Image.Image]]:
    """Those of ``OPERATIONS`` at signed magnitude ``m`` in [-1, 1]."""
    shift = m * 0.3 * side
    return [
        lambda i: ImageOps.autocontrast(i),
        lambda i: ImageOps.equalize(i),
        lambda i: ImageOps.posterize(i, 8 - round(abs(m) * 4)),
        lambda i: ImageOps.solarize(i, 256 - round(abs(m) * 128)),
        lambda i: ImageEnhance.Color(i).enhance(1 + 0.9 * m),
        lambda i: ImageEnhance.Contrast(i).enhance(1 + 0.9 * m),
        lambda i: ImageEnhance.Brightness(i).enhance(1 + 0.9 * m),
        lambda i: ImageEnhance.Sharpness(i).enhance(1 + 0.9 * m),
        lambda i: i.rotate(30 * m, Image.Resampling.BILINEAR, fillcolor=FILL),
        _affine(1, 0.3 * m, -0.15 * m * side, 0, 1, 0),
        _affine(1, 0, 0, 0.3 * m, 1, -0.15 * m * side),
        _affine(1, 0, shift, 0, 1, 0),
        _affine(1, 0, 0, 0, 1, shift),
    ]


def distort(image: Image.Image, operation: int, m: float) -> Image.Image:
    """One of ``OPERATIONS``, by number, at signed magnitude ``m`` in [-1, 1]."""
    return _operations(m, image.width)[operation](image)


def draw_operations(rng: np.random.Generator, operations: int, magnitude: float) -> list[tuple[int, float]]:
    """RandAugment's choice (Cubuk et al., 2020): numbers into ``OPERATIONS``, each with a signed magnitude in [-1, 1] that is
    ``magnitude`` in 0..10 jittered by 0.5."""
    drawn = []
    for _ in range(operations):
        m = min(max(rng.normal(magnitude, 0.5), 0.0), 10.0) / 10 * (-1, 1)[rng.integers(2)]
        drawn.append((int(rng.integers(len(OPERATIONS))), m))
    return drawn


def rand_augment(image: Image.Image, rng: np.random.Generator, operations: int, magnitude: float) -> Image.Image:
    """``operations`` random distortions of strength ``magnitude`` in 0..10."""
    for operation, m in draw_operations(rng, operations, magnitude):
        image = distort(image, operation, m)
    return image


def draw_hole(rng: np.random.Generator, size: int, probability: float) -> tuple[int, int, int, int] | None:
    """A rectangle ``(top, left, height, width)`` of 2..33 % of ``size`` x ``size`` pixels (Zhong et al., 2020), or none."""
    if rng.random() >= probability:
        return None
    area, aspect = rng.uniform(0.02, 0.33), math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
    height, width = (min(size, max(1, round(size * math.sqrt(x)))) for x in (area * aspect, area / aspect))
    return int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1)), height, width


def erase(pixels: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Fills one random rectangle with noise. uint8 ``(S, S, 3)``, in place."""
    if hole := draw_hole(rng, pixels.shape[0], probability):
        top, left, height, width = hole
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixels


def mix(pictures: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Tensor, float]:
    """Mixup (Zhang et al., 2018) or CutMix (Yun et al., 2019) of a batch with itself, one of the two at random.

    Args:
        pictures: ``(B, 3, S, S)``.
        mixup, cutmix: the Beta parameters; 0 switches that kind off.

    Returns:
        The mixed pictures, the partner of each picture ``(B,)``, and the share in [0, 1] of the picture itself; targets are
        ``share * target + (1 - share) * target[partner]``.
    """
    kinds = [kind for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0]
    partner = torch.randperm(len(pictures), device=pictures.device)
    if not kinds:
        return pictures, partner, 1.0
    kind = kinds[int(torch.randint(len(kinds), ()))]
    alpha = mixup if kind == "mixup" else cutmix
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    if kind == "mixup":
        return pictures * share + pictures[partner] * (1 - share), partner, share
    size = pictures.shape[-1]
    side = round(size * math.sqrt(1 - share))
    y, x = (int(torch.randint(size, ())) for _ in range(2))
    top, bottom, left, right = max(0, y - side // 2), min(size, y + side // 2), max(0, x - side // 2), min(size, x + side // 2)
    pictures = pictures.clone()
    pictures[:, :, top:bottom, left:right] = pictures[partner, :, top:bottom, left:right]
    return pictures, partner, 1 - (bottom - top) * (right - left) / size**2
