"""What holds for any command line: nothing is lost or changed, ours are found, no secret is shown."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from autolaunch.arguments import engine_options, split, walk
from autolaunch.arguments import given as read
from autolaunch.redaction import redact, redact_argv, secrets_in

OWN = {"--strategy": True, "--check": False, "--record": True}
NAMES = [*sorted(engine_options().arity)[::7], "api-key", "gpu-memory-utilization", "of-the-future"]
VALUES = st.one_of(
    st.sampled_from(["1", "-1", "0.5", "auto", "org/m", '{"a": "b=c"}', "a b", "x=y", "-0.5"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
        lambda text: not text.startswith("-")
    ),
)
FLAGS = [name for name, arity in engine_options().arity.items() if arity.value == "none"]


@st.composite
def engine_option(draw: st.DrawFn) -> list[str]:
    """Return one engine option as people type it, with values so that it swallows nothing behind it."""
    if draw(st.booleans()):
        return ["--" + draw(st.sampled_from(FLAGS))]
    name, value = draw(st.sampled_from(NAMES)), draw(VALUES)
    typed = "--" + (name.replace("-", "_") if draw(st.booleans()) else name)
    return [f"{typed}={value}"]


OURS = st.sampled_from([["--check"], ["--strategy", "classic"], ["--strategy=classic"], ["--record", "r.jsonl"]])
ANY = st.lists(st.one_of(VALUES, st.sampled_from(["--", "-tp", "-qfp8", "--x", "--check", "--api-key", "-O3"])))


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_splitting_loses_and_changes_no_token(tokens: list[str]) -> None:
    parts = split(tokens, OWN)
    kept = sorted([*parts.own, *parts.engine, *parts.stray, *([parts.model] if parts.model is not None else [])])
    dropped = ["--"] if "--" in tokens and sorted(tokens) != kept else []
    assert sorted([*kept, *dropped]) == sorted(tokens)


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_reading_options_takes_their_tokens_in_order_and_changes_none(tokens: list[str]) -> None:
    end = 0
    for begin, after, option in walk(tokens):
        assert end <= begin < after
        assert option.tokens == tuple(tokens[begin:after])
        assert not option.values or option.values[-1] in option.tokens[-1]
        end = after
    assert all(option.tokens for option in read(tokens))


@given(st.lists(st.one_of(engine_option(), OURS, st.just(["the-model"])), max_size=8))
@settings(max_examples=300, deadline=None)
def test_our_options_are_found_wherever_they_stand(pieces: list[list[str]]) -> None:
    models = [piece for piece in pieces if piece == ["the-model"]]
    ours = [piece for piece in pieces if piece[0].split("=")[0] in OWN]
    parts = split([token for piece in pieces for token in piece], OWN)
    assert list(parts.own) == [token for piece in ours for token in piece]
    assert parts.model == ("the-model" if models else None)
    assert [option.name for option in read(parts.engine)] == [
        option.name for piece in pieces if piece not in ours and piece not in models for option in read(piece)
    ]


SECRETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789+/=-_", min_size=12, max_size=40).filter(
    lambda text: any(c.isdigit() for c in text) and any(c.isalpha() for c in text) and not text.startswith("-")
)


@given(st.lists(SECRETS, min_size=1, max_size=3), st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_secret_is_left_in_a_text_or_a_command_line(keys: list[str], around: str) -> None:
    options = read(["--api-key", *keys])
    hidden = secrets_in(options, {}).anywhere
    shown = redact(around.join(["", *keys, ""]), hidden)
    argv = redact_argv(["vllm", "serve", "m", "--api-key", *keys, "--hf-token=" + keys[0]], hidden)
    for key in keys:
        assert key not in shown.replace(around, "") or key in around
        assert not any(key in word for word in argv)
