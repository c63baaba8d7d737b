"""Callbacks: what the moving average of the parameters has after a few steps."""

from types import SimpleNamespace

import pytest
from torch import nn

from podium.training.callbacks import ParameterAverage


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.1, 0.1 * (0.1 * 1 + 0.9 * 2) + 0.9 * 3),
        (0.9, 3 / 12 * (2 / 11 * 1 + 9 / 11 * 2) + 9 / 12 * 3),  # at most (1 + steps) / (10 + steps)
    ],
)
def test_the_average_of_parameters_and_running_statistics_soon_forgets_the_first_steps(decay, expected):
    network, average = nn.BatchNorm1d(1), ParameterAverage(decay)
    average.learn = SimpleNamespace(model=network)
    average.before_fit()
    for value in (1.0, 2.0, 3.0):
        network.weight.data.fill_(value)
        network.running_mean.fill_(value)
        average.after_step()
    average.exchange()
    assert [float(network.weight), float(network.running_mean)] == pytest.approx([expected] * 2)
