"""The statistics of a report. The unit is the run: pooling spans across runs raised false alarms to 19 % at 5 %.

numpy and scipy.special only: scipy.stats takes four times as long to import, and the tests use it as the oracle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

# A change is called better or worse where its adjusted p-value is at most this. 0.01, not 0.05: with Benjamini-Hochberg
# it is the chance that a report on two groups of the *same* program calls anything at all.
ALPHA: Final = 0.01
# "Same" is a claim: the whole 95 % interval lies within ±5 %. Anything wider is unknown.
EQUIVALENCE_MARGIN: Final = 0.05
# Two runs have one degree of freedom: no interval worth printing. Three is the least that gave a usable one.
MIN_RUNS: Final = 3
# Fewer than 5 runs a side make a claim only from this factor on; a busy machine slows a run by less, as a rule.
FEW_RUNS_FACTOR: Final = 1.5
# Below 20 µs a duration is the clock's and the interpreter's, not the program's.
FLOOR_S: Final = 20e-6
# Two durations that differ by less are not called better or worse: a processor and caches that slept are that slow.
# An indexed SQLite query of 12 µs took 45 µs after a pause of 1 ms, 140 µs (172 at most, one stall aside) after
# one of 50 or 200 ms. What is repeated back to back does not pay it, and shows in the duration of its operation.
WAKING_S: Final = 200e-6
# The power at which the minimum detectable effect is stated.
POWER: Final = 0.8


@dataclasses.dataclass(frozen=True)
class Difference:
    """after against before: `change`, `low`, `high` (95 %) and the minimum detectable effect are relative."""

    before: float  # geometric mean of the runs
    after: float
    change: float
    low: float
    high: float
    p_value: float
    minimum_detectable_effect: float


def _t_cdf(t: float, df: float) -> float:
    return float(special.stdtr(df, t))


def t_quantile(probability: float, df: float) -> float:
    """The quantile of Student's t distribution with `df` (any positive real) degrees of freedom."""
    return float(special.stdtrit(df, probability))


@dataclasses.dataclass(frozen=True)
class WelchTest:
    """Two means with unequal variances (Welch 1947): difference after - before, in the values' own unit."""

    difference: float
    standard_error: float
    df: float
    p_value: float  # two-sided

    def interval(self, confidence: float) -> tuple[float, float]:
        half = t_quantile(0.5 + confidence / 2, self.df) * self.standard_error
        return self.difference - half, self.difference + half


def welch(before: Sequence[float] | Floats, after: Sequence[float] | Floats) -> WelchTest:
    """Welch's test on two samples of at least two values each (ValueError otherwise).

    Two samples without any spread are judged by their difference alone: p is 0 or 1, degrees of freedom the smaller
    sample's.
    """
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if len(a) < 2 or len(b) < 2:
        raise ValueError("Welch's test needs two values on each side")
    difference = float(b.mean() - a.mean())
    va, vb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    # Rounding leaves 1e-17 where all values are equal; such a spread would make any difference certain.
    floor = (np.finfo(np.float64).eps * max(1.0, float(np.abs(a).max()), float(np.abs(b).max()))) ** 2
    if va + vb <= floor:
        equal = abs(difference) <= math.sqrt(floor) * 4
        return WelchTest(0.0 if equal else difference, 0.0, float(min(len(a), len(b)) - 1), 1.0 if equal else 0.0)
    se = math.sqrt(va + vb)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return WelchTest(difference, se, df, 2 * _t_cdf(-abs(difference / se), df))


def compare_runs(before: Sequence[float] | Floats, after: Sequence[float] | Floats) -> Difference:
    """Welch on the logarithms of one positive value a run (its median, say), so that the result is a ratio.

    The minimum detectable effect is the relative slow-down that these runs' own spread would have let through as
    significant at ALPHA with a power of 80 %: (t(1-α/2) + t(0.8)) standard errors.
    Raises ValueError for fewer than two runs on a side or a value that is not positive.
    """
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if (a <= 0).any() or (b <= 0).any():
        raise ValueError("logarithms need positive values")
    test = welch(np.log(a), np.log(b))
    low, high = test.interval(0.95)
    mde = (t_quantile(1 - ALPHA / 2, test.df) + t_quantile(POWER, test.df)) * test.standard_error
    return Difference(
        before=float(np.exp(np.log(a).mean())),
        after=float(np.exp(np.log(b).mean())),
        change=math.expm1(test.difference),
        low=math.expm1(low),
        high=_expm1(high),
        p_value=test.p_value,
        minimum_detectable_effect=_expm1(mde),
    )


def _expm1(x: float) -> float:
    """exp(x) - 1, held below the largest float: an interval from three wild runs may pass it."""
    return math.expm1(min(x, 700.0))


def verdict(difference: Difference, adjusted_p: float, *, higher_is_better: bool = False) -> str:
    """better | worse | same | unknown.

    same: the 95 % interval lies within ±EQUIVALENCE_MARGIN, whatever the p-value says of so small a change.
    better/worse: the p-value, adjusted over the whole report, is at most ALPHA. Else unknown.
    """
    if difference.low >= -EQUIVALENCE_MARGIN and difference.high <= EQUIVALENCE_MARGIN:
        return "same"
    if adjusted_p <= ALPHA:
        return "better" if (difference.change < 0) != higher_is_better else "worse"
    return "unknown"


def are_apart(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether so few runs can carry a claim: with 4 a side no regrouping of them is rarer than 1 in 35.

    4 runs against 4 have 70 groupings, so an exact permutation test ends at p = 2/70: a machine that was busy during
    four of eight equal runs splits them just so. Then the nearest runs of the two sides must differ by FEW_RUNS_FACTOR.
    """
    if 2 / math.comb(len(a) + len(b), len(a)) <= ALPHA:
        return True
    low, high = (a, b) if max(a) < min(b) else (b, a)
    return max(low) * FEW_RUNS_FACTOR <= min(high)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given (Benjamini and Hochberg 1995): q ≤ α bounds false discoveries by α."""
    n = len(p_values)
    if n == 0:
        return []
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    scaled = p[order] * n / np.arange(1, n + 1)
    adjusted = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    result = np.empty(n)
    result[order] = adjusted
    return [float(q) for q in result]


def mean_interval(values: Sequence[float] | Floats, confidence: float = 0.95) -> tuple[float, float, float] | None:
    """Mean with Student's interval, or None for fewer than two values."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    half = t_quantile(0.5 + confidence / 2, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


def typical_interval(values: Sequence[float] | Floats, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval for the typical run: Student's, on logarithms where all values are positive (durations are skewed).

    None for fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    positive = bool((x > 0).all())
    interval = mean_interval(np.log(x) if positive else x, confidence)
    assert interval is not None
    _, low, high = interval
    return (math.exp(max(low, -700.0)), math.exp(min(high, 700.0))) if positive else (low, high)


def percentile_interval(
    samples: Sequence[float] | Floats, q: float, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the `q`-th quantile (0..1) of independent samples; the same seed gives the same answer.

    Resampling is done on ranks: the order statistics of a uniform bootstrap sample, so it costs `resamples` draws of
    one binomial rank instead of `resamples` × n values. Raises ValueError for no sample.
    """
    x = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(x)
    if n == 0:
        raise ValueError("no sample")
    # The bootstrap quantile at rank r of n is x[k] where k/n is Beta(r, n - r + 1) distributed (Efron 1982, 10.3).
    rank = min(max(q * n + 0.5, 1.0), float(n))
    draws = np.random.default_rng(seed).beta(rank, n - rank + 1, resamples)
    picked = x[np.minimum((draws * n).astype(np.int64), n - 1)]
    low, high = np.quantile(picked, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Slope:
    slope: float
    low: float  # 95 %
    high: float


def theil_sen(x: Sequence[float] | Floats, y: Sequence[float] | Floats, confidence: float = 0.95) -> Slope:
    """Median of all pairwise slopes with Sen's (1968) interval, ties in y corrected; x must not all be equal."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    i, j = np.triu_indices(len(a), 1)
    dx = a[j] - a[i]
    keep = dx != 0
    if not keep.any():
        raise ValueError("a slope needs two different places")
    slopes = np.sort((b[j] - b[i])[keep] / dx[keep])
    n = len(slopes)
    z = float(special.ndtri(0.5 + confidence / 2))
    half = z * math.sqrt(_kendall_variance(b))
    lower = max(round((n - half) / 2) - 1, 0)
    upper = min(round((n + half) / 2), n - 1)
    return Slope(float(np.median(slopes)), float(slopes[lower]), float(slopes[upper]))


def _kendall_variance(y: Floats) -> float:
    n = len(y)
    ties = np.unique(y, return_counts=True)[1]
    return float(n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18


def mann_kendall(y: Sequence[float] | Floats) -> tuple[int, float]:
    """S (pairs that rise less pairs that fall) and the two-sided p-value that it is not chance.

    Exact up to 30 values without ties, the normal approximation with continuity correction beyond (Kendall 1975).
    """
    values = np.asarray(y, dtype=np.float64)
    n = len(values)
    i, j = np.triu_indices(n, 1)
    s = int(np.sign(values[j] - values[i]).sum())
    if n < 3:
        return s, 1.0
    if n <= 30 and len(np.unique(values)) == n:
        return s, _exact_kendall_p(n, s)
    variance = _kendall_variance(values)
    if variance <= 0 or s == 0:
        return s, 1.0
    z = (abs(s) - 1) / math.sqrt(variance)
    return s, min(1.0, 2 * float(special.ndtr(-z)))


def _exact_kendall_p(n: int, s: int) -> float:
    """P(|S| ≥ |s|) over all n! orders, from the counts of permutations by inversions."""
    counts: list[float] = [1.0]
    for k in range(2, n + 1):  # multiply by 1 + q + … + q^(k-1), normalised so that the sum stays 1
        longer = [0.0] * (len(counts) + k - 1)
        for index, value in enumerate(counts):
            for step in range(k):
                longer[index + step] += value / k
        counts = longer
    pairs = n * (n - 1) // 2
    tail = sum(value for inversions, value in enumerate(counts) if abs(pairs - 2 * inversions) >= abs(s))
    return min(1.0, tail)


def block_medians(times: Sequence[float] | Floats, values: Sequence[float] | Floats, blocks: int = 10) -> Any:
    """Median time and value in `blocks` stretches of equal count: what Mann-Kendall may be fed with.

    On the raw points of a memory series it alarms on 64 % of series without a trend (AR 0.9); on ten medians 4 to 8 %.
    """
    t, v = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    order = np.argsort(t, kind="stable")
    parts = [part for part in np.array_split(order, blocks) if len(part)]
    return (
        np.array([np.median(t[part]) for part in parts]),
        np.array([np.median(v[part]) for part in parts]),
    )
