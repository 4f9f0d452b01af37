"""Strategy files: every shipped one loads and renders, every mistake is named with its file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolaunch import ladder
from autolaunch.arguments import engine_options, given
from autolaunch.case import Limits
from autolaunch.climb import Exhausted, Step, begin
from autolaunch.errors import StrategyError
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation, Variant
from autolaunch.failure import MEMORY_KINDS, Failure, Kind
from autolaunch.figures import Effective
from autolaunch.settings import AUTO, Settings, render
from autolaunch.strategy import (
    QUANTIZE_METHODS,
    Rung,
    Strategy,
    load_strategy,
    parse_strategy,
    shipped_strategies,
    strategies_folder,
)

FILES = sorted(strategies_folder().glob("*.toml"))
SITUATION = Situation(
    Device(DeviceKind.CUDA, "card", 24 * GIB, 24 * GIB, (8, 9)),
    Engine("0.24.0", DeviceKind.CUDA, has_bitsandbytes=True),
    Model(131072, None, (Variant("org/awq", "awq"),)),
)
KV = {"needed_kv_gib": 5.0, "available_kv_gib": 0.02, "max_seq_len": 131072, "estimated_max_len": 512}


def climb_down(strategy: Strategy, kind: Kind) -> list[Step]:
    """Return every step a ladder takes for one failure that never goes away."""
    climb = begin(strategy, Limits(gpus=2), Settings(), pins=frozenset(), situation=SITUATION)
    steps: list[Step] = []
    while True:
        numbers = {Kind.KV_TOO_SMALL: KV, Kind.SEQS_TOO_MANY: {"num_seqs": 40.0}}.get(kind, {})
        answer = ladder.next_step(
            climb, Failure(kind, line="x", numbers=numbers), Effective(max_model_len=131072), SITUATION
        )
        if isinstance(answer, Exhausted):
            return steps
        steps.append(answer)
        climb = answer.climb


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_in_the_folder_is_a_strategy_and_shipped(path: Path) -> None:
    strategy = load_strategy(path.stem)
    assert strategy == load_strategy(str(path))
    assert strategy.name == path.stem
    assert path.stem in shipped_strategies()
    assert strategy.description
    assert 0 < len(strategy.description) < 120


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", Kind, ids=str)
def test_every_step_of_every_file_becomes_a_command_line_of_known_options(path: Path, kind: Kind) -> None:
    strategy = load_strategy(path.stem)
    steps = climb_down(strategy, kind)
    answered = any(kind in rung.answers for rung in strategy.rungs) or kind is Kind.PROFILING_RACE
    assert bool(steps) == answered
    for step in steps:
        argv = render(step.climb.settings, pins=frozenset())
        options = given(argv)
        assert [token for option in options for token in option.tokens] == list(argv)
        assert {option.name for option in options} <= set(engine_options().arity)
        assert all(value for option in options for value in option.values)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_shipped_ladder_answers_what_is_not_memory_with_a_memory_step(path: Path) -> None:
    for rung in load_strategy(path.stem).rungs:
        assert rung.answers - MEMORY_KINDS <= ({Kind.COMPILE_ERROR} if rung.name == "eager" else set())
        assert Kind.HOST_OOM not in rung.answers


def test_the_literal_ladder_is_the_issues_letter_by_letter() -> None:
    steps = climb_down(load_strategy("classic"), Kind.WEIGHTS_OOM)
    shown = [
        {change.name: change.after for change in step.changes if change.name != "quantization" or change.after}
        for step in steps
    ]
    assert shown == [
        *({"gpu_memory_utilization": share} for share in (0.8, 0.7, 0.6)),
        *({"max_model_len": length} for length in (65536, 32768, 16384, 8192, 4096)),
        {"enforce_eager": True},
        {"quantization": "fp8"},
        {"model": "org/awq"},
    ]
    assert load_strategy("classic").start_utilization == 0.9


def test_keep_quality_never_touches_the_weights() -> None:
    assert all(rung.name != "quantized_weights" for rung in load_strategy("keep-quality").rungs)


def test_keep_context_shortens_the_context_last() -> None:
    assert [rung.name for rung in load_strategy("keep-context").rungs][-1] == "context"


RUNG = '[[rung]]\nname = "eager"\nanswers = ["oom"]\n'


def test_a_whole_file_is_read_into_values() -> None:
    text = """
        description = "all of it"
        max_attempts = 3
        [start]
        gpu_memory_utilization = 0.8
        max_model_len = "auto"
        [[rung]]
        name = "utilization"
        answers = ["oom", "kv_none"]
        values = [0.8, 0.5]
        [[rung]]
        name = "utilization"
        answers = ["oom"]
        min = 0.1
        max = 0.5
        partial = true
        [[rung]]
        name = "context"
        answers = ["oom"]
        step = "halve"
        min = 2048
        [[rung]]
        name = "quantized_weights"
        answers = ["oom"]
    """
    oom = frozenset({Kind.OOM})
    assert parse_strategy("folder/mine.toml", text) == Strategy(
        "mine", "all of it", 3, 0.8, AUTO,
        (
            Rung("utilization", frozenset({Kind.OOM, Kind.KV_NONE}), values=(0.8, 0.5)),
            Rung("utilization", oom, min=0.1, max=0.5, partial=True),
            Rung("context", oom, min=2048, step="halve"),
            Rung("quantized_weights", oom, methods=QUANTIZE_METHODS),
        ),
    )  # fmt: skip


def test_what_a_file_leaves_out_has_its_usual_value() -> None:
    assert parse_strategy("x", RUNG) == Strategy("x", "", 8, None, None, (Rung("eager", frozenset({Kind.OOM})),))


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("rung = 3", "has no [[rung]]", "docs/strategies.md"),
        ("= 3", "is not TOML", "docs/strategies.md"),
        ("start = 3\n" + RUNG, "[start] is not a table", "docs"),
        ("max_attempt = 3\n" + RUNG, "unknown key 'max_attempt' in the file", "did you mean 'max_attempts'?"),
        ("xyz = 3\n" + RUNG, "unknown key 'xyz' in the file", "known keys: description, max_attempts, start, rung"),
        ("max_attempts = 0\n" + RUNG, "'max_attempts' is 0; it must be a whole number of at least 1", "docs"),
        ("max_attempts = true\n" + RUNG, "'max_attempts' is True; it must be a whole number", "docs"),
        ("description = 3\n" + RUNG, "'description' is 3; it must be a text", "docs"),
        ("[start]\ngpu_memory = 1\n" + RUNG, "unknown key 'gpu_memory' in [start]",
         "did you mean 'gpu_memory_utilization'?"),
        ("[start]\ngpu_memory_utilization = 1.5\n" + RUNG,
         "'gpu_memory_utilization' of [start] is 1.5; it must be a share of memory above 0 and at most 1, or \"free\"",
         "docs"),
        ("[start]\ngpu_memory_utilization = nan\n" + RUNG, "'gpu_memory_utilization' of [start] is nan", "docs"),
        ("[start]\nmax_model_len = 'long'\n" + RUNG,
         "'max_model_len' of [start] is 'long'; it must be a whole number of at least 1, or \"auto\"", "docs"),
        ("[[rung]]\nname = 'utilisation'\nanswers = ['oom']", "'name' of [[rung]] number 1 is 'utilisation'",
         "did you mean 'utilization'?"),
        ("[[rung]]\nanswers = ['oom']", "'name' of [[rung]] number 1 is None", ""),
        ("[[rung]]\nname = 'eager'", "'answers' of rung 'eager' is None; it must be a list", "docs"),
        ("[[rung]]\nname = 'eager'\nanswers = []", "'answers' of rung 'eager' is []; it must be a list", "docs"),
        ("[[rung]]\nname = 'eager'\nanswers = ['kv_nine']", "an entry of 'answers' of rung 'eager' is 'kv_nine'",
         "did you mean 'kv_none'?"),
        ("[[rung]]\nname = 'eager'\nanswers = ['ok']", "an entry of 'answers' of rung 'eager' is 'ok'", ""),
        (RUNG + "min = 1", "unknown key 'min' in rung 'eager'", "known keys: name, answers"),
        ("[[rung]]\nname='utilization'\nanswers=['oom']\nvalues=[0.5,0.8]",
         "'values' of rung 'utilization' must fall strictly: [0.5, 0.8]", "docs"),
        ("[[rung]]\nname='utilization'\nanswers=['oom']\nmin=0.9\nmax=0.5",
         "'min' 0.9 of rung 'utilization' is above its 'max' 0.5", "docs"),
        ("[[rung]]\nname='utilization'\nanswers=['oom']\npartial='yes'",
         "'partial' of rung 'utilization' is 'yes'; it must be true or false", "docs"),
        ("[[rung]]\nname='context'\nanswers=['oom']\nmin=0.5",
         "'min' of rung 'context' is 0.5; it must be a whole number", "docs"),
        ("[[rung]]\nname='context'\nanswers=['oom']\nstep='third'", "'step' of rung 'context' is 'third'", ""),
        ("[[rung]]\nname='quantized_weights'\nanswers=['oom']\nmethods=['fp4']",
         "an entry of 'methods' of rung 'quantized_weights' is 'fp4'", "did you mean 'fp8'?"),
    ],
)  # fmt: skip
def test_every_mistake_names_file_key_and_the_nearest_known_one(text: str, what: str, hint: str) -> None:
    with pytest.raises(StrategyError) as caught:
        parse_strategy("mine.toml", text)
    assert caught.value.what.startswith(f"strategy mine.toml: {what}")
    assert hint in caught.value.hint


def test_an_unknown_strategy_names_the_nearest_and_all() -> None:
    with pytest.raises(StrategyError) as caught:
        load_strategy("clasic")
    assert caught.value.what == "there is no strategy named 'clasic'"
    assert caught.value.hint.startswith("did you mean 'classic'? shipped: classic, default, keep-context, keep-quality")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"mine\.toml cannot be read"):
        load_strategy(str(tmp_path / "mine.toml"))
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StrategyError, match=r"bad\.toml cannot be read"):
        load_strategy(str(tmp_path / "bad.toml"))
