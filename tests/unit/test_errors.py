"""Errors say whose fault it is, and the Contract's exit code with it."""

from __future__ import annotations

import pytest

from autolaunch.errors import AutolaunchError, ExitCode, HostError, StrategyError, WishError


@pytest.mark.parametrize(
    ("kind", "code"),
    [(WishError, 2), (StrategyError, 2), (HostError, 5), (AutolaunchError, 4)],
)
def test_an_error_carries_its_words_and_its_exit_code(kind: type[AutolaunchError], code: int) -> None:
    error = kind("what happened", hint="do this")
    assert (str(error), error.what, error.hint, int(error.exit_code)) == (
        "what happened", "what happened", "do this", code,
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
