"""The package as Python code sees it: cheap to import, typed, and the same answers as the commands give."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

import autolaunch
from autolaunch.cli import cli
from autolaunch.errors import ExitCode
from autolaunch.heard import Seen, advice_of, after, failed
from autolaunch.server import LaunchError, Server
from autolaunch.server_async import AsyncServer

RTX = {"gpu": "RTX 4090", "engine_version": "0.24.0"}


def test_the_import_of_the_package_brings_nothing_with_it() -> None:
    code = "import sys, typing; before = set(sys.modules); import autolaunch; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {
        "autolaunch",
        "__future__",
        "importlib",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
    }


def test_every_public_name_is_there_and_nothing_else() -> None:
    for name in autolaunch.__all__:
        assert getattr(autolaunch, name) is not None
        assert name in dir(autolaunch)
    with pytest.raises(AttributeError, match="module 'autolaunch' has no attribute 'lunch'"):
        _ = autolaunch.lunch


def test_a_module_never_takes_the_place_of_a_function() -> None:
    code = "import autolaunch, autolaunch.cli, autolaunch.serving; print(autolaunch.plan, autolaunch.diagnose)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("<function ") == 2


def test_a_plan_is_what_the_command_prints() -> None:
    made = autolaunch.plan("glm-4-9b", max_model_len=32768, **RTX)
    words = [
        "plan",
        "glm-4-9b",
        "--gpu",
        "RTX 4090",
        "--engine-version",
        "0.24.0",
        "--max-model-len",
        "32768",
        "--json",
    ]
    printed = json.loads(CliRunner().invoke(cli, words).stdout)
    assert (made.fits, dict(made.settings), list(made.argv)) == (True, printed["settings"], printed["argv"])
    assert (dict(made.budget), dict(made.basis), list(made.why)) == (
        printed["budget"],
        printed["basis"],
        printed["why"],
    )


def test_a_plan_that_fits_nowhere_says_what_would_help() -> None:
    made = autolaunch.plan("glm-4-9b", gpu_memory_total="8GiB", engine_version="0.24.0", min_context=100_000)
    assert made.fits is False
    assert made.closest


@pytest.mark.parametrize("options", [{"gpu": "no such card"}, {"memory": "much"}, {"max_contxt": 1}])
def test_what_cannot_be_read_is_a_wish_error(options: dict[str, str]) -> None:
    with pytest.raises(autolaunch.WishError) as caught:
        autolaunch.plan("glm-4-9b", **options)
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_diagnosis_is_the_contracts() -> None:
    text = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    made = autolaunch.diagnose(text)
    assert (made.kind, made.memory, made.line, made.line_number) == ("oom", True, text, 1)
    assert dict(made.numbers) == {"tried_to_allocate_mib": 2048.0}
    assert made.advice


# --- what the record says


def attempt(n: int) -> dict[str, object]:
    return {
        "event": "attempt",
        "n": n,
        "rung": "start",
        "settings": {"max_model_len": 1},
        "argv": ["x", "--model", "m"],
    }


def test_a_record_is_followed_from_the_first_attempt_to_a_crash_and_back() -> None:
    ready = {"event": "ready", "n": 2, "seconds": 5.0, "settings": {}, "effective": {}, "url": "http://h:1"}
    told = {"event": "failed", "n": 1, "seconds": 3.0, "failure": {"kind": "kv_none", "line": "none", "numbers": {}}}
    told["hints"] = []
    seen = Seen()
    for event in (attempt(1), told, {"event": "step"}, attempt(2), ready):
        seen = after(seen, event)
    assert [(one.n, one.came_up, one.seconds, one.failure) for one in seen.attempts] == [
        (1, False, 3.0, "kv_none"),
        (2, True, 5.0, ""),
    ]
    assert (seen.model, seen.is_up) == ("m", True)
    assert not after(seen, {"event": "crashed"}).is_up


def test_a_failed_start_brings_its_advice_and_a_ladders_end_its_own() -> None:
    failure = {"kind": "model_not_found", "line": "no such model", "numbers": {}}
    told = {"event": "failed", "n": 1, "seconds": 3.0, "failure": failure, "hints": ["check the name", "and HF_TOKEN"]}
    started = after(Seen(), attempt(1))
    assert (failed(started), advice_of(started)) == (False, "")
    seen = after(started, told)
    assert (failed(seen), advice_of(seen)) == (True, "check the name; and HF_TOKEN")
    assert seen.attempts[0].hints == ("check the name", "and HF_TOKEN")
    ended = after(seen, {"event": "exhausted", "why": "w", "closest": ["less"]})
    assert advice_of(ended) == "less"
    assert advice_of(after(Seen(), {"event": "refused", "what": "w", "hint": "h", "exit_code": 2})) == "h"


def test_the_twin_for_asyncio_has_every_name_of_the_server() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    twin = AsyncServer(cast(Server, SimpleNamespace(ready=True, effective={"a": 1}, exit_code=None, pid=7)))
    assert names(AsyncServer) == names(Server) - {"await_ready"}
    assert (twin.ready, twin.effective, twin.exit_code, twin.pid) == (True, {"a": 1}, None, 7)


# --- what is refused before anything is started


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({"environment": {"CUDA_VISIBLE_DEVICES": 0}}, "environment: 'CUDA_VISIBLE_DEVICES' is 0",
         'variables are texts: {"CUDA_VISIBLE_DEVICES": "0"}'),
        ({"environment": {"X": None}}, "environment: 'X' is None",
         "a variable cannot be taken away here: delete it from os.environ"),
        ({"environment": {"X": [0, 1]}}, "environment: 'X' is [0, 1]", 'variables are texts: {"X": "[0, 1]"}'),
        ({"environment": ["X=1"]}, "environment is a list", 'write {"NAME": "value"}'),
        ({"environment": {"A=B": "1"}}, "environment: 'A=B' can be no variable",
         "it has a name without = and no NUL in it"),
        ({"drain_timeout": "abc"}, "drain_timeout is 'abc', not a number of seconds", "for example drain_timeout=30"),
        ({"drain_timeout": [1]}, "drain_timeout is [1], not a number of seconds", "for example drain_timeout=30"),
        ({"drain_timeout": float("inf")}, "drain_timeout is inf, not a number of seconds",
         "for example drain_timeout=30"),
        ({"progress": "print"}, "progress is 'print', which cannot be called", "for example progress=print"),
        ({"model": "THUDM/glm-4-9b-chat"}, "two models are named: glm-4-9b and model='THUDM/glm-4-9b-chat'",
         "name the model once"),
        ({"seed": "\0"}, "the options cannot be given to a process: embedded null byte", "see the text for it"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_to_a_launch_is_a_wish_error(options: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(autolaunch.WishError) as caught:
        autolaunch.launch("glm-4-9b", **options)
    assert (caught.value.what, caught.value.hint) == (what, hint)


def test_a_plan_of_two_models_is_refused_too() -> None:
    with pytest.raises(autolaunch.WishError, match="two models are named"):
        autolaunch.plan("glm-4-9b", model="qwen3-8b", **RTX)


def test_an_error_says_why_and_keeps_the_attempts() -> None:
    error = LaunchError("nothing fits", hint="a smaller context", exit_code=3, attempts=())
    assert (error.exit_code, error.hint, error.attempts) == (ExitCode.NOTHING_FITS, "a smaller context", ())
