"""Models by short name, hub id, folder or file; and what cannot be one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import autolaunch.catalog
from autolaunch.arguments import given
from autolaunch.catalog import before, catalog, find_model
from autolaunch.checks import Checks
from autolaunch.configuration import read
from autolaunch.entry import Entry, is_hub_id
from autolaunch.errors import WishError
from autolaunch.facts import Basis
from autolaunch.models_file import check
from autolaunch.shape import kv_bytes_per_token

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


TABLES = tomllib.loads(Path(autolaunch.catalog.__file__).with_name("catalog.toml").read_text(encoding="utf-8"))
SERVABLE = [name for name, entry in catalog().items() if not entry.refusal]

PARAMETERS = {
    "glm-4-9b": 9_399_951_360,
    "glm-4-9b-chat-original": 9_399_951_360,
    "glm-4-9b-base": 9_399_951_360,
    "glm-4-9b-chat-1m": 9_483_857_920,
    "glm-4-9b-0414": 9_400_279_040,
    "glm-z1-9b-0414": 9_400_279_040,
    "glm-4-32b-0414": 32_566_081_536,
    "glm-z1-32b-0414": 32_566_081_536,
    "glm-4.1v-9b-thinking": 10_292_777_472,
    "glm-4.5": 352_797_829_024,
    "glm-4.5-air": 106_852_251_264,
    "glm-4.6": 352_797_829_024,
    "glm-4.7": 352_797_829_024,
    "glm-4.7-flash": 29_943_393_920,
    "chatglm3-6b": 6_243_584_000,
    "ernie-4.5-vl-28b-a3b-thinking": 29_664_059_776,
    "minicpm-v-4.5": 8_695_895_280,
    "qwen2.5-0.5b-instruct": 494_032_768,
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwen2.5-14b-instruct": 14_770_033_664,
    "qwen2.5-32b-instruct": 32_763_876_352,
    "qwen2.5-72b-instruct": 72_706_203_648,
    "qwen3-0.6b": 751_632_384 - 151936 * 1024,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-30b-a3b-2507": 30_532_122_624,
    "qwen3-next-80b-a3b-instruct": 81_324_862_720 - 1_650_471_424,
    "llama-3.1-8b-instruct": 8_030_261_248,
    "llama-3.1-70b-instruct": 70_553_706_496,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "mistral-small-24b-instruct-2501": 23_572_403_200,
    "gemma-2-9b-it": 9_241_705_984,
    "gemma-3-12b-it": 12_187_325_040,
    "gemma-3-27b-it": 27_432_406_640,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-r1-distill-qwen-7b": 7_615_616_512,
    "deepseek-r1-distill-qwen-32b": 32_763_876_352,
    "phi-4": 14_659_507_200,
}
"""Published counts, less what vLLM does not load: layers for drafting, a copy of a tied head, 32 rotary numbers."""

CACHE = {
    "tiny-glm": 16_384,
    "glm-4-9b": 40_960,
    "glm-4-9b-chat-1m": 81_920,
    "glm-4-32b-0414": 62_464,
    "glm-4.5": 376_832,
    "glm-4.5-air": 188_416,
    "glm-4.7-flash": 54_144,
    "chatglm3-6b": 28_672,
    "ernie-4.5-vl-28b-a3b-thinking": 57_344,
    "kimi-k2-thinking": 70_272,
    "minimax-m2": 253_952,
    "minicpm-v-4.5": 147_456,
    "qwen2.5-0.5b-instruct": 12_288,
    "qwen2.5-72b-instruct": 327_680,
    "qwen3-0.6b": 114_688,
    "qwen3-30b-a3b": 98_304,
    "qwen3-next-80b-a3b-instruct": 24_576,
    "llama-3.1-8b-instruct": 131_072,
    "mistral-small-24b-instruct-2501": 163_840,
    "gemma-2-9b-it": 172_032,
    "gemma-3-12b-it": 65_536,
    "gemma-3-27b-it": 81_920,
    "gpt-oss-20b": 24_576,
    "gpt-oss-120b": 36_864,
    "deepseek-v2-lite": 31_104,
    "phi-4": 204_800,
}
"""Bytes that one more token takes in a 16-bit cache, as their cards or logs of real engines say."""


@pytest.mark.parametrize("name", SERVABLE)
def test_every_shipped_entry_can_be_found_and_says_what_it_is(name: str) -> None:
    entry = find_model(name)
    assert entry == find_model(name.upper())
    assert entry == catalog()[name]
    assert entry.name == name == name.lower()
    assert entry.description
    assert entry.model.count("/") == 1 or (Path(entry.model) / "config.json").is_file()
    assert name in served_names(entry)
    options = {option.name for option in given(entry.engine_args)}
    assert options <= {"served-model-name", "trust-remote-code", "hf-overrides", "load-format"}


@pytest.mark.parametrize("name", SERVABLE)
def test_every_shipped_entry_is_enough_for_a_plan(name: str) -> None:
    entry = find_model(name)
    assert entry.shape is not None
    assert entry.shape.architecture
    assert entry.weights is not None
    assert entry.max_model_len is not None
    assert entry.weights.linear_bytes > 0 or entry.quantization is not None
    assert entry.weights.expert_bytes <= entry.weights.linear_bytes < entry.weights.loaded_bytes
    assert (entry.weights.expert_bytes > 0) is (entry.shape.experts > 0 and entry.quantization is None)


@pytest.mark.parametrize("name", PARAMETERS)
def test_weights_are_twice_the_published_parameters(name: str) -> None:
    weights = find_model(name).weights
    assert weights is not None
    assert weights.loaded_bytes == 2 * PARAMETERS[name]


@pytest.mark.parametrize("name", SERVABLE)
def test_weights_follow_from_the_dimensions_where_those_tell(name: str) -> None:
    computed, written = read(TABLES[name]["config"]).weights, find_model(name).weights
    assert written is not None
    if computed is not None:
        assert replace(computed, basis=written.basis, source=written.source) == written


@pytest.mark.parametrize("name", CACHE)
def test_a_token_takes_what_is_known_of_the_model(name: str) -> None:
    shape = find_model(name).shape
    assert shape is not None
    assert kv_bytes_per_token(shape, ranks=1) == CACHE[name]


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("glm-4-9b", (1, 2, 4, 8, 16)),
        ("glm-4-32b-0414", (1, 2, 4, 6, 8, 12, 16)),
        ("glm-4.7-flash", (1, 2, 4, 5, 10)),
        ("ernie-4.5-vl-28b-a3b-thinking", (1, 2, 4)),
        ("minimax-m2", (1, 2, 4)),
        ("qwen2.5-0.5b-instruct", (1, 2, 14)),
        ("qwen2.5-7b-instruct", (1, 2, 4)),
        ("qwen3-14b", (1, 2, 4, 8)),
        ("phi-4", (1, 2, 5, 10)),
    ],
)
def test_a_model_is_spread_over_as_many_cards_as_its_heads_allow(name: str, ranks: tuple[int, ...]) -> None:
    shape = find_model(name).shape
    assert shape is not None
    assert tuple(count for count in range(1, 17) if shape.divides(count)) == ranks


@pytest.mark.parametrize("name", SERVABLE)
def test_variants_are_other_models_and_lighter(name: str) -> None:
    entry = find_model(name)
    assert entry.weights is not None
    for variant in entry.variants:
        assert is_hub_id(variant.model)
        assert variant.model != entry.model
        assert variant.weights is not None
        assert variant.weights.basis is Basis.ESTIMATED
        assert 0.2 < variant.weights.loaded_bytes / entry.weights.loaded_bytes < 0.75
        assert variant.capability in ((7, 5), (8, 0), (8, 9), (10, 0))


def test_what_ships_passes_the_checks_of_a_users_own_file() -> None:
    checks = Checks("catalog.toml", error=WishError, see="docs/models.md")
    for name, table in TABLES.items():
        if name != "tiny-glm":
            assert check(checks, name, table) == table
    assert TABLES["tiny-glm"]["model"] == "package:tiny-glm"


ASKED_FOR = {
    "ERNIE-4.5-VL-28B-A3B-Thinking": ("baidu/ERNIE-4.5-VL-28B-A3B-Thinking", "0.11.0", ""),
    "Kimi-K2-Thinking": ("moonshotai/Kimi-K2-Thinking", "0.12.0", ""),
    "MiniMax-M2": ("MiniMaxAI/MiniMax-M2", "0.11.1", ""),
    "MiniCPM-V-4_5": ("openbmb/MiniCPM-V-4_5", "0.10.2", "0.23"),
}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_large_and_seeing_models_work_by_short_name_with_what_each_needs(name: str) -> None:
    model, since, until = ASKED_FOR[name]
    entry = find_model(name)
    assert (entry.model, entry.since, entry.until) == (model, since, until)
    assert entry.engine_args[-1] == "--trust-remote-code"
    by_hub_id = find_model(model)
    assert (by_hub_id.shape, by_hub_id.weights, by_hub_id.since) == (entry.shape, entry.weights, entry.since)


def test_no_name_stands_for_two_models() -> None:
    names = [
        name.lower() for entry in catalog().values() for name in (entry.name, entry.model, *entry.also, *entry.like)
    ]
    assert len(names) == len(set(names))


GLM = catalog()["glm-4-9b"]


CLIENTS_SEND = ("glm-4", "glm-4-9b", "glm-4-9b-chat")


def served_names(entry: Entry) -> tuple[str, ...]:
    """Return the names that an entry is served under."""
    return next((option.values for option in given(entry.engine_args) if option.name == "served-model-name"), ())


def test_another_short_name_is_served_beside_the_models_own() -> None:
    own = catalog()["glm-z1-9b-0414"]
    assert find_model("GLM-Z1-9B") == replace(own, engine_args=("--served-model-name", "glm-z1-9b", own.name))


@pytest.mark.parametrize("name", ["glm-4-9b", "glm-4-9b-chat", "GLM-4-9B-Chat-HF"])
def test_glm_4_is_served_under_what_its_clients_send_the_typed_name_and_its_hub_id(name: str) -> None:
    names = dict.fromkeys((*CLIENTS_SEND, name.lower(), "glm-4-9b", "zai-org/glm-4-9b-chat-hf"))
    assert find_model(name) == replace(GLM, engine_args=("--served-model-name", *names))
    assert served_names(find_model("glm-4-9b-chat-1m"))[:3] == CLIENTS_SEND


@pytest.mark.parametrize("name", ["zai-org/glm-4-9b-chat-hf", "THUDM/glm-4-9b-chat-hf", "ZAI-org/GLM-4-9B-chat-hf"])
def test_a_hub_id_of_the_catalogue_keeps_its_name_and_gains_its_facts(name: str) -> None:
    assert find_model(name) == replace(
        GLM, name=name, model=name, engine_args=("--served-model-name", name, *CLIENTS_SEND)
    )


OWN_TEMPLATE = "[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>\n..."


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_folder_with_glm_4s_own_chat_template_speaks_its_dialect(tmp_path: Path, file: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    table = json.dumps({"chat_template": OWN_TEMPLATE})
    (tmp_path / file).write_text(OWN_TEMPLATE if file.endswith("jinja") else table, encoding="utf-8")
    assert find_model(str(tmp_path)) == Entry(
        str(tmp_path), str(tmp_path), engine_args=("--served-model-name", str(tmp_path), *CLIENTS_SEND), dialect="glm-4"
    )


def test_of_several_templates_the_default_one_tells(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    several = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": OWN_TEMPLATE}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert find_model(str(tmp_path)).dialect == "glm-4"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several[:1]}))
    assert find_model(str(tmp_path)).dialect == ""


@pytest.mark.parametrize("text", ['{"chat_template": "{{ messages }}"}', '{"chat_template": [1]}', "[]", "{", ""])
def test_a_folder_with_another_template_or_none_speaks_no_dialect(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(text)
    assert find_model(str(tmp_path)) == Entry(str(tmp_path), str(tmp_path))


def test_a_short_name_brings_the_options_that_its_model_needs_and_a_hub_id_none() -> None:
    """`--trust-remote-code` runs the repository's code: nobody who typed a hub id asked for that."""
    assert find_model("glm-4v-9b").engine_args[2:] == (
        "--trust-remote-code", "--hf-overrides", '{"architectures":["GLM4VForCausalLM"]}'
    )  # fmt: skip
    assert find_model("zai-org/glm-4v-9b").engine_args == ()


@pytest.mark.parametrize("name", SERVABLE)
def test_variants_are_listed_lightest_first_and_once(name: str) -> None:
    found = find_model(name).variants
    sizes = [variant.weights.loaded_bytes for variant in found if variant.weights]
    assert sizes == sorted(sizes)
    assert len({variant.model.lower() for variant in found}) == len(found) == len(sizes)


def test_the_model_of_the_first_command_has_siblings_in_fewer_bits_that_are_only_named() -> None:
    found = find_model("glm-4-9b").variants
    assert found[0] == find_model("glm-4-9b-chat-original").variants[0]
    assert found[0].model == "ModelCloud/glm-4-9b-chat-gptq-4bit"
    assert not any(variant.official for variant in found)


@pytest.mark.parametrize("size", ["0.5B", "7B", "14B", "32B", "72B"])
def test_qwen_2_5_is_there_in_every_form_that_its_publisher_quantized(size: str) -> None:
    model = f"Qwen/Qwen2.5-{size}-Instruct"
    found = [variant.model for variant in find_model(model).variants if variant.official]
    assert found == [f"{model}-{form}" for form in ("AWQ", "GPTQ-Int4", "GPTQ-Int8")]


def test_only_the_publishers_own_variants_are_ever_started_unasked() -> None:
    for entry in catalog().values():
        for variant in entry.variants:
            assert variant.official == (variant.model.split("/")[0].lower() == entry.model.split("/")[0].lower())
    assert {v.model.split("/")[0] for v in find_model("qwen3-32b").variants if v.official} == {"Qwen"}


def test_other_weights_in_the_same_dimensions_have_variants_of_their_own() -> None:
    instruct, thinking = (find_model(f"Qwen/Qwen3-Next-80B-A3B-{kind}") for kind in ("Instruct", "Thinking"))
    assert (instruct.shape, instruct.weights) == (thinking.shape, thinking.weights)
    assert instruct.variants
    assert thinking.variants == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hunyuanvideo-1.5", "vllm serve hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v --omni"),
        ("tencent/HunyuanVideo-1.5", "makes videos and is no language model"),
        ("HunyuanVideo-1.5", "makes videos and is no language model"),
        ("Tencent-Hunyuan/HunyuanVideo-1.5", "makes videos and is no language model"),
        ("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v", "vllm-omni serves its Diffusers form"),
        ("iflytek/Spark-Formalizer-X1-7B", "SparkModel, for which vLLM has no class"),
        ("GOT-OCR-2.0-hf", "GotOcr2ForConditionalGeneration, for which vLLM has no class"),
        ("spark-formalizer-x1-7b", "SparkModel, for which vLLM has no class"),
        ("stepfun-ai/GOT-OCR-2.0-hf", "GotOcr2ForConditionalGeneration, for which vLLM has no class"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(WishError) as caught:
        find_model(name)
    assert why in caught.value.what
    assert caught.value.hint


def test_a_folder_of_that_name_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tencent" / "HunyuanVideo-1.5"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_model("tencent/HunyuanVideo-1.5") == Entry("tencent/HunyuanVideo-1.5", "tencent/HunyuanVideo-1.5")


def test_a_folder_with_a_configuration_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_model(str(tmp_path)) == Entry(str(tmp_path), str(tmp_path))


def test_a_folder_in_the_mistral_format_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text("{}")
    assert find_model(str(tmp_path)) == Entry(str(tmp_path), str(tmp_path))


def test_a_folder_with_some_json_is_no_model(tmp_path: Path) -> None:
    """/tmp was taken for a model because of somebody's notes in it."""
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(WishError, match="holds no model"):
        find_model(str(tmp_path))


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert find_model(str(file)) == Entry(str(file), str(file))


@pytest.mark.parametrize("name", ["org/model", "Org-1/model.v2_x", "s3://bucket/model"])
def test_a_hub_id_or_a_url_goes_to_the_engine_as_it_is(name: str) -> None:
    assert find_model(name) == Entry(name, name)


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("glm-4-9", "no model is known as 'glm-4-9'", "did you mean 'glm-4-9b'? give a folder"),
        (
            "thudm/glm-4-9b-chat/",
            "there is no folder thudm/glm-4-9b-chat/",
            "did you mean 'THUDM/glm-4-9b-chat'? give a",
        ),
        ("./nowhere", "there is no folder ./nowhere", "give a folder, a hub id"),
        ("a/b/c", "there is no folder a/b/c", "give a folder, a hub id"),
        ("", "no model is known as ''", "give a folder, a hub id"),
    ],
)
def test_what_can_be_no_model_is_refused_with_the_nearest_name(name: str, what: str, hint: str) -> None:
    with pytest.raises(WishError) as caught:
        find_model(name)
    assert caught.value.what == what
    assert caught.value.hint.startswith(hint)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WishError, match=r"holds no model: no config\.json in it"):
        find_model(str(tmp_path))


def test_an_older_engine_gets_another_form_of_the_same_model_under_its_name() -> None:
    entry = find_model("glm-4-9b")
    older = before(entry, "0.6.3")
    assert older.model == "zai-org/glm-4-9b-chat"
    assert "glm-4-9b" in older.engine_args
    assert "--trust-remote-code" in older.engine_args
    assert before(entry, "0.24.0") is before(entry, None) is entry
    other = find_model("glm-4-9b-0414")
    assert before(other, "0.6.3") is other
