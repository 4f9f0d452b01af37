"""What an end means, and whose fault it is."""

from __future__ import annotations

import pytest

from autolaunch.errors import ExitCode
from autolaunch.failure import MEMORY_KINDS, Failure, Kind, Phase
from autolaunch.figures import Effective
from autolaunch.verdict import died_in_service, early_exit, exit_code_of, summary


@pytest.mark.parametrize("kind", Kind)
def test_an_exit_with_a_known_cause_keeps_it(kind: Kind) -> None:
    failure = Failure(kind, line="the cause")
    if kind in (Kind.OK, Kind.UNKNOWN):
        assert early_exit(failure, 1) == Failure(Kind.UNKNOWN, line="the cause")
        assert died_in_service(failure, -9) == Failure(
            Kind.UNKNOWN, line="the engine exited with -9 in service and named no cause", phase=Phase.SERVING
        )
    else:
        assert early_exit(failure, 1) == died_in_service(failure, 1) == failure


@pytest.mark.parametrize(
    ("failure", "words", "code"),
    [
        *((Failure(kind), (), ExitCode.NOTHING_FITS) for kind in sorted(MEMORY_KINDS)),
        (Failure(Kind.PORT_IN_USE), (), ExitCode.HOST_AT_FAULT),
        (Failure(Kind.MODEL_NOT_FOUND), (), ExitCode.USAGE),
        (Failure(Kind.CONFIG_ERROR, line="max_model_len (9) is too long"), ("max-model-len",), ExitCode.USAGE),
        (Failure(Kind.CONFIG_ERROR, line="argument --dtype: invalid"), ("dtype",), ExitCode.USAGE),
        (Failure(Kind.CONFIG_ERROR, line="argument --dtype: invalid"), ("type", "seed"), ExitCode.ENGINE_FAILED),
        (Failure(Kind.CONFIG_ERROR, line="no such thing"), (), ExitCode.ENGINE_FAILED),
        (Failure(Kind.OTHER_CRASH, line="--dtype"), ("dtype",), ExitCode.ENGINE_FAILED),
    ],
)
def test_a_failure_without_a_cure_has_its_exit_code(failure: Failure, words: tuple[str, ...], code: ExitCode) -> None:
    assert exit_code_of(failure, words) is code


def test_a_summary_holds_what_was_said_and_nothing_else() -> None:
    said = Effective(max_model_len=8192, weights_gib=17.56, cudagraph_gib=0.5)
    assert summary(said) == {"max_model_len": 8192, "weights_gib": 17.56}
