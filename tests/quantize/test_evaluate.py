"""What the program is given: the picture's own colours, not its reverse, and no test's helper shares the function."""

from __future__ import annotations

import numpy as np

from lavit_edge.models.deployed import to_input


def test_planes_are_red_green_and_blue_in_this_order() -> None:
    picture = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[10, 11, 12], [13, 14, 15], [16, 17, 18]]], np.uint8)  # 2 x 3
    (planes,) = made = to_input(picture[None])
    assert made.is_contiguous()
    assert planes.tolist() == [
        [[1.0, 4.0, 7.0], [10.0, 13.0, 16.0]],
        [[2.0, 5.0, 8.0], [11.0, 14.0, 17.0]],
        [[3.0, 6.0, 9.0], [12.0, 15.0, 18.0]],
    ]
