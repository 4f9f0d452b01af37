"""What GLM-4 needs of the engine: which release gets it beside the user's options, what is said where it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autolaunch.arguments import given
from autolaunch.catalog import catalog
from autolaunch.dialect import FOLDER, Fitted, dialect_of, dialects, fit, names_for, sees_files
from autolaunch.facts import DeviceKind, Engine
from autolaunch.installation import Installation
from autolaunch.options import Options, ask, speaking
from autolaunch.releases import releases

TEMPLATE = ("--chat-template", f"{FOLDER}/glm4_chat.jinja")
PARSER = (
    "--tool-parser-plugin", f"{FOLDER}/glm4_tool_parser.py", "--tool-call-parser", "glm4_9b",
    "--enable-auto-tool-choice",
)  # fmt: skip
NO_TOOLS = ("--exclude-tools-when-tool-choice-none",)
DEFAULTS = (
    "--override-generation-config",
    '{"temperature": 0.8, "top_p": 0.8, "repetition_penalty": 1.1, "presence_penalty": 1.0}',
)
ORIGINS = ("--allowed-origins", '["*"]', "--allow-credentials")
ALL = (*TEMPLATE, *PARSER, *NO_TOOLS, *DEFAULTS, *ORIGINS)
NO_PARSER = "GLM-4 goes without --tool-parser-plugin, requests with tools are refused or answered in plain text"
NO_TEMPLATE = "GLM-4 goes without --chat-template, its own template shows no tools to the model"
NO_DEFAULTS = (
    "GLM-4 goes without --override-generation-config, requests that say nothing of sampling are sampled as vLLM does"
)

NO_ORIGINS = "GLM-4 goes without --allowed-origins, web pages of other origins may be refused"


def fitted(options: str = "", version: str | None = "0.32.0", *, sees: bool = True) -> Fitted:
    """Return what GLM-4 is given beside a user's options."""
    return fit("glm-4", options=given(options.split()), version=version, sees=sees)


def and_without(first: str, *more: str) -> str:
    """Return several such sentences as one."""
    return "; ".join((first, *(one.removeprefix("GLM-4 goes ") for one in more)))


def test_a_new_release_gets_all_of_it_and_nothing_is_said() -> None:
    assert fitted() == Fitted(ALL)
    assert fitted("--port 9000 --max-model-len 8192") == Fitted(ALL)


@pytest.mark.parametrize(
    ("release", "words", "said"),
    [
        ("0.10.0", (*TEMPLATE, *PARSER, *DEFAULTS, *ORIGINS), ()),
        ("0.7.1", (*TEMPLATE, *PARSER, *DEFAULTS, *ORIGINS), ()),
        (
            "0.7.0",
            (*TEMPLATE, *PARSER, *ORIGINS),
            (f"vLLM 0.7.0 has no --override-generation-config yet (it came with 0.7.1): {NO_DEFAULTS}",),
        ),
        (
            "0.6.2",
            (*TEMPLATE, *ORIGINS),
            (
                f"vLLM 0.6.2 has no --tool-parser-plugin yet (it came with 0.6.3): {NO_PARSER}",
                f"vLLM 0.6.2 has no --override-generation-config yet (it came with 0.7.1): {NO_DEFAULTS}",
            ),
        ),
    ],
)
def test_an_old_release_gets_what_it_knows_and_the_rest_is_said(
    release: str, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    assert fitted(version=release) == Fitted(words, said)


@pytest.mark.parametrize("release", [None, "", "unknown"])
def test_a_release_that_is_not_known_gets_nothing_that_could_stop_its_start(release: str | None) -> None:
    unknown = "the engine's version is not known (--engine-version says it)"
    assert fitted(version=release) == Fitted(
        (), (f"{unknown}: {and_without(NO_TEMPLATE, NO_PARSER, NO_DEFAULTS, NO_ORIGINS)}",)
    )


@pytest.mark.parametrize(
    ("options", "missing", "said"),
    [
        ("--chat-template mine.jinja", TEMPLATE, f"--chat-template is yours: {NO_TEMPLATE}"),
        ("--tool-call-parser hermes", PARSER, f"--tool-call-parser is yours: {NO_PARSER}"),
        ("--tool-parser-plugin my.py", PARSER, f"--tool-parser-plugin is yours: {NO_PARSER}"),
        ("--no-enable-auto-tool-choice", PARSER, f"--no-enable-auto-tool-choice is yours: {NO_PARSER}"),
        ("--generation-config vllm", DEFAULTS, f"--generation-config is yours: {NO_DEFAULTS}"),
        ("--override_generation_config={}", DEFAULTS, f"--override_generation_config is yours: {NO_DEFAULTS}"),
        ("--no-exclude-tools-when-tool-choice-none", NO_TOOLS, ""),
        ("--expand-tools-even-if-tool-choice-none", NO_TOOLS, ""),
        ("--allowed-origins []", ORIGINS, f"--allowed-origins is yours: {NO_ORIGINS}"),
    ],
)
def test_the_users_own_option_wins_and_what_that_costs_is_said(
    options: str, missing: tuple[str, ...], said: str
) -> None:
    left = "\0".join(ALL).replace("\0".join(missing), "").strip("\0").replace("\0\0", "\0").split("\0")
    assert fitted(options) == Fitted(tuple(left), (said,) if said else ())


def test_automatic_tool_choice_that_the_user_asks_for_still_needs_the_parser() -> None:
    assert fitted("--enable-auto-tool-choice --allow-credentials") == Fitted(
        (*TEMPLATE, *PARSER[:-1], *NO_TOOLS, *DEFAULTS, *ORIGINS[:-1])
    )


def test_an_engine_that_does_not_see_our_files_is_not_told_of_them() -> None:
    why = f"the engine does not see {FOLDER} (mount it there: -v {FOLDER}:{FOLDER}:ro)"
    assert fitted(sees=False) == Fitted(
        (*NO_TOOLS, *DEFAULTS, *ORIGINS), (f"{why}: {and_without(NO_TEMPLATE, NO_PARSER)}",)
    )


@pytest.mark.parametrize(
    ("command", "sees"),
    [
        ("/venv/bin/python -m vllm.entrypoints.openai.api_server", True),
        ("vllm serve", True),
        ("/usr/bin/docker run --gpus all vllm/vllm-openai:v0.32.0", False),
        ("sudo podman run image", False),
        (f"docker run -v {FOLDER}:{FOLDER}:ro image", True),
        (f"docker run --volume={FOLDER}:{FOLDER} image", True),
        (f"docker run -v {FOLDER}:/elsewhere image", False),
    ],
)
def test_a_container_sees_our_files_where_they_are_mounted(command: str, sees: bool) -> None:
    assert sees_files(command.split()) is sees


def test_a_model_without_a_dialect_gets_nothing() -> None:
    assert fit("", options=(), version="0.32.0") == Fitted()
    assert names_for("", "a", "b", "a") == ("a", "b")
    assert dialect_of("{{ messages }}") == dialect_of("") == ""


def test_the_names_are_those_of_the_clients_and_then_its_own_each_once() -> None:
    assert names_for("glm-4", "mine", "glm-4") == ("glm-4", "glm-4-9b", "glm-4-9b-chat", "mine")


def test_what_the_dialects_name_is_there_and_is_what_vllm_calls_it() -> None:
    assert {entry.dialect for entry in catalog().values()} == {"", *dialects()}
    for one in dialects().values():
        for offer in one.offers:
            assert all(Path(word).is_file() for word in offer.words if word.startswith("/"))
            assert offer.files == any(word.startswith("/") for word in offer.words)
            assert all(releases().options[option.name].gone is None for option in offer.options)
            assert offer.unless <= set(releases().options)


def test_the_defaults_are_those_of_the_original_but_for_the_length_which_would_be_a_ceiling() -> None:
    assert json.loads(DEFAULTS[1]) == {
        "temperature": 0.8, "top_p": 0.8, "repetition_penalty": 1.1, "presence_penalty": 1.0
    }  # fmt: skip


def test_a_start_of_glm_4_gets_its_dialect_and_stays_the_same_wish() -> None:
    asked = ask("glm-4-9b", ("--chat-template", "mine.jinja"), Options())
    installation = Installation(("vllm", "serve"), Engine("0.32.0", DeviceKind.CUDA))
    spoken = speaking(replace(asked, said=("before",)), installation)
    assert spoken.wish.entry_args == (*asked.wish.entry_args, *PARSER, *NO_TOOLS, *DEFAULTS, *ORIGINS)
    assert spoken.said == ("before", f"--chat-template is yours: {NO_TEMPLATE}")
    assert spoken.digest == asked.digest
    assert replace(spoken, wish=asked.wish, said=()) == asked


def test_an_option_in_the_engines_own_command_is_the_users_too() -> None:
    asked = ask("glm-4-9b", (), Options(engine="vllm serve --chat-template mine.jinja"))
    spoken = speaking(asked, Installation(("vllm", "serve"), Engine("0.32.0", DeviceKind.CUDA)))
    assert spoken.said == (f"--chat-template is yours: {NO_TEMPLATE}",)


def test_another_model_starts_as_ever() -> None:
    asked = ask("qwen3-8b", (), Options())
    assert speaking(asked, Installation(("vllm", "serve"), Engine("0.32.0", DeviceKind.CUDA))) == asked
