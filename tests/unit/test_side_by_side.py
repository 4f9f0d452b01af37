"""Two spellings of one thing beside each other: said once, or refused."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from autolaunch.arguments import given
from autolaunch.engine_changes import changes
from autolaunch.releases import releases
from autolaunch.side_by_side import Beside, beside, without
from tests.unit.test_translation import refusal, said, tokens


@pytest.mark.parametrize(
    ("typed", "version", "keep", "drop"),
    [
        ("--worker-use-ray --distributed-executor-backend mp", "0.24.0", 1, 0),
        ("--disable-log-requests --enable-log-requests", "0.24.0", 1, 0),
        ("--override-pooler-config={} --pooler-config={1}", "0.24.0", 1, 0),
        ("--task=embed --runner=generate", "0.32.0", 1, 0),
        ("--task=transcription --runner=pooling", "0.32.0", 1, 0),
        ("--enable-mamba-fine-grained-prefix-cache --no-enable-mamba-shared-prefix-checkpoint", "0.32.0", 1, 0),
        ("--enable-mamba-shared-prefix-checkpoint --no-enable-mamba-fine-grained-prefix-cache", "0.32.0", 0, 1),
        ("--expand-tools-even-if-tool-choice-none --exclude-tools-when-tool-choice-none", "0.32.0", 1, 0),
        ("--guided-decoding-backend=xgrammar --structured-outputs-config={}", "0.32.0", 1, 0),
        ("--guided-decoding-backend=xgrammar --structured-outputs-config.backend=auto", "0.32.0", 1, 0),
        ("--no-disable-mm-preprocessor-cache --mm-processor-cache-gb=0", "0.32.0", 1, 0),
        ("--enable-log-requests --disable-log-requests", "0.8.5", 1, 0),
    ],
)
def test_an_old_option_that_contradicts_its_new_spelling_is_refused(
    typed: str, version: str, keep: int, drop: int
) -> None:
    words = [" ".join(option.tokens) for option in given(shlex.split(typed))]
    what, hint = refusal(typed, version)
    assert what.startswith(f"vLLM {version} has no {words[drop].split('=')[0].replace('--no-', '--')} ")
    assert what.endswith(f", and {words[keep]} beside it says otherwise")
    assert hint == f"keep {words[keep]}, drop {words[drop]}"


@pytest.mark.parametrize(
    ("typed", "version"),
    [
        ("--worker-use-ray --distributed-executor-backend=mp", "0.4.1"),
        ("--worker-use-ray --distributed-executor-backend=mp", "0.6.3"),
        ("--disable-log-requests --enable-log-requests", "0.11.0"),
        ("--no-disable-log-requests --no-enable-log-requests", "0.11.0"),
        ("--task=embed --runner=generate", "0.12.0"),
        ("--override-pooler-config={} --pooler-config={1}", "0.11.2"),
        ("--max-context-len-to-capture=1 --max-seq-len-to-capture=2", "0.6.3"),
    ],
)
def test_two_spellings_that_contradict_each_other_are_refused_by_a_release_that_takes_both(
    typed: str, version: str
) -> None:
    old, new = typed.split(" ")
    assert refusal(typed, version) == (f"{old} and {new} contradict each other", f"keep {new}, drop {old}")


def test_what_is_said_twice_in_two_spellings_is_said_once() -> None:
    assert said("--worker-use-ray --distributed-executor-backend ray", "0.24.0") == (
        "vLLM 0.24.0 has no --worker-use-ray any more (it went with 0.7.0): --worker-use-ray is left out, "
        "--distributed-executor-backend ray says the same",
    )


def test_of_an_option_that_is_given_twice_the_last_one_counts() -> None:
    typed = "--worker-use-ray --distributed-executor-backend mp --distributed-executor-backend ray"
    assert tokens(typed, "0.32.0") == typed.removeprefix("--worker-use-ray ")


# --- the comparison itself


def compare(old: str, others: str) -> Beside:
    (option,) = given(shlex.split(old))
    return beside(changes()[0][option.name.removeprefix("no-")], option, given(shlex.split(others)))


def test_what_is_beside_is_the_same_or_opposed_or_neither() -> None:
    (other,) = given(["--distributed-executor-backend", "mp"])
    assert compare("--worker-use-ray", "--distributed-executor-backend mp") == Beside(opposed=other)
    assert compare("--worker-use-ray", "--seed 1") == Beside()
    assert compare("--worker-use-ray=false", "--distributed-executor-backend mp") == Beside()
    assert compare("--disable-log-requests", "--no-enable-log-requests").same == given(["--no-enable-log-requests"])
    assert compare("--guided-decoding-backend a", "--structured-outputs-config.disable_any_whitespace true") == Beside()
    assert compare("--rope-theta 1", "--hf-overrides {}") == Beside()


def test_words_that_are_said_already_are_not_said_again() -> None:
    words = ("--runner", "pooling", "--convert", "embed")
    assert without(words, given(["--runner", "pooling"])) == ("--convert", "embed")
    assert without(words, ()) == words


@for_all(
    st.sampled_from(sorted(changes()[0])), st.sampled_from(["", "no-"]), st.sampled_from(["auto", "embed", "xgrammar"])
)
def test_an_option_agrees_with_the_words_that_take_its_place(name: str, no: str, value: str) -> None:
    change = changes()[0][name]
    flag = name in releases().switches or name in releases().twins
    typed = (f"--{no}{name}",) if flag else (f"--{name}", value)
    (option,) = given(typed)
    words = change.words(option, None if not flag else not no)
    found = beside(change, option, given(words or ()))
    assert found.opposed is None
    assert without(words or (), found.same) == ()
