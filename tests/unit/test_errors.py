"""Errors say whose fault it is, and the Contract's exit code with it."""

from __future__ import annotations

import errno
import threading

import pytest

from autolaunch.errors import AutolaunchError, ExitCode, HostError, StrategyError, WishError, shortage


@pytest.mark.parametrize(
    ("kind", "code"),
    [(WishError, 2), (StrategyError, 2), (HostError, 5), (AutolaunchError, 4)],
)
def test_an_error_carries_its_words_and_its_exit_code(kind: type[AutolaunchError], code: int) -> None:
    error = kind("what happened", hint="do this")
    assert (str(error), error.what, error.hint, int(error.exit_code)) == (
        "what happened\nhint: do this", "what happened", "do this", code,
    )  # fmt: skip


def test_the_exit_codes_are_the_contracts() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "STOPPED": 0,
        "USAGE": 2,
        "NOTHING_FITS": 3,
        "ENGINE_FAILED": 4,
        "HOST_AT_FAULT": 5,
        "RESTARTS_SPENT": 6,
    }


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "autolaunch is short of memory"),
        (OSError(errno.EMFILE, "many"), "autolaunch is short of file descriptors: too many are open"),
        (RuntimeError("can't start new thread"), "autolaunch is short of threads or memory: no thread can be started"),
        (ImportError("libssl.so.3: failed to map segment from shared object"), "autolaunch is short of memory"),
        (RuntimeError("another"), ""),
        (ImportError("no module named x"), ""),
        (OSError(errno.ENOENT, "none"), ""),
        (OSError("without a number"), ""),
        (ValueError(), ""),
    ],
)
def test_a_shortage_of_this_process_is_told_from_every_other_error(error: Exception, words: str) -> None:
    assert shortage(error) == words


def test_python_says_it_so_when_no_thread_can_be_started() -> None:
    before = threading.stack_size(1 << 44)  # more than there is
    try:
        with pytest.raises(RuntimeError) as raised:
            threading.Thread(target=int).start()
    finally:
        threading.stack_size(before)
    assert shortage(raised.value)
