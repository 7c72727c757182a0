"""Figures as a person reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.analytics.render import numbers


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "–"),
        (0.0, "s", "0 s"),
        (3.0, "s", "3 s"),
        (0.42, "s", "420 ms"),
        (0.0000123, "s", "12.3 µs"),
        (0.9999, "s", "1 s"),
        (119.0, "s", "119 s"),
        (2160.0, "s", "36 min"),
        (9000.0, "s", "2.5 h"),
        (-0.3, "s", "-300 ms"),
        (200 * 2**20, "By", "200 MiB"),
        (12.0, "By", "12 B"),
        (12.4 * 2**20, "By/h", "12.4 MiB/h"),
        (0.82, "1", "0.82"),
        (0.82, numbers.SHARE, "82 %"),
        (1234567.0, "{row}", "1,234,567 rows"),
        (60.0, "{frame}/s", "60 frames/s"),
        (1.0, "{plugin}", "1 plugin"),
    ],
)
def test_quantities(value: float | None, unit: str, text: str) -> None:
    """A value is written with three significant digits in the unit that a person would choose."""
    assert numbers.quantity(value, unit) == text


@given(st.floats(min_value=1e-9, max_value=1e6))
def test_a_written_time_is_within_half_a_percent(value: float) -> None:
    """Rounding never changes a time by more than what three significant digits lose."""
    number, unit = numbers.quantity(value, "s").split()
    factor = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86_400}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.0051)


def test_targets_keep_their_own_words() -> None:
    """A target with a unit is shown as written; one without gets the KPI's unit; both have a limit in it."""
    assert numbers.target("< 3", "s") == "< 3 s"
    assert numbers.target("< 100 ms", "s") == "< 100 ms"
    assert numbers.target(None, "s") == "–"
    assert numbers.target_limit("< 200 MiB", "By") == 200 * 2**20
    assert numbers.target_limit("> 80 %", numbers.SHARE) == pytest.approx(0.8)
    assert numbers.target_limit("nonsense", "s") is None


def test_intervals_say_a_shared_unit_once() -> None:
    """`40 to 43 ms`, but `900 ms to 1.1 s`; nothing where an end is not known."""
    assert numbers.interval(0.04, 0.043, "s") == "40 to 43 ms"
    assert numbers.interval(0.9, 1.1, "s") == "900 ms to 1.1 s"
    assert numbers.interval(None, 1.0, "s") == ""


def test_changes_are_signed() -> None:
    """A relative change says its direction."""
    assert [numbers.change(c) for c in (0.123, -0.0512, 0.0, None)] == ["+12 %", "−5.1 %", "±0 %", "–"]


@given(st.lists(st.floats(min_value=-1e9, max_value=1e9), max_size=30))
def test_sparklines_have_one_character_a_value(values: list[float]) -> None:
    """At most ten of the newest values, lowest and highest at the ends of the scale."""
    line = numbers.sparkline(values)
    assert len(line) == (min(len(values), 10) if len(values) > 1 else 0)


def test_control_characters_do_not_reach_a_terminal() -> None:
    """Escape sequences in telemetry are made visible instead of obeyed."""
    assert numbers.printable("a\x1b[2Jb\nc") == "a�[2Jb c"


@pytest.mark.parametrize(
    ("names", "width", "text"),
    [
        (("summarizer", "on_open"), 30, "summarizer · on_open"),
        (
            ("datasette.default_magic_parameters", "register_magic_parameters"),
            35,
            "datas…parameters · register…ameters",
        ),
        (("datasette_cluster_map_with_clusters", "startup"), 30, "datase…with_clusters · startup"),
        (("map", "register_output_renderer"), 20, "map · registe…nderer"),
    ],
)
def test_of_a_plugin_and_its_hook_both_stay_known(names: tuple[str, str], width: int, text: str) -> None:
    """The longer name gives way, in its middle; neither end of either is lost."""
    assert numbers.cut_pair(names, " · ", width) == text


@given(st.text(max_size=60), st.text(max_size=60), st.integers(10, 80))
def test_a_cut_pair_fits_and_keeps_both_names(first: str, second: str, width: int) -> None:
    """Never wider than asked; whole where it fits; each name begins and ends as it did, with room for four at least."""
    text = numbers.cut_pair((first, second), " · ", width)
    whole = f"{first} · {second}"
    assert len(text) <= width
    assert text == whole if len(whole) <= width else "…" in text
    assert text.startswith(first[:1])
    assert text.endswith(second[-1:])
