"""Examples, and those set aside."""

import pytest
import torch

from gossamer.tasks import DataError, Examples
from gossamer.tasks.requirements import optional_module
from gossamer.tasks.splits import set_aside


def double(inputs: torch.Tensor) -> torch.Tensor:
    return 2 * inputs


def test_the_same_are_set_aside_in_every_version() -> None:
    examples = Examples(torch.arange(10), 10 * torch.arange(10), double)
    rest, aside = set_aside(examples, 3)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(20200305)).tolist()
    for part, rows in ((aside, sorted(order[:3])), (rest, sorted(order[3:]))):
        assert part.inputs.tolist() == rows
        assert part.targets.tolist() == [10 * row for row in rows]
        assert part.prepare is double


@pytest.mark.parametrize("count", [0, 10, 11, -1])
def test_both_sides_have_examples(count: int) -> None:
    with pytest.raises(ValueError, match=rf"cannot set {count} of 10 examples aside; expected 1 to 9"):
        set_aside(Examples(torch.arange(10), torch.arange(10)), count)


@pytest.mark.parametrize("count", [1, 9])
def test_one_is_enough(count: int) -> None:
    rest, aside = set_aside(Examples(torch.arange(10), torch.arange(10)), count)
    assert (len(rest), len(aside)) == (10 - count, count)


def test_inputs_and_targets_are_as_many() -> None:
    with pytest.raises(ValueError, match="got 3 inputs but 2 targets; expected as many of each"):
        Examples(torch.ones(3, 2), torch.ones(2))


def test_a_package_that_is_missing_is_named_with_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"need the package no_such_package_, .*pip install 'gossamer\[tasks\]'"):
        optional_module("no_such_package_.inner")
    assert optional_module("os.path").join("a", "b") == "a/b"
