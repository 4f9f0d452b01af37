"""Which wishes are the same: by what decides what fits, never by a secret, a port or a comment."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autolaunch.arguments import given
from autolaunch.asked import wish_digest
from autolaunch.case import Limits
from autolaunch.settings import Settings
from autolaunch.strategy import load_strategy, parse_strategy, strategies_folder

STRATEGY = load_strategy("default")
SECRET = "sk-very-secret-0123456789"


def digest(*words: str, **parts: object) -> str:
    """Return the digest of a wish with these engine words."""
    asked = {"pins": ("max_model_len",), "limits": Limits(), "strategy": STRATEGY, **parts}
    pinned = asked.pop("pinned", Settings(max_model_len=8192))
    return wish_digest(pinned, options=given(words), **asked)  # type: ignore[arg-type]  # each test names the parts


def test_the_digest_is_the_same_in_every_process() -> None:
    """What a start remembers is found by the next one: pinned to its value, whatever the hash seed."""
    code = "from tests.unit.test_asked import digest; print(digest('-tp', '2', pins=('a', 'b', 'c', 'd')))"
    outs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."}, capture_output=True,
            text=True, check=True, cwd=Path(__file__).parents[2],
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert outs == {digest("-tp", "2", pins=("d", "c", "b", "a"))}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["-tp", "2"], ["--tensor-parallel-size=2"]),
        (["--tensor_parallel_size", "2"], ["--tensor-parallel-size", "2"]),
        (["--dtype", "half", "--seed", "1"], ["--seed", "1", "--dtype", "half"]),
        (["--port", "8000"], ["--port", "8001"]),
        (["--served-model-name", "a", "b"], []),
        (["--api-key", SECRET], ["--api-key", "another"]),
        (["--api-key", SECRET], []),
        (["--hf-token=" + SECRET], []),
    ],
)
def test_what_does_not_change_what_fits_does_not_change_the_wish(one: list[str], other: list[str]) -> None:
    assert digest(*one) == digest(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["-tp", "2"], ["-tp", "4"]),
        (["--cpu-offload-gb", "10"], []),
        (["--enforce-eager"], ["--no-enforce-eager"]),
        (["--dtype", "half", "--dtype", "auto"], ["--dtype", "auto", "--dtype", "half"]),
        (["-cc.mode", "3"], ["-cc.level", "3"]),
        (["--speculative-config", '{"model": "a"}'], ["--speculative-config", '{"model": "b"}']),
        (["--an-option-of-the-future", "1"], []),
    ],
)
def test_what_changes_what_fits_changes_the_wish(one: list[str], other: list[str]) -> None:
    assert digest(*one) != digest(*other)


def test_pins_limits_and_pinned_values_belong_to_the_wish() -> None:
    digests = {
        digest(),
        digest(pinned=Settings(max_model_len=4096)),
        digest(pins=()),
        digest(limits=Limits(concurrency=2)),
        digest(limits=Limits(min_context=8192, floor_is_wish=True)),
        digest(strategy=load_strategy("keep-context")),
    }
    assert len(digests) == 6


def test_a_strategy_is_its_content_not_its_name_or_its_comments() -> None:
    text = (strategies_folder() / "default.toml").read_text(encoding="utf-8")
    assert digest(strategy=parse_strategy("mine.toml", text + "\n# mine")) == digest()
    assert digest(strategy=replace(STRATEGY, description="another text")) == digest()
    assert digest(strategy=replace(STRATEGY, max_attempts=3)) != digest()


def test_a_new_field_at_its_default_leaves_every_digest_as_it_was() -> None:
    """A release that adds a setting must not forget what earlier releases learnt."""
    assert digest(pinned=Settings(max_model_len=8192, quantization=None)) == digest()
    assert digest(limits=Limits(min_context=4096)) == digest(limits=Limits())


@pytest.mark.parametrize(
    "words",
    [
        ["--kv-transfer-config", '{"api_key": "%s", "kv_role": "both"}'],
        ["--kv-transfer-config.api_key=%s"],
        ["--model-loader-extra-config", '{"url": "https://me:%s@host/x"}'],
    ],
)
def test_a_secret_inside_a_value_does_not_reach_the_digest_and_the_rest_does(words: list[str]) -> None:
    def with_secret(secret: str) -> list[str]:
        return [word.replace("%s", secret) for word in words]

    assert digest(*with_secret(SECRET)) == digest(*with_secret("9876543210-another-secret"))
    assert digest(*with_secret(SECRET)) != digest()


def test_the_digest_of_a_wish_outlives_a_release() -> None:
    """The written value is what earlier releases kept on disk: a change here forgets what every host has learnt."""
    text = '[[rung]]\nname = "context"\nanswers = ["kv_too_small", "kv_none"]\nmin = 4096'
    found = digest("-tp", "2", "--port", "80", strategy=parse_strategy("s.toml", text), limits=Limits(concurrency=2))
    assert found == "581595a61ffe6e4d0dc81a06df16490a"
