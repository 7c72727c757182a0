"""The statistics against scipy.stats as the oracle, their properties, and their silence on A/A data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hubscope.analytics import statistics

values = st.floats(0.001, 1000.0)
samples = st.lists(values, min_size=3, max_size=12)


@given(samples, samples)
def test_welch_is_scipys(before: list[float], after: list[float]) -> None:
    """Difference, degrees of freedom, p-value and interval are those of scipy's Welch test."""
    ours = statistics.welch(before, after)
    if ours.standard_error < 1e-9 * max(*before, *after):
        return  # scipy warns of precision loss there; the next test holds for such samples
    theirs = stats.ttest_ind(after, before, equal_var=False)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    interval = theirs.confidence_interval(0.95)
    assert ours.interval(0.95) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


@given(values, st.integers(2, 6), st.integers(2, 6))
def test_equal_values_differ_in_nothing(value: float, n: int, m: int) -> None:
    """Samples without spread and without difference give p = 1, also after rounding in the logarithm."""
    difference = statistics.compare_runs([value] * n, [value] * m)
    assert difference.p_value == 1.0
    assert difference.change == pytest.approx(0, abs=1e-12)
    assert statistics.verdict(difference, 1.0) == "same"


@given(samples, samples, st.floats(0.01, 100.0))
def test_a_unit_changes_no_verdict(before: list[float], after: list[float], factor: float) -> None:
    """Seconds or milliseconds: the relative change and its p-value are the same."""
    one = statistics.compare_runs(before, after)
    other = statistics.compare_runs([v * factor for v in before], [v * factor for v in after])
    if one.p_value > 1e-12:
        assert other.p_value == pytest.approx(one.p_value, rel=1e-4, abs=1e-9)
    assert other.change == pytest.approx(one.change, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    """Adjusted p-values are those of scipy.stats.false_discovery_control, in the order given."""
    assert statistics.benjamini_hochberg(p_values) == pytest.approx(list(stats.false_discovery_control(p_values)))


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=25, unique=True))
def test_theil_sen_is_scipys(y: list[float]) -> None:
    """Slope and interval are those of scipy.stats.theilslopes."""
    x = list(range(len(y)))
    ours, theirs = statistics.theil_sen(x, y), stats.theilslopes(y, x, alpha=0.95)
    assert (ours.slope, ours.low, ours.high) == pytest.approx((theirs.slope, theirs.low_slope, theirs.high_slope))


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=25, unique=True))
def test_mann_kendall_is_kendalls_tau(y: list[float]) -> None:
    """The exact p-value is that of Kendall's tau between time and value."""
    s, p = statistics.mann_kendall(y)
    theirs = stats.kendalltau(range(len(y)), y, method="exact")
    assert p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert s == pytest.approx(theirs.statistic * len(y) * (len(y) - 1) / 2)


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_percentile_intervals_lie_in_the_data(data: list[float], q: float) -> None:
    """The interval is ordered, within the data, and the same for the same seed."""
    low, high = statistics.percentile_interval(data, q)
    assert min(data) <= low <= high <= max(data)
    assert (low, high) == statistics.percentile_interval(data, q)


def test_percentile_intervals_cover() -> None:
    """The 95 % interval of a median holds the true one in 90 to 99 % of 400 lognormal samples of 40."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        low, high = statistics.percentile_interval(rng.lognormal(0, 0.5, 40), 0.5, resamples=500)
        held += low <= 1.0 <= high
    assert 0.90 <= held / 400 <= 0.99


def test_aa_comparisons_are_silent() -> None:
    """Two groups of the same program are called better or worse in at most 2 % of 300 reports of 20 metrics each.

    Binomial: 6 of 300 bound the rate below 4 % (one-sided 95 %); a true rate of 5 % would pass once in 150 times.
    """
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(300):
        differences = [statistics.compare_runs(rng.lognormal(0, 0.1, 5), rng.lognormal(0, 0.1, 5)) for _ in range(20)]
        adjusted = statistics.benjamini_hochberg([d.p_value for d in differences])
        verdicts = [statistics.verdict(d, q) for d, q in zip(differences, adjusted, strict=True)]
        alarms += any(v in ("better", "worse") for v in verdicts)
    assert alarms / 300 <= 0.02


def test_the_minimum_detectable_effect_is_detected() -> None:
    """A slow-down of the stated size is significant at ALPHA in about 80 % of repetitions (70 to 90 %)."""
    rng = np.random.default_rng(3)
    base = [statistics.compare_runs(rng.lognormal(0, 0.05, 10), rng.lognormal(0, 0.05, 10)) for _ in range(200)]
    effect = float(np.median([d.minimum_detectable_effect for d in base]))
    found = sum(
        statistics.compare_runs(rng.lognormal(0, 0.05, 10), rng.lognormal(math.log1p(effect), 0.05, 10)).p_value
        <= statistics.ALPHA
        for _ in range(400)
    )
    assert 0.70 <= found / 400 <= 0.90


def test_verdicts() -> None:
    """A clear change has a direction, a small sure one is "same", an unsure one unknown; a rate is better high."""
    slow = statistics.compare_runs([1.0, 1.01, 0.99], [2.0, 2.02, 1.98])
    assert statistics.verdict(slow, slow.p_value) == "worse"
    assert statistics.verdict(slow, slow.p_value, higher_is_better=True) == "better"
    assert statistics.verdict(slow, 0.02) == "unknown"
    small = statistics.compare_runs([1.0, 1.001, 0.999], [1.02, 1.021, 1.019])
    assert small.p_value < 0.01
    assert statistics.verdict(small, small.p_value) == "same"
    wide = statistics.compare_runs([1.0, 1.5, 0.7], [1.1, 0.8, 1.4])
    assert statistics.verdict(wide, wide.p_value) == "unknown"


@settings(max_examples=30)
@given(st.integers(3, 9))
def test_a_series_without_order_has_no_trend(n: int) -> None:
    """Constant series have p = 1; a rising one has the smallest p there is, 2 / n!."""
    assert statistics.mann_kendall([5.0] * n)[1] == 1.0
    assert statistics.mann_kendall(range(n))[1] == pytest.approx(2 / math.factorial(n))  # type: ignore[arg-type]  # a range is a sequence of numbers


def test_bad_input_is_refused() -> None:
    """Too few values, no positive values, no two places: a ValueError says which."""
    with pytest.raises(ValueError, match="two values"):
        statistics.welch([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="positive"):
        statistics.compare_runs([1.0, 0.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="two different places"):
        statistics.theil_sen([1.0, 1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no sample"):
        statistics.percentile_interval([], 0.5)
