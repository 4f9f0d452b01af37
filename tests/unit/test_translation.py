"""What becomes of options that the engine at hand does not take."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from autolaunch.arguments import engine_options, given
from autolaunch.errors import WishError
from autolaunch.releases import parse_version, releases
from autolaunch.translation import Translated, changes, translate, unrecognized

VERSIONS = ("0.4.3", "0.6.3", "0.8.5", "0.9.2", "0.11.0", "0.14.1", "0.24.0", "0.32.0", "0.33.0")

SNIPPET = (
    "--tokenizer zai-org/glm-4-9b-chat --tensor-parallel-size 1 --dtype bfloat16 --trust-remote-code "
    "--gpu-memory-utilization 0.9 --enforce-eager --worker-use-ray --engine-use-ray --disable-log-requests "
    "--max-model-len 8192 --enable-chunked-prefill"
)


def tokens(text: str, version: str | None) -> str:
    return shlex.join(translate(shlex.split(text), version=version).tokens)


def said(text: str, version: str) -> tuple[str, ...]:
    return translate(shlex.split(text), version=version).said


def refusal(text: str, version: str) -> tuple[str, str | None]:
    with pytest.raises(WishError) as caught:
        translate(shlex.split(text), version=version)
    return caught.value.what, caught.value.hint


# --- what holds on every release


@pytest.mark.parametrize("version", VERSIONS)
def test_the_snippet_that_everybody_copied_is_taken_by_every_release(version: str) -> None:
    release = parse_version(version) or pytest.fail(version)
    made = translate(shlex.split(SNIPPET), version=version)
    strange = {o.name for o in given(made.tokens) if not releases().options[o.name].holds(release)}
    assert strange == set()


def test_an_unknown_release_gets_the_users_words() -> None:
    assert translate(shlex.split(SNIPPET), version=None).tokens == tuple(shlex.split(SNIPPET))
    assert translate(shlex.split(SNIPPET), version="of mine").said == ()


def test_what_a_release_takes_is_left_as_it_was_typed() -> None:
    typed = "-tp 2 --max_model_len=8192 --enforce-eager --api-key a b -O3 --compilation-config.mode 3"
    for version in VERSIONS:
        assert translate(shlex.split(typed), version=version) == translate(shlex.split(typed), version=None)


def test_every_option_that_went_has_its_change_and_every_change_its_option() -> None:
    gone, not_yet = changes()
    assert set(gone) == {name for name, span in releases().options.items() if span.gone}
    assert set(not_yet) <= set(releases().options)


def test_the_new_words_are_options_of_some_release() -> None:
    gone, not_yet = changes()
    words = [
        word
        for change in (*gone.values(), *not_yet.values())
        for some in (change.becomes, change.off, *change.by_value.values())
        for word in some
        if word.startswith("--")
    ]
    assert words
    assert {word[2:].split(".")[0] for word in words} <= set(releases().options)
    assert {name for change in gone.values() for name in change.against} <= set(engine_options().arity)


@for_all(
    st.lists(st.sampled_from(sorted(releases().options)), max_size=4, unique=True),
    st.sampled_from(VERSIONS),
    st.sampled_from(["", "=true", "=false", "no"]),
)
def test_what_is_translated_is_taken_and_translating_it_again_changes_nothing(
    names: list[str], version: str, state: str
) -> None:
    release = parse_version(version) or pytest.fail(version)
    arity = engine_options().arity
    typed: list[str] = []
    for name in names:
        flag = arity[name].value in ("none", "switch")
        typed += [f"--no-{name}" if flag and state == "no" else f"--{name}{state if flag and state != 'no' else ''}"]
        typed += [] if flag else ["auto"]
    try:
        made = translate(typed, version=version)
    except WishError as error:
        made = Translated((), (error.hint or "",))
        assert made.said != ("",)
    assert translate(made.tokens, version=version).tokens == made.tokens
    for option in given(made.tokens):
        name = option.name.removeprefix("no-") if option.name not in releases().options else option.name
        assert releases().options[name].holds(release)


# --- left out, written anew, refused


def test_what_changes_nothing_is_left_out_and_said() -> None:
    assert tokens("--swap-space 4 --seed 1", "0.32.0") == "--seed 1"
    assert said("--swap-space 4", "0.32.0") == (
        "vLLM 0.32.0 has no --swap-space any more (it went with 0.18.0): --swap-space 4 is left out, "
        "preempted requests are recomputed, not swapped to the host",
    )
    assert tokens("--swap-space 4", "0.17.1") == "--swap-space 4"


@pytest.mark.parametrize(
    ("typed", "version", "made"),
    [
        ("--worker-use-ray", "0.7.0", "--distributed-executor-backend ray"),
        ("--worker-use-ray", "0.6.6", "--worker-use-ray"),
        ("--worker-use-ray=False", "0.32.0", ""),
        ("--distributed-executor-backend ray", "0.4.2", "--worker-use-ray"),
        ("--distributed-executor-backend mp", "0.4.2", ""),
        ("--task embed", "0.32.0", "--runner pooling --convert embed"),
        ("--task auto", "0.32.0", ""),
        ("--cuda-graph-sizes 1 2 4", "0.24.0", "--cudagraph-capture-sizes 1 2 4"),
        ("--cudagraph-capture-sizes 1 2 4", "0.9.2", "--cuda-graph-sizes 1 2 4"),
        ("--guided-decoding-backend xgrammar", "0.24.0", "--structured-outputs-config.backend xgrammar"),
        ("--override-pooler-config {}", "0.24.0", "--pooler-config '{}'"),
        ("--disable-mm-preprocessor-cache", "0.24.0", "--mm-processor-cache-gb 0"),
        ("--no-disable-log-requests", "0.24.0", "--enable-log-requests"),
        ("--enable-log-requests", "0.8.5", ""),
        ("--disable-log-requests --no-enable-log-requests", "0.24.0", "--no-enable-log-requests"),
        ("--no-enable-log-requests", "0.8.5", "--disable-log-requests"),
        ("--max-seq-len-to-capture 4096", "0.4.1", "--max-context-len-to-capture 4096"),
        ("--max-seq-len-to-capture 4096", "0.24.0", ""),
    ],
)
def test_the_same_is_said_in_the_words_of_the_release(typed: str, version: str, made: str) -> None:
    assert tokens(typed, version) == made


@pytest.mark.parametrize(
    ("typed", "version", "hint"),
    [
        ("--rope-scaling {}", "0.24.0", "write instead: --hf-overrides '{\"rope_parameters\": {}}'"),
        ("--speculative-model tiny", "0.24.0", 'write instead: --speculative-config \'{"model": "tiny"'),
        ("--task score", "0.24.0", "leave it out"),
        ("--async-scheduling", "0.8.5", "leave it out, or use a vLLM from 0.10.0 on"),
        ("--cudagraph-capture-sizes 1 2", "0.8.5", "leave it out, or use a vLLM from"),
    ],
)
def test_what_cannot_be_said_is_refused_with_what_to_write(typed: str, version: str, hint: str) -> None:
    what, why = refusal(typed, version)
    assert what.startswith(f"vLLM {version} has no {typed.split(maxsplit=1)[0]} ")
    assert (why or "").startswith(hint)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (
            "--worker-use-ray --distributed-executor-backend mp",
            "keep --distributed-executor-backend, drop --worker-use-ray",
        ),
        ("--disable-log-requests --enable-log-requests", "keep --enable-log-requests, drop --disable-log-requests"),
        ("--override-pooler-config {} --pooler-config {}", "keep --pooler-config, drop --override-pooler-config {}"),
    ],
)
def test_an_old_option_beside_its_new_spelling_is_refused(typed: str, hint: str) -> None:
    assert refusal(typed, "0.24.0")[1] == hint


# --- flags, which were written in three ways


@pytest.mark.parametrize(
    ("typed", "version", "made"),
    [
        ("--enable-chunked-prefill False", "0.4.3", ""),
        ("--enable-chunked-prefill False", "0.6.3", "--enable-chunked-prefill False"),
        ("--enable-chunked-prefill False", "0.32.0", "--no-enable-chunked-prefill"),
        ("--enable-chunked-prefill=true", "0.32.0", "--enable-chunked-prefill"),
        ("--enable-chunked-prefill --seed 1", "0.32.0", "--enable-chunked-prefill --seed 1"),
        ("--no-enable-chunked-prefill", "0.6.3", "--enable-chunked-prefill=false"),
        ("--no-enable-chunked-prefill", "0.4.3", ""),
        ("--enforce-eager=True", "0.6.3", "--enforce-eager"),
        ("--enforce-eager=False", "0.6.3", ""),
        ("--enforce-eager=False", "0.32.0", "--no-enforce-eager"),
        ("--no-enforce-eager", "0.32.0", "--no-enforce-eager"),
        ("--no-enable-prefix-caching", "0.6.5", "--no-enable-prefix-caching"),
        ("--no-enable-prefix-caching", "0.6.3", ""),
    ],
)
def test_a_flag_is_switched_in_the_way_of_the_release(typed: str, version: str, made: str) -> None:
    assert tokens(typed, version) == made
    assert (made == typed) == (said(typed, version) == ())


# --- slips


def test_a_slip_is_named_and_passed_on() -> None:
    assert tokens("--max-modell-len 8192", "0.24.0") == "--max-modell-len 8192"
    assert said("--max-modell-len 8192", "0.24.0") == (
        "no vLLM up to 0.33.0 has --max-modell-len: did you mean --max-model-len? It is passed on as it is",
    )


@pytest.mark.parametrize("typed", ["--of-another-plugin 1", "--max-model 5", "--max-num-s 3", "-q fp8", "--config.x 1"])
def test_what_is_nobodys_slip_is_passed_on_in_silence(typed: str) -> None:
    assert (tokens(typed, "0.24.0"), said(typed, "0.24.0")) == (typed, ())


# --- what an engine did not recognize


@pytest.mark.parametrize(
    ("typed", "version", "said"),
    [
        ("--swap-space 4", "0.32.0", "vLLM 0.32.0 has no --swap-space any more (it went with 0.18.0): leave it out."),
        (
            "--async-scheduling",
            "0.8.5",
            "vLLM 0.8.5 has no --async-scheduling yet (it came with 0.10.0): leave it out.",
        ),
        ("--swap-space", None, "--swap-space is an option of vLLM from 0.4.1 to the one before 0.18.0: "),
        ("--seed 1", "0.24.0", "--seed is an option of vLLM from 0.4.1: this engine is another release."),
        ("--max-modell-len 1", None, "no vLLM up to 0.33.0 has --max-modell-len: did you mean --max-model-len?"),
        ("--of-nobody", "0.24.0", "No vLLM up to 0.33.0 has --of-nobody: leave it out."),
        ("word", "0.24.0", "The engine got a word that it cannot place: leave it out."),
    ],
)
def test_an_argument_that_was_not_recognized_is_named_with_what_to_do(
    typed: str, version: str | None, said: str
) -> None:
    (line,) = unrecognized(shlex.split(typed), version=version)
    assert line.startswith(said)
