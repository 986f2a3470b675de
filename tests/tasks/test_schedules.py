import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.tasks import OneCycle, Steps


def test_steps() -> None:
    schedule = Steps(first=0.1, milestones=(0.5, 0.75))
    rates = [schedule(step / 8) for step in range(8)]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("steps_an_epoch", [1, 351, 390])
def test_the_cuts_of_182_epochs_come_with_the_first_step_of_epochs_91_and_136(steps_an_epoch: int) -> None:
    schedule = Steps(first=0.1, milestones=(91 / 182, 136 / 182))
    last = 182 * steps_an_epoch
    for epoch, before, after in ((91, 0.1, 0.01), (136, 0.01, 0.001)):
        assert schedule((epoch * steps_an_epoch - 1) / last) == pytest.approx(before)
        assert schedule(epoch * steps_an_epoch / last) == pytest.approx(after)


def test_one_cycle() -> None:
    schedule = OneCycle(peak=1.0, warm_up=0.2, first=0.1, last=0.01)
    # Up in two tenths; down along a cosine, whose quarters are (1 + cos 45, 90, 135 degrees) / 2.
    expected = [0.1, 0.55, 1.0, 0.99 * 0.853553 + 0.01, 0.505, 0.99 * 0.146447 + 0.01, 0.01]
    assert [schedule(progress) for progress in (0, 0.1, 0.2, 0.4, 0.6, 0.8, 1)] == pytest.approx(expected, abs=1e-6)


@given(progress=st.floats(0, 1), warm_up=st.floats(0, 0.99))
def test_one_cycle_stays_within_its_bounds(progress: float, warm_up: float) -> None:
    assert 0 <= OneCycle(peak=0.5, warm_up=warm_up)(progress) <= 0.5
