"""The figures that several parts measure by, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lavit_edge.metrics import logit_step, sqnr, wilson


def test_wilson_interval_of_known_proportions() -> None:
    # 8 of 10 at 95 %: the textbook interval
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50) == pytest.approx((0.92865, 1.0), abs=1e-4)


def test_sqnr_is_the_power_ratio_in_db() -> None:
    reference = np.array([[3.0, 4.0]])
    assert sqnr(reference, reference + np.array([[0.3, 0.4]])) == pytest.approx(20.0)
    assert math.isinf(sqnr(reference, reference))
    assert sqnr(np.zeros((1, 2)), np.array([[1.0, -1.0]])) == -math.inf
    shape = (5, 1, 2)  # the classes are the last axis, however many come before
    assert sqnr(np.broadcast_to(reference, shape), np.broadcast_to(1.1 * reference, shape)) == pytest.approx(20.0)


def test_a_step_is_one_255th_of_the_range_that_pictures_have_of_their_own() -> None:
    own = np.array([[51.0, -51.0], [-51.0, 51.0]])
    assert logit_step(own) == pytest.approx(102 / 255)
    assert logit_step(own + np.array([7.0, -300.0])) == pytest.approx(102 / 255)
    assert logit_step(np.ones((3, 4))) == 0
