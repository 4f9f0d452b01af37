"""`scripts/growth`: a figure that grows with the lives of an engine is told from one that finds its size."""

from __future__ import annotations

from scripts.growth import Series, heading, row
from scripts.processes import usual

LIVES = tuple(range(1, 1001, 10))


def series(*values: float, allowed: float | None = 0.0) -> Series:
    return Series("descriptors", LIVES[: len(values)], values, "", allowed)


def test_a_steady_figure_has_no_growth_and_no_slope() -> None:
    steady = series(*[13.0] * 100)
    assert (steady.growth, steady.slope, steady.grew) == (0.0, 0.0, False)


def test_one_more_every_hundred_lives_is_told() -> None:
    leaking = series(*[13.0 + life // 100 for life in LIVES])
    assert leaking.growth == 6.0
    assert 9.5 < leaking.slope < 10.5
    assert leaking.grew


def test_a_program_that_finds_its_size_at_first_does_not_grow() -> None:
    settling = series(*[10.0 + min(number, 15) for number in range(100)])
    assert (settling.growth, settling.slope, settling.grew) == (0.0, 0.0, False)


def test_a_single_outlier_at_the_end_is_no_growth() -> None:
    assert not series(*[5.0] * 99, 50.0).grew


def test_what_falls_does_not_grow() -> None:
    falling = series(*[100.0 - number for number in range(100)])
    assert falling.growth == -60.0
    assert not falling.grew


def test_growth_up_to_what_is_allowed_passes_and_any_growth_where_nothing_is_said() -> None:
    values = [30.0 + number / 100 for number in range(100)]
    assert not series(*values, allowed=0.7).grew
    assert series(*values, allowed=0.5).grew
    assert not series(*values, allowed=None).grew


def test_few_readings_are_judged_as_well() -> None:
    assert series(1.0, 1.0, 2.0).grew
    assert not series(1.0).grew
    assert series(1.0).slope == 0.0


def test_a_row_says_everything_and_marks_what_grew() -> None:
    assert heading().split() == ["first", "median", "last", "slope/1000", "growth", "allowed"]
    leaking = series(*[13.0 + life // 100 for life in LIVES])
    assert row(leaking).split() == ["descriptors", "13.00", "17.50", "22.00", "9.845", "6.00", "0", "GREW"]
    assert row(series(2.0, 2.0, allowed=None)).split() == [
        "descriptors",
        "2.00",
        "2.00",
        "2.00",
        "0.000",
        "0.00",
        "any",
    ]


def test_what_a_process_usually_holds_is_not_what_one_look_found() -> None:
    looks = iter([21, 20, 22, 20, 19])
    assert usual(lambda: next(looks), looks=5, apart_s=0.0) == 20
