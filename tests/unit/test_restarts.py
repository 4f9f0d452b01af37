"""Waits that grow with chance in them, and a count of crashes that outlives the supervisor."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from autolaunch.phases import doubling
from autolaunch.restarts import KEPT, CrashLog, Moment, jittered


def test_waits_double_up_to_a_bound_with_a_little_chance() -> None:
    wait = jittered(1.0, 60.0)
    for crashes in range(12):
        drawn = [wait(crashes) for _ in range(50)]
        assert all(min(60.0, 2.0**crashes) <= one <= min(60.0, 2.0**crashes + 1.0) for one in drawn)
    assert len({wait(2) for _ in range(50)}) > 10


def test_without_chance_the_waits_are_plain() -> None:
    assert [doubling(crashes) for crashes in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_crashes_are_kept_by_their_age_for_whoever_comes_next(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = CrashLog(tmp_path, "wish-8000", warnings.append)
    assert log.ages() == ()
    log.add()
    log.add()
    assert all(0 <= age < 5 for age in CrashLog(tmp_path, "wish-8000", warnings.append).ages())
    assert len(log.ages()) == 2
    assert CrashLog(tmp_path, "other-8000", warnings.append).ages() == ()
    for _ in range(KEPT + 5):
        log.add()
    assert (len(log.ages()), warnings) == (KEPT, [])


@pytest.mark.parametrize("text", ["", "{", "null", '{"a": 1}', '["x", true, null, [1], [1, 2, 3], ["a", "b", 1]]'])
def test_a_file_that_says_nothing_is_no_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "restarts").mkdir()
    (tmp_path / "restarts" / "w.json").write_text(text)
    log = CrashLog(tmp_path, "w", lambda _: None)
    assert log.ages() == ()
    log.add()
    assert len(log.ages()) == 1


def test_within_a_boot_the_time_of_day_does_not_count() -> None:
    now = Moment(5000.0, "a", 700.0)
    assert [Moment(at, "a", 600.0).age(now) for at in (0.0, 4900.0, 9e9)] == [100.0] * 3
    assert Moment(0.0, "a", 701.0).age(now) == 0.0


def test_a_crash_before_a_boot_is_as_old_as_the_clock_says_and_one_of_the_future_is_none() -> None:
    """It once counted as one of now, for as long as the clock had been wrong: years."""
    now = Moment(5000.0, "b", 7.0)
    assert [Moment(at, boot, 600.0).age(now) for boot in ("a", "") for at in (4900.0, 5001.0)] == [100.0, None] * 2
    assert Moment(4900.0, "", 0.0).age(Moment(5000.0, "", 0.0)) == 100.0, "a host that does not name its boots"


def test_the_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "restarts").mkdir()
    (tmp_path / "restarts" / "w.json").write_text(json.dumps([time.time() + 9999, time.time() - 100]))
    log = CrashLog(tmp_path, "w", lambda _: None)
    assert [round(age, -1) for age in log.ages()] == [100]
    log.add()
    assert [round(age, -1) for age in log.ages()] == [100, 0]


def test_a_folder_that_cannot_be_written_is_told_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "restarts").write_text("a file in the way")
    warnings: list[str] = []
    CrashLog(tmp_path, "w", warnings.append).add()
    assert len(warnings) == 1
    assert "cannot be counted beyond this run" in warnings[0]
