from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lavit_edge.train.average import WARM_UP, Average


def model(value: float) -> nn.Module:
    """A linear map whose weights are ``value``, and a batch norm."""
    made = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    nn.init.constant_(made[0].weight, value)
    return made


def weight(average: Average) -> float:
    return float(average.module[0].weight[0, 0])  # type: ignore[index]


def test_the_first_update_copies() -> None:
    average = Average(model(0.0), 0.999)
    average.update_parameters(model(3.0))
    assert weight(average) == 3.0


def test_after_a_few_updates_it_is_near_the_weights_and_not_near_the_start() -> None:
    average = Average(model(0.0), 0.999)
    average.update_parameters(model(0.0))
    for _ in range(WARM_UP):
        average.update_parameters(model(1.0))
    assert weight(average) > 0.9, "at the decay of 0.999 it would be 0.01"


@pytest.mark.parametrize(("decay", "expected"), [(0.999, 1 - (2 / 11)), (0.1, 0.9)])
def test_the_share_of_the_average_rises_to_the_decay(decay: float, expected: float) -> None:
    average = Average(model(0.0), decay)
    average.update_parameters(model(0.0))  # update 0 copies; update 1 keeps (1 + 1) / (10 + 1)
    average.update_parameters(model(1.0))
    assert weight(average) == pytest.approx(expected)


def test_in_the_long_run_it_is_the_exponential_average() -> None:
    average = Average(model(0.0), 0.5)
    average.update_parameters(model(0.0))
    for _ in range(20):  # from update 8 on the warm-up is past 0.5
        average.update_parameters(model(0.0))
    for value in (1.0, 1.0):
        average.update_parameters(model(value))
    assert weight(average) == pytest.approx(0.75)


def test_statistics_of_batch_norms_are_averaged_and_integers_are_copied() -> None:
    start = model(0.0)
    average = Average(start, 0.999)
    average.update_parameters(start)
    seen = copy.deepcopy(start)
    norm = seen[1]  # type: ignore[index]
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(5.0)
    norm.num_batches_tracked.fill_(7)
    average.update_parameters(seen)
    kept = 2 / (WARM_UP + 1)
    averaged = average.module[1]  # type: ignore[index]
    torch.testing.assert_close(averaged.running_mean, torch.full((4,), 2.0 * (1 - kept)))
    torch.testing.assert_close(averaged.running_var, torch.full((4,), 1.0 * kept + 5.0 * (1 - kept)))
    assert int(averaged.num_batches_tracked) == 7
    assert int(average.n_averaged) == 2
    assert float(norm.running_mean[0]) == 2.0, "the model itself stays as it is"
