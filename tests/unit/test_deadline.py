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
    answers = iter(lambda: guard.within(PATIENT_S, lambda: 42), 42)
    assert list(answers) in ([], [None]), "it answers again, at the latest when the thread has ended"


def test_calls_of_two_threads_come_one_after_the_other() -> None:
    guard, running, most = OneAtATime("test"), [0], [0]

    def count() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        threading.Event().wait(0.02)
        running[0] -= 1

    threads = [threading.Thread(target=guard.within, args=(PATIENT_S, count)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT_S)
    assert (running, most) == ([0], [1])
