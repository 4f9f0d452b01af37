"""A climb on every kind of release: V0 and V1, each with its own texts and its own command line."""

from __future__ import annotations

import pytest

from tests.fake_engine import behaviours as b
from tests.fake_engine.known import taken
from tests.fake_engine.scenario import Outcome, Scenario
from tests.process.stage import ENGINE, Stage, ok

pytestmark = pytest.mark.process

RELEASES = ("0.4.3", "0.6.3", "0.8.5", "0.11.0", "0.24.0", "0.32.0")


def play(stage: Stage, version: str, *starts: Outcome) -> None:
    """Starts of a release that refuses every option that it does not take."""
    stage.play(Scenario(starts=starts, version=version, unknown_options="release"))


@pytest.mark.parametrize("version", RELEASES)
def test_a_climb_ends_with_a_server_and_every_command_line_is_the_releases(stage: Stage, version: str) -> None:
    play(stage, version, Outcome(kind="kv_too_small", then="hang"), ok(b.Worker()))
    process = stage.launch("--engine-version", version)
    ready = stage.line("ready")
    assert [line["failure"]["kind"] for line in stage.lines("failed")] == ["kv_too_small"]
    assert ready["n"] == 2
    assert ready["effective"]["max_model_len"] > 0
    assert len(stage.lines("step")) == 1
    for line in stage.lines("attempt"):
        given = {word[2:].partition("=")[0] for word in line["argv"] if word.startswith("--")}
        assert given <= taken(version)
    stage.stop(process)


@pytest.mark.parametrize("version", RELEASES)
def test_the_widely_copied_command_line_starts_every_release(stage: Stage, version: str) -> None:
    play(stage, version, ok())
    old = ("--engine-use-ray", "--disable-log-requests", "--swap-space", "4", "--dtype", "half", "--enforce-eager")
    ended = stage.run("--check", "--engine-version", version, *old)
    assert ended.code == 0, ended.err
    argv = stage.lines("attempt")[0]["argv"]
    assert ("--swap-space" in argv) is ("swap-space" in taken(version))
    assert ("--engine-use-ray" in argv) is ("engine-use-ray" in taken(version))
    assert {"--dtype", "--enforce-eager"} <= set(argv)


@pytest.mark.parametrize("version", RELEASES)
def test_an_option_that_the_release_does_not_know_ends_with_2_and_its_name(stage: Stage, version: str) -> None:
    play(stage, version, ok())
    ended = stage.run("--engine-version", version, "--frobnicate", "7")
    assert ended.code == 2, ended.err
    assert "unrecognized arguments: --frobnicate 7" in ended.err
    assert "hint: No vLLM up to 0.33.0 has --frobnicate: leave it out." in ended.err
    assert len(stage.lines("attempt")) == 1


def test_an_old_option_in_the_engines_own_command_is_named_with_the_release_that_has_it_no_more(stage: Stage) -> None:
    """argparse ends the engine before its banner."""
    play(stage, "0.32.0", ok())
    ended = stage.run("--engine-version", "0.32.0", "--engine", f"{ENGINE} --engine-use-ray")
    assert ended.code != 0
    assert "hint: vLLM 0.32.0 has no --engine-use-ray any more (it went with 0.6.1.post1): leave it out." in ended.err


def test_the_oldest_release_finds_its_port_taken_when_its_model_is_loaded(stage: Stage) -> None:
    play(stage, "0.4.3", Outcome(kind="port_in_use"))
    ended = stage.run("--engine-version", "0.4.3")
    assert ended.code == 5, ended.err
    assert [line["failure"]["kind"] for line in stage.lines("failed")] == ["port_in_use"]
    assert len(stage.lines("attempt")) == 1


def test_the_oldest_release_catches_no_signal_while_it_loads(stage: Stage) -> None:
    play(stage, "0.4.3", Outcome(kind="ok", delay_s={"load": 50}))
    process = stage.launch("--engine-version", "0.4.3")
    stage.line("attempt")
    stage.stop(process)


def test_what_releases_take_is_what_their_sources_say() -> None:
    assert {version for version in RELEASES if "swap-space" in taken(version)} == set(RELEASES[:4])
    assert {version for version in RELEASES if "engine-use-ray" in taken(version)} == {"0.4.3"}
    assert {version for version in RELEASES if "no-enforce-eager" in taken(version)} == set(RELEASES[3:])
    assert {version for version in RELEASES if "kv-cache-memory-bytes" in taken(version)} == set(RELEASES[3:])
    assert all({"model", "port", "max-model-len"} <= taken(version) for version in RELEASES)
