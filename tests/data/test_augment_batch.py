"""Batches on a device against PIL, on real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lavit_edge
from lavit_edge.contract.pictures import open_picture
from lavit_edge.data.augment import OPERATIONS, crop, distort, random_box
from lavit_edge.data.augment_batch import crop_batch, erase_batch, rand_augment_batch

EXACT = ("autocontrast", "equalize", "posterize", "solarize", "color", "contrast", "brightness", "sharpness")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    folder = Path(lavit_edge.__file__).parent / "pictures_cc0" / "val"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    return [open_picture(file) for file in files[::5][:10]]


def planes(pictures: list[Image.Image], side: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.array(p.resize((side, side))) for p in pictures])).permute(0, 3, 1, 2).contiguous()


def as_pictures(batch: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(rows) for rows in batch.permute(0, 2, 3, 1).numpy()]


def difference(batch: torch.Tensor, reference: list[Image.Image]) -> np.ndarray:
    return np.abs(batch.permute(0, 2, 3, 1).numpy().astype(int) - np.stack([np.array(p) for p in reference]).astype(int))


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_that_of_pil(name: str, pictures: list[Image.Image]) -> None:
    """Eight to the bit; the five that move pixels within 1 of 255, and equal in 95 % of the values at least: PIL cuts off
    decimals, also of sums that fall short of a whole number by a rounding error."""
    number = OPERATIONS.index(name)
    batch = planes(pictures, 96)
    for m in (-1.0, -0.66, -0.21, 0.4, 0.73, 1.0):
        column = np.full((len(batch), 1), m)
        result = rand_augment_batch(batch.clone(), np.full_like(column, number), column)
        apart = difference(result, [distort(p, number, m) for p in as_pictures(batch)])
        assert apart.max() <= (0 if name in EXACT else 1), m
        assert (apart > 0).mean() < 0.05, m
        assert (result != batch).any()


@pytest.mark.parametrize("kind", ["black", "two levels", "one level off"])
def test_operations_on_pictures_without_contrast(kind: str) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    if kind == "two levels":
        pixels[:16] = 255
    elif kind == "one level off":
        pixels[3, 4, 1] = 1
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    for number in range(len(OPERATIONS)):
        result = rand_augment_batch(batch.clone(), np.full((1, 1), number), np.full((1, 1), 0.7))
        assert difference(result, [distort(Image.fromarray(pixels), number, 0.7)]).max() <= 1, OPERATIONS[number]


def test_each_picture_gets_its_own_operations(pictures: list[Image.Image]) -> None:
    rng = np.random.default_rng(0)
    batch = planes(pictures * 4, 64)
    operations, magnitudes = rng.integers(len(OPERATIONS), size=(len(batch), 2)), rng.uniform(-1, 1, (len(batch), 2))
    together = rand_augment_batch(batch.clone(), operations, magnitudes)
    for index in range(len(batch)):
        alone = rand_augment_batch(batch[index : index + 1].clone(), operations[index : index + 1], magnitudes[index : index + 1])
        assert torch.equal(alone[0], together[index])
    assert len({row.numpy().tobytes() for row in together}) == len(batch)


@pytest.mark.parametrize("size", [32, 96, 160])
def test_crops_are_those_of_pil(size: int, pictures: list[Image.Image]) -> None:
    """Within 1 of 255: PIL rounds between its two passes. Shrinking and enlarging, whole pictures and small boxes."""
    rng = np.random.default_rng(size)
    for picture in pictures:
        boxes = [random_box(rng, 0.1) for _ in range(5)] + [(0.0, 0.0, 1.0, 1.0)]
        flips = rng.random(6) < 0.5
        pixels = torch.from_numpy(np.array(picture))[None].expand(6, -1, -1, -1)
        apart = difference(
            crop_batch(pixels, np.array(boxes), flips, size),
            [crop(picture, box, size, bool(flip)) for box, flip in zip(boxes, flips, strict=True)],
        )
        assert apart.max() <= 1
        assert apart.mean() < 0.3


def test_a_whole_picture_at_its_own_size_is_itself(pictures: list[Image.Image]) -> None:
    pixels = planes(pictures, 64).permute(0, 2, 3, 1)
    whole = np.tile((0.0, 0.0, 1.0, 1.0), (len(pixels), 1))
    result = crop_batch(pixels, whole, np.arange(len(pixels)) % 2, 64).permute(0, 2, 3, 1)
    assert torch.equal(result[::2], pixels[::2])
    assert torch.equal(result[1::2], pixels[1::2].flip(2))


def test_holes_are_filled_with_noise_and_nothing_else_is() -> None:
    batch = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    holes = np.array([[4, 6, 10, 20], [0, 0, 0, 0], [0, 0, 32, 32]], float)
    torch.manual_seed(0)
    first = erase_batch(batch.clone(), holes)
    torch.manual_seed(0)
    assert torch.equal(first, erase_batch(batch.clone(), holes))
    assert not first[1].any()
    assert first[2].float().mean() == pytest.approx(127.5, abs=3)
    assert first[0, :, 4:14, 6:26].any(0).all()
    first[0, :, 4:14, 6:26] = 0
    assert not first[0].any()
