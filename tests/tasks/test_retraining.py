"""Which constant rate a method has, and to what a network that comes trained can be rewound."""

import math
from dataclasses import replace

import pytest

from gossamer.errors import ConfigurationError
from gossamer.tasks import SGD, TASKS, Recipe
from gossamer.tasks.retraining import check_moments, constant_rate

RECIPE = Recipe(epochs=1, batch_size=1, learning_rate=lambda share: 1.0 - 0.9 * share, optimizer=SGD())


@pytest.mark.parametrize("method", ["fine-tune", "low-lr-weight-rewind"])
def test_a_constant_rate_is_given_the_recipe_s_or_the_schedule_s_last(method: str) -> None:
    assert constant_rate(RECIPE, method, None) is None
    assert constant_rate(RECIPE, method, 0.5) == 0.5
    recipe = replace(RECIPE, fine_tune_rate=0.25)
    assert constant_rate(recipe, method, None) == 0.25
    assert constant_rate(recipe, method, 0.5) == 0.5
    for wrong in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ConfigurationError, match=rf"fine_tune_rate is {wrong}; expected a learning rate above 0"):
            constant_rate(RECIPE, method, wrong)


@pytest.mark.parametrize("method", ["lr-rewind", "weight-rewind", "reinit", "linear-lr-restart", "of a later version"])
def test_other_methods_have_none(method: str) -> None:
    assert constant_rate(replace(RECIPE, fine_tune_rate=0.25), method, None) is None
    with pytest.raises(ConfigurationError, match=rf"fine_tune_rate is 0\.5, but {method} replays the schedule"):
        constant_rate(RECIPE, method, 0.5)


def test_a_network_that_comes_trained_goes_back_to_how_it_came() -> None:
    task = replace(TASKS["digits"], pretrained=True)
    check_moments(task, [])
    check_moments(task, [None, 0])
    check_moments(TASKS["digits"], [3])
    with pytest.raises(ConfigurationError, match="the network of digits comes trained"):
        check_moments(task, [None, 1])
