"""Calls that may hang: nobody waits longer than was said, and nobody waits twice."""

from __future__ import annotations

import threading
import time

import pytest

from autolaunch.deadline import OneAtATime

PATIENT_S = 30.0


def test_an_answer_in_time_is_given() -> None:
    assert OneAtATime("test").within(PATIENT_S, lambda: 42) == 42


def test_an_error_is_raised_where_it_was_waited_for_and_the_next_call_runs() -> None:
    guard = OneAtATime("test")
    with pytest.raises(ZeroDivisionError):
        guard.within(PATIENT_S, lambda: 1 // 0)
    assert guard.within(PATIENT_S, lambda: 42) == 42


def test_a_call_that_hangs_is_left_and_while_it_hangs_nobody_waits_again() -> None:
    guard, release, ended = OneAtATime("test"), threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(PATIENT_S)
        ended.set()

    assert guard.within(0.05, hang) is None
    begun = time.monotonic()
    assert guard.within(PATIENT_S, lambda: 42) is None
    assert time.monotonic() - begun < PATIENT_S / 2, "not waited for"
    release.set()
    assert ended.wait(PATIENT_S)
    while guard.within(PATIENT_S, lambda: 42) != 42:
        assert time.monotonic() - begun < PATIENT_S, "it answers again once the thread has ended"
    assert together(guard) == [1] * 5, "and waits again for a call that is under way"


def together(guard: OneAtATime) -> list[int]:
    """Make five calls from five threads; return how many ran at the same time, as each of them saw it."""
    running, seen = [0], []

    def count() -> int:
        running[0] += 1
        threading.Event().wait(0.02)
        most = running[0]
        running[0] -= 1
        return most

    threads = [threading.Thread(target=lambda: seen.append(guard.within(PATIENT_S, count))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT_S)
    return [most or 0 for most in seen]


def test_calls_of_several_threads_come_one_after_the_other() -> None:
    assert together(OneAtATime("test")) == [1] * 5
