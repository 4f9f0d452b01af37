"""What becomes of options that the engine at hand does not take."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from autolaunch.arguments import engine_options, given
from autolaunch.engine_changes import changes
from autolaunch.errors import WishError
from autolaunch.releases import parse_version, releases
from autolaunch.translation import Translated, translate, unrecognized

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
        for some in (change.becomes, change.off, *change.by_value.values(), *change.behind_colon.values())
        for word in some
        if word.startswith("--")
    ]
    assert words
    assert {word[2:].split(".")[0] for word in words} <= set(releases().options)
    every = (*gone.values(), *not_yet.values())
    assert {name for change in every for name in change.against} <= set(releases().options)


def test_an_option_and_its_new_words_know_of_each_other() -> None:
    """Both on one command line would be a contradiction that nobody sees."""
    gone, not_yet = changes()
    for change in (*gone.values(), *not_yet.values()):
        words = [word for some in (change.becomes, change.off, *change.by_value.values()) for word in some]
        names = {word[2:].split(".")[0] for word in words if word.startswith("--")}
        assert names - {"structured-outputs-config"} <= set(change.against)


def test_what_to_write_is_an_option_and_what_to_do_a_sentence() -> None:
    for change in changes()[0].values():
        assert not (change.instead and change.advice)
        assert change.instead == "" or "--" in change.instead
        assert change.advice.split(" ", 1)[0] in ("", "leave", "use", "name")


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
        ("--task auto --runner generate", "0.32.0", "--runner generate"),
        ("--task score", "0.32.0", "--runner pooling"),
        ("--task score --convert classify", "0.32.0", "--runner pooling --convert classify"),
        ("--task reward", "0.13.0", "--runner pooling"),
        ("--task transcription", "0.32.0", "--runner generate"),
        ("--task score", "0.12.0", "--task score"),
        ("--task embed --runner pooling", "0.32.0", "--convert embed --runner pooling"),
        ("--worker-use-ray --distributed-executor-backend ray", "0.32.0", "--distributed-executor-backend ray"),
        ("--worker-use-ray --distributed-executor-backend=ray", "0.4.1", "--worker-use-ray"),
        (
            "--worker-use-ray --distributed-executor-backend ray",
            "0.6.3",
            "--worker-use-ray --distributed-executor-backend ray",
        ),
        (
            "--disable-log-requests --no-enable-log-requests",
            "0.11.0",
            "--disable-log-requests --no-enable-log-requests",
        ),
        ("--override-pooler-config {} --pooler-config {}", "0.24.0", "--pooler-config '{}'"),
        (
            "--no-enable-mamba-fine-grained-prefix-cache --no-enable-mamba-shared-prefix-checkpoint",
            "0.32.0",
            "--no-enable-mamba-shared-prefix-checkpoint",
        ),
        ("--expand-tools-even-if-tool-choice-none", "0.32.0", ""),
        ("--no-expand-tools-even-if-tool-choice-none", "0.32.0", "--exclude-tools-when-tool-choice-none"),
        ("--max-context-len-to-capture 4096", "0.9.2", "--max-seq-len-to-capture 4096"),
        ("--max-context-len-to-capture 4096", "0.24.0", ""),
        ("--guided-decoding-backend xgrammar:no-fallback", "0.24.0", "--structured-outputs-config.backend xgrammar"),
        (
            "--guided-decoding-backend guidance:no-additional-properties,disable-any-whitespace",
            "0.32.0",
            "--structured-outputs-config.backend guidance --structured-outputs-config.disable_additional_properties "
            "true --structured-outputs-config.disable_any_whitespace true",
        ),
        ("--guided-decoding-backend xgrammar:no-fallback", "0.9.2", "--guided-decoding-backend xgrammar:no-fallback"),
        (
            "--guided-decoding-disable-any-whitespace --structured-outputs-config.backend xgrammar",
            "0.32.0",
            "--structured-outputs-config.disable_any_whitespace true --structured-outputs-config.backend xgrammar",
        ),
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
        ("--task sing", "0.24.0", "give one of auto, generate, draft, embed, embedding, classify, score, reward, tran"),
        ("--distributed-executor-backend uni", "0.4.2", "give one of ray, mp, or leave it out"),
        ("--guided-decoding-backend xgrammar:fast", "0.24.0", "give one of no-fallback, disable-any-whitespace, no-"),
        ("--guided-decoding-backend a:b:c", "0.24.0", "give one of no-fallback, disable-any-whitespace, no-"),
        ("--no-expand-tools-even-if-tool-choice-none", "0.10.0", "leave it out"),
        ("--enable-prompt-adapter", "0.24.0", "leave it out: prompt adapters are no longer supported"),
        ("--quantization-param-path a.json", "0.24.0", "use a checkpoint that carries its KV cache scales"),
        ("--qlora-adapter-name-or-path me/a", "0.24.0", "name the adapter with --enable-lora --lora-modules NAME=me/a"),
        ("--async-scheduling", "0.8.5", "leave it out, or use a vLLM from 0.10.0 on"),
        ("--cudagraph-capture-sizes 1 2", "0.8.5", "leave it out, or use a vLLM from"),
    ],
)
def test_what_cannot_be_said_is_refused_with_what_to_write(typed: str, version: str, hint: str) -> None:
    what, why = refusal(typed, version)
    name = typed.split(maxsplit=1)[0].replace("--no-", "--")
    assert what.startswith(f"vLLM {version} has no {name} ")
    assert (why or "").startswith(hint)


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


@pytest.mark.parametrize("typed", ["--max-modell-len 8192", "--max-model-length 8192", "--max_modell_len=8192"])
def test_a_slip_is_refused_with_the_option_that_was_meant(typed: str) -> None:
    name = typed.replace("_", "-").replace("=", " ").split()[0]
    assert refusal(typed, "0.24.0") == (
        f"no vLLM up to 0.33.0 has {name}",
        "did you mean --max-model-len? --try-anyway starts with it nevertheless",
    )


@pytest.mark.parametrize("version", ["0.34.0", "0.24.1.dev3+gabc", "0.4.0"])
def test_a_slip_is_named_and_passed_on_where_the_release_may_have_more_options(version: str) -> None:
    made = translate(("--max-modell-len", "8192"), version=version)
    assert made == translate(("--max-modell-len", "8192"), version="0.24.0", lenient=True)
    assert made == Translated(
        ("--max-modell-len", "8192"),
        ("no vLLM up to 0.33.0 has --max-modell-len: did you mean --max-model-len? It is passed on as it is",),
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
