"""What an end means, and whose fault it is."""

from __future__ import annotations

import pytest

from autolaunch.arguments import given
from autolaunch.errors import ExitCode
from autolaunch.failure import MEMORY_KINDS, Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.verdict import died_in_service, early_exit, ended, exit_code_of, summary


def test_a_signal_alone_is_named_in_the_line() -> None:
    """SIGSEGV in service was told as other_crash, and nothing behind it."""
    crash = Failure(Kind.OTHER_CRASH, phase=Phase.SERVING)
    assert died_in_service(crash, -11).line == "the engine was killed by SIGSEGV"
    assert early_exit(Failure(Kind.HOST_OOM), -9).line == "the engine was killed by SIGKILL"
    assert early_exit(Failure(Kind.OTHER_CRASH, line="its own"), -11).line == "its own"


@pytest.mark.parametrize("kind", Kind)
def test_an_exit_with_a_known_cause_keeps_it(kind: Kind) -> None:
    failure = Failure(kind, line="the cause")
    if kind in (Kind.OK, Kind.UNKNOWN):
        assert early_exit(failure, 1) == Failure(Kind.UNKNOWN, line="the cause")
        assert died_in_service(failure, -9) == Failure(
            Kind.UNKNOWN, line="the engine was killed by SIGKILL in service and named no cause", phase=Phase.SERVING
        )
    elif kind is Kind.HOST_OOM:
        assert early_exit(failure, -9) == failure
    else:
        assert early_exit(failure, 1) == died_in_service(failure, 1) == failure


def test_a_served_engine_that_was_killed_is_a_crash_and_not_the_end_of_the_run() -> None:
    """kill -9 of a serving engine, or the kernel's doing, once ended the run with 3: nothing fits."""
    killed = died_in_service(Failure(Kind.HOST_OOM), -9)
    assert (killed.kind, killed.memory) == (Kind.OTHER_CRASH, False)
    assert killed.line == "the engine was killed or the host's memory ran out: it was killed by SIGKILL"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "exited with 0"),
        (1, "exited with 1"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
        (137, "exited with 137 (SIGKILL)"),
        (143, "exited with 143 (SIGTERM)"),
        (128, "exited with 128"),
    ],
)
def test_a_signal_is_called_by_its_name(code: int, said: str) -> None:
    assert ended(code) == said


@pytest.mark.parametrize(
    ("failure", "words", "code"),
    [
        *((Failure(kind), (), ExitCode.NOTHING_FITS) for kind in sorted(MEMORY_KINDS)),
        (Failure(Kind.PORT_IN_USE), (), ExitCode.HOST_AT_FAULT),
        (Failure(Kind.MODEL_NOT_FOUND), (), ExitCode.USAGE),
        (Failure(Kind.CONFIG_ERROR, line="no such thing"), (), ExitCode.ENGINE_FAILED),
        (Failure(Kind.OTHER_CRASH, line="--dtype"), ("--dtype", "x"), ExitCode.ENGINE_FAILED),
    ],
)
def test_a_failure_without_a_cure_has_its_exit_code(failure: Failure, words: tuple[str, ...], code: ExitCode) -> None:
    assert exit_code_of(failure, given(words)) is code


@pytest.mark.parametrize(
    ("typed", "line", "users"),
    [
        ("--max-model-len 9", "max_model_len (9) is too long", True),
        ("--max-model 999999", "User-specified max_model_len (999999) is greater than the derived", True),
        ("--dtype x", "argument --dtype: invalid choice: 'x'", True),
        ("--type x --seed 1", "argument --dtype: invalid", False),
        ("-q foo", "ValueError: Unknown quantization method: foo. Must be one of ['awq', 'fp8'].", True),
        ("-q foo", "Unknown quantization method: foo", True),
        ("-q foo", "the quantization of this model needs foo-bar", False),
        ("-tp 3", "Total number of attention heads (32) must be divisible by tensor parallel size (3).", True),
        ("-tp 3", "argument --tensor-parallel-size/-tp: invalid int value: '3'", True),
        ("--config my.yaml", "the model's config has no field rope_type", False),
        ("--host ::1 --port 80", "the host has no port of this kind", False),
        ("--seed 1", "Input should be a valid integer for `seed`", True),
        ("--enforce-eager", "enforce_eager is not supported here", True),
        ("--trust-remote-code", "tensor parallel size must be at least 1", False),
    ],
)
def test_a_configuration_error_is_the_users_where_it_names_what_they_typed(typed: str, line: str, users: bool) -> None:
    """`-q foo` and `-tp 3` ended with 4; "config", "host" and "port" in any sentence ended with 2."""
    code = exit_code_of(Failure(Kind.CONFIG_ERROR, line=line), given(typed.split()))
    assert code is (ExitCode.USAGE if users else ExitCode.ENGINE_FAILED)


def test_a_summary_holds_what_was_said_and_nothing_else() -> None:
    said = Effective(max_model_len=8192, weights_gib=17.56, cudagraph_gib=0.5, activation_gib=1.2, free_gib=3.0)
    assert summary(said) == {"max_model_len": 8192, "weights_gib": 17.56, "cudagraph_gib": 0.5}
