"""ModelScope in place of the hub: its cache, its answers and silences from a real server, and a launch that uses it."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from click.testing import CliRunner

from autolaunch.catalog import find_model
from autolaunch.cli import cli
from autolaunch.entry import Entry, modelscope_notice, taken_from_modelscope
from autolaunch.facts import Basis, Engine, Weights
from autolaunch.inquiry import Answer
from autolaunch.installation import Installation
from autolaunch.model import look_at
from autolaunch.modelscope import ask, endpoint, find, wanted
from autolaunch.options import Options, environment_of, speaking
from autolaunch.options import ask as asked
from autolaunch.snapshot import Snapshot
from tests.unit.test_hub import Hub, Reply, drip_body, drip_headers, flood, give, hang, hub, status

__all__ = ["hub"]  # the fixture

PLACE = "/api/v1/models/org/m/repo"
CONFIG = f"{PLACE}?Revision=master&FilePath=config.json"
FILES = f"{PLACE}/files?Revision=master&Recursive=False"


def files(**sizes: Any) -> Reply:
    """A list of files as ModelScope gives it; `__` stands for a dot."""
    listed = [
        {"Name": name, "Path": name.replace("__", "."), "Size": size, "Type": "blob"} for name, size in sizes.items()
    ]
    return give({"Code": 200, "Data": {"Files": listed}, "Success": True})


def told(hub: Hub, *, seconds: float = 3.0, **environment: str) -> Answer:
    """Ask it about org/m."""
    return ask("org/m", environment={"MODELSCOPE_ENDPOINT": hub.url, **environment}, seconds=seconds)


@pytest.mark.parametrize(
    ("value", "on"),
    [("True", True), ("true", True), (" 1 ", True), ("", False), ("False", False), ("0", False), ("yes", False)],
)
def test_the_variable_is_read_as_vllm_reads_it(value: str, on: bool) -> None:
    assert wanted({"VLLM_USE_MODELSCOPE": value}) is on
    assert wanted({}) is False


# --- what is here


def downloaded(folder: Path) -> Path:
    """A model's folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


LAYOUTS = (
    "models/Qwen--Qwen2.5-7B/snapshots/master",
    "models/Qwen/Qwen2.5-7B",
    "models/Qwen/Qwen2___5-7B",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen2___5-7B",
    "hub/models/Qwen/Qwen2___5-7B",
    "hub/Qwen/Qwen2___5-7B",
)
"""Where releases of the package from 1.15 to 1.40 keep a model, below MODELSCOPE_CACHE or ~/.cache/modelscope."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_download_is_found_in_every_layout_of_the_cache(tmp_path: Path, layout: str) -> None:
    folder = downloaded(tmp_path / layout)
    assert find("Qwen/Qwen2.5-7B", environment={"MODELSCOPE_CACHE": str(tmp_path)}) == Snapshot(folder)
    assert find("Qwen/Qwen2.5-7B", environment={}, cache=str(tmp_path)) == Snapshot(folder)
    assert find("Qwen/Qwen2.5-8B", environment={"MODELSCOPE_CACHE": str(tmp_path)}) is None


def test_without_a_variable_it_is_the_users_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = downloaded(tmp_path / ".cache/modelscope/hub/models/ZhipuAI/glm-4-9b-chat-hf")
    assert find("ZhipuAI/glm-4-9b-chat-hf", environment={}) == Snapshot(folder)


def test_a_revision_that_is_named_is_never_mistaken_for_another(tmp_path: Path) -> None:
    downloaded(tmp_path / "Qwen/m")
    environment = {"MODELSCOPE_CACHE": str(tmp_path)}
    assert find("Qwen/m", environment=environment, revision="v2") is None
    folder = downloaded(tmp_path / "models/Qwen--m/snapshots/v2")
    assert find("Qwen/m", environment=environment, revision="v2") == Snapshot(folder)
    assert find("Qwen/m", environment=environment, revision="../snapshots/v2") is None


def test_a_folder_without_a_configuration_is_a_download_that_was_broken_off(tmp_path: Path) -> None:
    (tmp_path / "Qwen/m").mkdir(parents=True)
    assert find("Qwen/m", environment={"MODELSCOPE_CACHE": str(tmp_path)}) is None


def test_a_folder_of_the_users_is_itself(tmp_path: Path) -> None:
    assert find(str(tmp_path), environment={}) == Snapshot(tmp_path)
    assert find("/nowhere/at/all", environment={}) is None


# --- what it says


def test_it_tells_dimensions_and_the_bytes_of_what_vllm_loads(hub: Hub) -> None:
    hub.replies = {
        CONFIG: give({"hidden_size": 4096}),
        FILES: files(
            model_1__safetensors=70, model_2__safetensors=30, consolidated__safetensors=100, x__bin=7, README=1
        ),
    }
    assert told(hub) == Answer({"hidden_size": 4096}, file_bytes=100)
    assert {path for path, _ in hub.asked} == {CONFIG, FILES}
    assert {bearer for _, bearer in hub.asked} == {None}


@pytest.mark.parametrize(
    ("reply", "size"),
    [
        (files(consolidated__safetensors=100), 100),
        (files(a__bin=3, b__bin=4, c__pt=5), 7),
        (files(a__safetensors="9", b__bin=-1, c__bin=True), 0),
        (give({"Data": {"Files": [None, 7, {"Path": "a.safetensors"}]}}), 0),
        (give({"Data": {"Files": None}}), 0),
        (give({"Data": []}), 0),
    ],
)
def test_a_list_that_says_little_or_lies_counts_for_what_it_says(hub: Hub, reply: Reply, size: int) -> None:
    hub.replies = {CONFIG: give({}), FILES: reply}
    assert told(hub) == Answer({}, file_bytes=size)


def test_another_revision_is_asked_for_by_its_name(hub: Hub) -> None:
    ask("org/m", environment={"MODELSCOPE_ENDPOINT": hub.url}, revision="v/2")
    asked_for = {urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)["Revision"][0] for path, _ in hub.asked}
    assert asked_for == {"v/2"}


@pytest.mark.parametrize(
    ("reply", "notes"),
    [
        (status(404), {"ModelScope has no such model"}),
        (status(403), {"ModelScope does not show the model (HTTP 403): it is gated, private or not there; "
                       "MODELSCOPE_API_TOKEN opens it"}),
        (status(502), {"ModelScope answered HTTP 502"}),
        (give(b"<html>"), {"ModelScope's answer cannot be used (JSONDecodeError)"}),
        (give([]), {"ModelScope's config.json is no table", "ModelScope's list of files is no table"}),
        (give({"Code": 10010205001, "Success": False}), {"ModelScope has no such model (code 10010205001)"}),
        (flood, {"ModelScope broke off: IncompleteRead"}),
    ],
)  # fmt: skip
def test_a_bad_answer_is_a_note(hub: Hub, reply: Reply, notes: set[str]) -> None:
    hub.replies = {CONFIG: reply, FILES: reply}
    found = told(hub, seconds=20)
    assert set(found.notes) == notes
    assert replace(found, notes=()) == Answer()


@pytest.mark.parametrize("reply", [hang, drip_body, drip_headers])
def test_a_server_that_does_not_come_to_an_end_is_left_in_time(hub: Hub, reply: Reply) -> None:
    hub.replies = {CONFIG: reply, FILES: reply}
    begun = monotonic()
    assert told(hub, seconds=0.3) == Answer(notes=("ModelScope did not answer within 0.3 s",))
    assert monotonic() - begun < 20


def test_the_token_goes_to_modelscope_alone(hub: Hub) -> None:
    elsewhere = hub.url.replace("127.0.0.1", "localhost") + "/elsewhere"
    hub.replies = {CONFIG: status(307, Location=elsewhere), "/elsewhere": give({"hidden_size": 1})}
    assert told(hub, MODELSCOPE_API_TOKEN="ms-secret").config == {"hidden_size": 1}
    assert ("/elsewhere", None) in hub.asked
    assert (CONFIG, "Bearer ms-secret") in hub.asked


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "https://www.modelscope.cn"),
        ({"MODELSCOPE_DOMAIN": "modelscope.ai"}, "https://modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "http://mirror:8080/", "MODELSCOPE_DOMAIN": "x"}, "http://mirror:8080"),
    ],
)
def test_another_server_is_named_by_its_own_variables(environment: dict[str, str], address: str) -> None:
    assert endpoint(environment) == address


def test_a_model_is_known_from_modelscope_and_the_hub_is_not_asked(hub: Hub) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "own", "num_hidden_layers": 2, "hidden_size": 64,
        "num_attention_heads": 4, "vocab_size": 100, "torch_dtype": "float32", "max_position_embeddings": 512,
    }  # fmt: skip
    hub.replies = {CONFIG: give(config), FILES: files(model__safetensors=1000)}
    environment = {
        "VLLM_USE_MODELSCOPE": "True", "MODELSCOPE_ENDPOINT": hub.url, "HF_ENDPOINT": hub.url, "HF_HOME": "/nowhere",
        "MODELSCOPE_CACHE": "/nowhere",
    }  # fmt: skip
    found = look_at(Entry("org/m", "org/m"), online=True, environment=environment)
    assert (found.max_model_len, found.notes) == (512, ())
    assert found.weights is not None
    assert (found.weights.loaded_bytes, found.weights.basis) == (500, Basis.ESTIMATED)
    assert {path for path, _ in hub.asked} == {CONFIG, FILES}
    hub.asked.clear()
    look_at(Entry("org/m", "org/m"), online=True, environment={**environment, "HF_HUB_OFFLINE": "1"})
    assert hub.asked == []


# --- the catalogue


@pytest.mark.parametrize(
    ("name", "model", "notice"),
    [
        ("glm-4-9b-0414", "ZhipuAI/GLM-4-9B-0414", "on ModelScope glm-4-9b-0414 is ZhipuAI/GLM-4-9B-0414"),
        ("THUDM/glm-4-9b-chat", "ZhipuAI/glm-4-9b-chat", "on ModelScope THUDM/glm-4-9b-chat is ZhipuAI/glm-4-9b-chat"),
        ("ZhipuAI/glm-4-9b-chat", "ZhipuAI/glm-4-9b-chat", ""),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", ""),
        ("minicpm-v", "OpenBMB/MiniCPM-V-4_5", "on ModelScope minicpm-v-4.5 is OpenBMB/MiniCPM-V-4_5"),
        ("phi-4", "microsoft/phi-4", "the id of phi-4 on ModelScope is not known here: microsoft/phi-4 is asked for"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507",
         "the id of Qwen/Qwen3-30B-A3B-Thinking-2507 on ModelScope is not known here: "
         "Qwen/Qwen3-30B-A3B-Thinking-2507 is asked for"),
        ("me/unknown", "me/unknown", ""),
    ],
)  # fmt: skip
def test_a_model_goes_by_its_id_on_modelscope(name: str, model: str, notice: str) -> None:
    before = find_model(name)
    entry = taken_from_modelscope(before)
    assert (entry.name, entry.model, modelscope_notice(entry)) == (before.name, model, notice)
    assert (entry.shape, entry.weights) == (before.shape, before.weights)


def test_clients_go_on_sending_the_name_that_was_typed() -> None:
    assert taken_from_modelscope(find_model("moonshotai/Kimi-K2-Thinking")).engine_args == ()
    assert taken_from_modelscope(find_model("MiniMaxAI/MiniMax-M2")).engine_args == (
        "--served-model-name", "MiniMaxAI/MiniMax-M2", "MiniMax/MiniMax-M2"
    )  # fmt: skip
    assert "THUDM/glm-4-9b-chat" in taken_from_modelscope(find_model("THUDM/glm-4-9b-chat")).engine_args


def test_only_variants_that_are_known_to_be_there_are_started() -> None:
    there = taken_from_modelscope(find_model("qwen2.5-7b-instruct")).variants
    assert [variant.model for variant in there] == [
        "Qwen/Qwen2.5-7B-Instruct-AWQ",
        "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4",
        "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8",
    ]
    (quantized,) = (v for v in taken_from_modelscope(find_model("glm-4.6")).variants if v.official)
    assert (quantized.model, quantized.weights) == (
        "ZhipuAI/GLM-4.6-FP8", Weights(354_467_801_728, basis=Basis.ESTIMATED, source="catalogue")
    )  # fmt: skip
    assert taken_from_modelscope(find_model("llama-3.1-8b-instruct")).variants == ()


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    downloaded(tmp_path / "m")
    entry = find_model(str(tmp_path / "m"))
    assert taken_from_modelscope(entry) == entry


# --- a launch


@pytest.mark.parametrize("by_variable", [True, False])
def test_the_engine_gets_the_variable_by_the_option_and_by_the_variable(
    monkeypatch: pytest.MonkeyPatch, *, by_variable: bool
) -> None:
    monkeypatch.delenv("VLLM_USE_MODELSCOPE", raising=False)
    assert "VLLM_USE_MODELSCOPE" not in environment_of(Options())
    if by_variable:
        monkeypatch.setenv("VLLM_USE_MODELSCOPE", "1")
    options = Options(modelscope=not by_variable)
    assert environment_of(options)["VLLM_USE_MODELSCOPE"] == "True"
    made = asked("glm-4-9b-0414", (), options)
    assert (made.modelscope, made.wish.model_path, made.wish.model) == (True, "ZhipuAI/GLM-4-9B-0414", "glm-4-9b-0414")


LACKS = "the engine's environment lacks the package modelscope: pip install 'modelscope>=1.18.1' there"


@pytest.mark.parametrize(("has", "words"), [(False, (LACKS,)), (True, ()), (None, ())])
def test_an_engine_without_the_package_is_told_before_it_fails(has: bool | None, words: tuple[str, ...]) -> None:
    made = asked("glm-4-9b-0414", (), Options(modelscope=True))
    installation = Installation(("vllm", "serve"), Engine("0.32.0", has_modelscope=has))
    notice = "on ModelScope glm-4-9b-0414 is ZhipuAI/GLM-4-9B-0414"
    assert speaking(made, installation).said == (notice, *words)
    assert speaking(asked("glm-4-9b-0414", (), Options()), installation).said == ()


def test_a_folder_named_from_here_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m" / "qwen").mkdir(parents=True)
    (tmp_path / "m" / "qwen" / "config.json").write_text("{}")
    made = asked("m/qwen", (), Options(modelscope=True))
    installation = Installation(("vllm", "serve"), Engine("0.32.0", has_modelscope=False))
    assert speaking(made, installation).said == ()


def test_the_planned_command_can_be_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VLLM_USE_MODELSCOPE", raising=False)
    words = ["plan", "qwen3-8b", "--gpu", "H100", "--engine-version", "0.32.0", "--modelscope"]
    words += ["--engine", "/bin/true serve"]  # whatever vLLM may lie beside this Python
    away = {"XDG_CONFIG_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "MODELSCOPE_CACHE": str(tmp_path), "PATH": ""}
    shown = CliRunner().invoke(cli, words, env=away).stdout
    assert "VLLM_USE_MODELSCOPE=True /bin/true serve Qwen/Qwen3-8B" in shown
    told_json = json.loads(CliRunner().invoke(cli, [*words, "--json"], env=away).stdout)
    assert told_json["argv"][:3] == ["/bin/true", "serve", "Qwen/Qwen3-8B"]


def test_a_service_takes_the_variable_of_this_shell_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    unit = CliRunner().invoke(cli, ["systemd", "glm-4-9b"]).stdout
    assert "--modelscope" in unit
    monkeypatch.delenv("VLLM_USE_MODELSCOPE")
    assert "--modelscope" not in CliRunner().invoke(cli, ["systemd", "glm-4-9b"]).stdout
