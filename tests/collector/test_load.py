"""What the worker's load says."""

from __future__ import annotations

import pytest

from hubscope.collector.load import WINDOW_S, Load


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.parametrize(("share", "is_high"), [(0.0, False), (0.2, False), (0.33, False), (0.47, True), (1.0, True)])
def test_it_is_the_share_of_the_time_that_is_worked(share, is_high):
    """Half a second at a time, after ten windows the share is the one that was worked, and above 0.4 it is high."""
    clock = Clock()
    load = Load(clock)
    for _ in range(int(10 * WINDOW_S / 0.5)):
        with load.working():
            clock.s += 0.5 * share
        clock.s += 0.5 * (1 - share)
    assert load.share() == pytest.approx(share, abs=0.06)
    assert load.is_high() is is_high


def test_it_ends_with_the_work():
    """What was worked hard is forgotten within a few windows, also where nothing comes any more."""
    clock = Clock()
    load = Load(clock)
    with load.working():
        clock.s += 10 * WINDOW_S
    assert load.is_high()
    clock.s += 3 * WINDOW_S
    assert not load.is_high()
    assert load.share() < 0.06


def test_a_failure_is_work_too():
    """What raises was worked on all the same."""
    clock = Clock()
    load = Load(clock)

    def fails():
        with load.working():
            clock.s += 10 * WINDOW_S
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert load.is_high()
