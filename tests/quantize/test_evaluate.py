"""What the program is given: the picture's own colours, not its reverse, and no test's helper shares the function."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lavit_edge.models.deployed import to_input
from lavit_edge.quantize.evaluate import Metrics, better, measure


def test_planes_are_red_green_and_blue_in_this_order() -> None:
    picture = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[10, 11, 12], [13, 14, 15], [16, 17, 18]]], np.uint8)  # 2 x 3
    (planes,) = made = to_input(picture[None])
    assert made.is_contiguous()
    assert planes.tolist() == [
        [[1.0, 4.0, 7.0], [10.0, 13.0, 16.0]],
        [[2.0, 5.0, 8.0], [11.0, 14.0, 17.0]],
        [[3.0, 6.0, 9.0], [12.0, 15.0, 18.0]],
    ]


def test_top1_is_of_the_outputs_and_sqnr_of_what_they_lack() -> None:
    reference = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    found = measure(0.9 * reference, torch.tensor([0, 1, 0, 0]), reference)
    assert found.top1 == 0.75
    assert found.sqnr_db == pytest.approx(20, abs=1e-4)
    assert measure(reference, torch.tensor([1, 1, 0, 0])) == Metrics(0.5, None)


@pytest.mark.parametrize(("decibels", "written"), [(20.5, 20.5), (None, None), (math.inf, None)])
def test_json_has_no_infinity(decibels: float | None, written: float | None) -> None:
    assert Metrics(0.5, decibels).to_dict() == {"top1": 0.5, "sqnr_db": written}


def test_five_pictures_tell_two_forms_apart_and_four_do_not() -> None:
    many, few = Metrics(0.75, 20.0), Metrics(0.5, 30.0)
    assert (better(many, few, 20), better(few, many, 20)) == (True, False)
    assert (better(many, few, 16), better(few, many, 16)) == (False, True)


def test_what_is_right_beyond_fp32_is_chance_and_noise_decides() -> None:
    ptq, qat = Metrics(0.9187, 25.9), Metrics(0.9145, 27.6)
    assert better(ptq, qat, 3531)
    assert better(qat, ptq, 3531, most=0.9145)
    assert better(ptq, qat, 3531, most=0.9165)
