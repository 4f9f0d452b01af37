"""`python -m autolaunch.openai_api_server` in place of GLM-4's script, over the fake engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autolaunch.arguments import given
from tests.fake_engine import leftovers
from tests.process.stage import ENGINE, Result, Stage, ok

pytestmark = pytest.mark.process

GLM4_TEMPLATE = "[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}"


def script(stage: Stage, *words: str, model: str | None = None, version: str = "0.24.0") -> Result:
    """Run the module as the script was run, to the end of a --check."""
    stage.environment.pop("MODEL_PATH", None)
    if model is not None:
        stage.environment["MODEL_PATH"] = model
    ours = ("--port", str(stage.port), "--state-dir", str(stage.state), "--record", str(stage.record))
    engine = ("--engine", ENGINE, "--engine-version", version)
    return stage.end(
        stage.start([sys.executable, "-m", "autolaunch.openai_api_server", *words, *ours, *engine, "--check"])
    )


def options(stage: Stage) -> dict[str, tuple[str, ...]]:
    """Return what the one engine was started with."""
    (attempt,) = stage.lines("attempt")
    return {option.name: option.values for option in given(attempt["argv"])}


def folder(stage: Stage, **files: str) -> Path:
    path = stage.folder / "my-model"
    path.mkdir()
    config = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "auto_map": {"AutoConfig": "x.y"}}
    (path / "config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (path / name.replace("_json", ".json")).write_text(text)
    return path


def test_it_needs_no_argument_and_serves_the_scripts_model(stage: Stage) -> None:
    stage.play(ok())
    assert script(stage).code == 0
    given_ = options(stage)
    assert given_["model"] == ("THUDM/glm-4-9b-chat",)
    assert given_["served-model-name"] == ("glm-4", "glm-4-9b", "glm-4-9b-chat", "THUDM/glm-4-9b-chat")
    assert given_["trust-remote-code"] == ()
    assert given_["tool-call-parser"] == ("glm4_9b",)


def test_model_path_names_another_and_the_command_line_wins(stage: Stage) -> None:
    stage.play(ok())
    assert script(stage, model="zai-org/glm-4-9b-chat-hf").code == 0
    assert options(stage)["model"] == ("zai-org/glm-4-9b-chat-hf",)
    assert "trust-remote-code" not in options(stage)
    stage.record.unlink()
    assert script(stage, "Qwen/Qwen2.5-7B-Instruct", "--max-model-len", "4096", model="/no/such/folder").code == 0
    assert options(stage)["model"] == ("Qwen/Qwen2.5-7B-Instruct",)
    assert options(stage)["max-model-len"] == ("4096",)


def test_a_name_with_4v_is_the_vision_model(stage: Stage) -> None:
    stage.play(ok())
    assert script(stage, model="THUDM/glm-4v-9b").code == 0
    given_ = options(stage)
    assert given_["hf-overrides"] == ('{"architectures":["GLM4VForCausalLM"]}',)
    assert given_["trust-remote-code"] == ()


def test_a_folder_that_speaks_like_glm_4_runs_its_own_code_and_another_does_not(stage: Stage) -> None:
    stage.play(ok())
    path = folder(stage, tokenizer_config_json=json.dumps({"chat_template": GLM4_TEMPLATE}))
    assert script(stage, model=str(path)).code == 0
    assert options(stage)["trust-remote-code"] == ()
    stage.record.unlink()
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    end = script(stage, model=str(path))
    assert end.code == 0
    assert "trust-remote-code" not in options(stage)
    assert options(stage)["served-model-name"] == ("glm-4", "glm-4-9b", "glm-4-9b-chat", str(path))
    assert f"{path} is of type chatglm and not known as GLM-4 chat, for its chat template is another" in end.err


def test_model_path_may_be_a_short_name_of_the_users_own(stage: Stage) -> None:
    stage.play(ok())
    file = stage.folder / "models.toml"
    file.write_text('[q]\nmodel = "org/q"\ndialect = "glm-4"\nengine_args = ["--load-format", "dummy"]\n')
    assert script(stage, "--models", str(file), model="q").code == 0
    assert options(stage)["model"] == ("org/q",)
    assert options(stage)["load-format"] == ("dummy",)
    assert options(stage)["served-model-name"] == ("glm-4", "glm-4-9b", "glm-4-9b-chat", "q", "org/q")
    end = script(stage, "--models", str(file), model="qq")
    assert end.code == 2
    assert "error: MODEL_PATH=qq: no model is known as 'qq'" in end.err
    assert "did you mean 'q'?" in end.err


def test_a_vision_model_in_the_hubs_cache_is_refused_by_an_engine_that_is_too_old_for_it(stage: Stage) -> None:
    stage.play(ok())
    path = stage.folder / "models--THUDM--glm-4v-9b" / "snapshots" / "0123abc"
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "chatglm"}')
    end = script(stage, model=str(path), version="0.6.3")
    assert (end.code, leftovers.starts(stage.folder)) == (2, [])
    assert f"error: {path} needs vLLM 0.7.3 or newer, this is 0.6.3" in end.err


@pytest.mark.parametrize(
    ("model", "version", "what"),
    [
        ("/no/such/folder", "0.24.0", "error: MODEL_PATH=/no/such/folder: there is no folder /no/such/folder"),
        ("THUDM/glm-4v-9b", "0.6.3", "error: THUDM/glm-4v-9b needs vLLM 0.7.3 or newer, this is 0.6.3"),
    ],
)
def test_what_cannot_be_served_is_said_and_nothing_is_started(
    stage: Stage, model: str, version: str, what: str
) -> None:
    stage.play(ok())
    end = script(stage, model=model, version=version)
    assert (end.code, leftovers.starts(stage.folder)) == (2, [])
    assert what in end.err
    assert "hint: " in end.err


def test_an_old_engine_gets_the_form_of_glm_4_that_it_serves(stage: Stage) -> None:
    stage.play(ok())
    words = [word.replace("0.24.0", "0.6.3") for word in stage.command("--check")]
    end = stage.end(stage.start(words))
    assert end.code == 0
    assert options(stage)["model"] == ("zai-org/glm-4-9b-chat",)
    assert options(stage)["trust-remote-code"] == ()
    assert "needs vLLM 0.6.5 or newer, this is 0.6.3: zai-org/glm-4-9b-chat is taken" in end.err
