"""What `python -m autolaunch.openai_api_server` serves: the script's names, and what each model's files need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autolaunch.catalog import find_model, load_models
from autolaunch.entry import REMOTE_CODE, misfit
from autolaunch.published import as_published, unlike_published

GLM_4 = ("--served-model-name", "glm-4", "glm-4-9b", "glm-4-9b-chat")
VISION = ("--served-model-name", "GLM-4v-9b", "glm-4v", "glm-4v-9b")
SEES = (REMOTE_CODE, "--hf-overrides", '{"architectures":["GLM4VForCausalLM"]}')
OWN_TEMPLATE = "[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>\n..."


def folder(path: Path, template: object = None, **config: object) -> str:
    """Write a model's folder and return its name."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "chatglm", **config}))
    if template is not None:
        (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return str(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("THUDM/glm-4-9b-chat", (*GLM_4, "THUDM/glm-4-9b-chat", REMOTE_CODE)),
        ("zai-org/glm-4-9b-chat-hf", (*GLM_4, "zai-org/glm-4-9b-chat-hf")),
        ("glm-4-9b", (*GLM_4, "zai-org/glm-4-9b-chat-hf")),
        ("THUDM/glm-4v-9b", (*VISION, "THUDM/glm-4v-9b", *SEES)),
        ("glm-4v-9b", (*VISION, *SEES)),
        ("me/my-GLM4V-tuned", (*VISION, "me/my-GLM4V-tuned", *SEES)),
        ("me/of-my-own", (*GLM_4, "me/of-my-own")),
        ("me/my-4v-glm", (*GLM_4, "me/my-4v-glm")),
        ("qwen3-8b", (*GLM_4, "qwen3-8b")),
        ("s3://bucket/m", (*GLM_4, "s3://bucket/m")),
    ],
)
def test_the_scripts_names_come_first_and_what_a_known_model_needs_is_added(name: str, words: tuple[str, ...]) -> None:
    entry = find_model(name)
    made = as_published(entry)
    assert (made.name, made.model, made.engine_args) == (entry.name, entry.model, words)
    assert unlike_published(entry) == ""


@pytest.mark.parametrize(
    ("where", "config"),
    [
        ("hub/models--THUDM--glm-4v-9b/snapshots/0123abc", {}),
        ("my-glm-4v-ft", {}),
        ("cogagent", {"vision_config": {"hidden_size": 1792}}),
    ],
)
def test_the_vision_model_is_known_anywhere_in_the_path_and_by_its_configuration(
    tmp_path: Path, where: str, config: dict[str, object]
) -> None:
    name = folder(tmp_path / where, **config)
    made = as_published(find_model(name))
    assert made.engine_args == (*VISION, name, *SEES)
    assert misfit(made, "0.6.3") == f"{name} needs vLLM 0.7.3 or newer, this is 0.6.3"
    assert made.remote_code


def test_another_kind_of_model_in_a_folder_of_that_name_is_not_the_vision_model(tmp_path: Path) -> None:
    name = folder(tmp_path / "glm-4v-experiments" / "qwen", model_type="qwen3", vision_config={})
    assert as_published(find_model(name)).engine_args == (*GLM_4, name)


@pytest.mark.parametrize("template", [OWN_TEMPLATE, [{"name": "default", "template": OWN_TEMPLATE}]])
def test_a_folder_that_speaks_like_glm_4_runs_its_own_code(tmp_path: Path, template: object) -> None:
    name = folder(tmp_path / "m", template)
    entry = find_model(name)
    assert as_published(entry).engine_args == (*GLM_4, name, REMOTE_CODE)
    assert unlike_published(entry) == ""


@pytest.mark.parametrize(
    ("template", "why"), [(None, "it has no chat template"), ("{{ messages }}", "its chat template is another")]
)
def test_a_folder_that_may_be_glm_4_is_served_under_its_names_and_what_it_lacks_is_said(
    tmp_path: Path, template: object, why: str
) -> None:
    name = folder(tmp_path / "glm-4-9b-chat", template)
    entry = find_model(name)
    assert as_published(entry).engine_args == (*GLM_4, name)
    said = unlike_published(entry)
    assert said.startswith(f"{name} is of type chatglm and not known as GLM-4 chat, for {why}: ")
    file = tmp_path / "models.toml"  # what the line advises
    file.write_text(f'[mine]\nmodel = "{name}"\ndialect = "glm-4"\nengine_args = ["{REMOTE_CODE}"]')
    mine = find_model("mine", load_models(file))
    assert unlike_published(mine) == ""
    made = as_published(mine)
    assert (made.dialect, made.engine_args) == ("glm-4", (*GLM_4, "mine", name, REMOTE_CODE))


def test_a_folder_of_another_type_lacks_nothing_of_glm_4(tmp_path: Path) -> None:
    assert unlike_published(find_model(folder(tmp_path / "m", model_type="qwen3"))) == ""


def test_options_of_the_users_own_file_stay(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        '[tg]\nmodel = "org/tg"\ndialect = "glm-4"\nengine_args = ["--load-format", "dummy"]\n'
        '[named]\nmodel = "org/named"\nengine_args = ["--served_model_name", "gpt-4", "--seed", "1"]'
    )
    known = load_models(file)
    assert as_published(find_model("tg", known)).engine_args == (*GLM_4, "tg", "org/tg", "--load-format", "dummy")
    assert as_published(find_model("named", known)).engine_args == (*GLM_4, "gpt-4", "--seed", "1")
