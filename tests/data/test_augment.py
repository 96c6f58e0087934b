from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lavit_edge.data.augment import crop, erase, mix, rand_augment, random_box


@pytest.mark.parametrize("min_scale", [0.08, 0.25, 0.9, 1.0])
def test_random_boxes_lie_inside_and_have_the_asked_area(min_scale: float) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(rng, min_scale) for _ in range(500)])
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    width, height = right - left, bottom - top
    area, aspect = width * height, width / height
    assert area.min() >= min_scale - 1e-9
    assert aspect.min() >= 3 / 4 - 1e-9
    assert aspect.max() <= 4 / 3 + 1e-9
    if min_scale < 0.5:
        assert area.min() < min_scale + 0.1
        assert area.max() > 0.8
        assert left.std() > 0.05


def test_crop_cuts_the_box_and_mirrors() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[20:, 40:60] = 100
    pixels[20:, 60:] = 200
    image = Image.fromarray(pixels)
    cut = np.asarray(crop(image, (0.5, 0.5, 1.0, 1.0), 20, flip=False))
    assert cut.shape == (20, 20, 3)
    assert (cut[2:, 2:8] == 100).all()  # the filter reaches a pixel across the box's edge
    assert (cut[2:, 12:] == 200).all()
    np.testing.assert_array_equal(np.asarray(crop(image, (0.5, 0.5, 1.0, 1.0), 20, flip=True)), cut[:, ::-1])


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def test_rand_augment_follows_from_its_generator() -> None:
    results = [np.asarray(rand_augment(noise(), np.random.default_rng(seed), 2, 9)) for seed in (*range(60), *range(60))]
    for first, second in zip(results[:60], results[60:], strict=True):
        np.testing.assert_array_equal(first, second)
        assert first.shape == (32, 32, 3)
        assert first.dtype == np.uint8
    assert len({result.tobytes() for result in results}) > 50


def test_rand_augment_without_operations_changes_nothing() -> None:
    np.testing.assert_array_equal(np.asarray(rand_augment(noise(), np.random.default_rng(0), 0, 9)), np.asarray(noise()))


def test_erase_fills_one_rectangle_of_a_bounded_area() -> None:
    shares = []
    for seed in range(100):
        erased = erase(np.zeros((64, 64, 3), np.uint8), np.random.default_rng(seed), 1.0)
        np.testing.assert_array_equal(erased, erase(np.zeros((64, 64, 3), np.uint8), np.random.default_rng(seed), 1.0))
        rows, columns = (np.flatnonzero(erased.any((2, axis))) for axis in (1, 0))
        box = erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.any(2).mean() > 0.99  # a noise pixel is black once in 2^24
        shares.append(box.shape[0] * box.shape[1] / 64**2)
    assert min(shares) > 0.015
    assert max(shares) < 0.35
    untouched = np.zeros((8, 8, 3), np.uint8)
    assert not erase(untouched, np.random.default_rng(0), 0.0).any()


def constant_pictures() -> torch.Tensor:
    return torch.arange(6.0)[:, None, None, None].expand(6, 3, 32, 32)


def test_cutmix_share_is_the_area_that_stays() -> None:
    torch.manual_seed(0)
    pasted = 0
    for _ in range(50):
        mixed, partner, share = mix(constant_pictures(), 0.0, 1.0)
        for i in range(6):
            if partner[i] != i:
                assert float((mixed[i, 0] == i).float().mean()) == pytest.approx(share, abs=1e-6)
                assert set(mixed[i].unique().tolist()) <= {float(i), float(partner[i])}
                pasted += share < 1
    assert pasted > 100


def test_mixup_share_is_the_weight_of_the_picture() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        mixed, partner, share = mix(constant_pictures(), 0.8, 0.0)
        expected = share * torch.arange(6.0) + (1 - share) * partner
        torch.testing.assert_close(mixed, expected[:, None, None, None].expand_as(mixed))


def test_mix_picks_both_kinds_and_can_be_switched_off() -> None:
    torch.manual_seed(0)
    blended = [bool((mix(constant_pictures(), 1.0, 1.0)[0] % 1).any()) for _ in range(60)]
    assert 15 < sum(blended) < 45
    pictures, _, share = mix(constant_pictures(), 0.0, 0.0)
    assert share == 1.0
    assert torch.equal(pictures, constant_pictures())
