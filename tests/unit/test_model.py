"""What is known of a model: its own files before the catalogue, the catalogue before a guess, and nothing made up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autolaunch import hub, modelscope
from autolaunch.catalog import find_model
from autolaunch.entry import Entry
from autolaunch.facts import Basis, Model, Variant, Weights
from autolaunch.identity import fingerprint
from autolaunch.inquiry import Answer
from autolaunch.model import CONFIG_BYTES, Where, look_at, read_config
from autolaunch.weights import INDEX
from tests.unit.checkpoints import glm_4_9b, write

VARIANTS = (Variant("org/awq", "awq"),)
GLM = find_model("glm-4-9b")
EXACT = Weights(18_799_902_720, 16_315_842_560, 0, Basis.EXACT, "safetensors headers")
GLM_CONFIG = {
    "architectures": ["GlmForCausalLM"],
    "model_type": "glm",
    "attention_bias": True,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 151552,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def folder(path: Path, config: Any) -> Entry:
    """Return the entry of a folder with this configuration."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return Entry("m", str(path), max_model_len=77, variants=VARIANTS)


def cached(cache: Path, model: str, config: Any = GLM_CONFIG) -> Path:
    """Make a snapshot of a model in a cache and return its folder."""
    place = cache / ("models--" + model.replace("/", "--"))
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots").mkdir()
    folder(place / "snapshots" / "abc", config)
    return place / "snapshots" / "abc"


def test_a_folder_is_known_exactly_by_its_own_files(tmp_path: Path) -> None:
    entry = folder(tmp_path, GLM_CONFIG)
    write(tmp_path / "model.safetensors", glm_4_9b())
    revision = fingerprint(tmp_path)
    assert look_at(entry) == Model(131072, None, VARIANTS, "m", revision, GLM.shape, EXACT, (), "glm", "bfloat16")


@pytest.mark.parametrize(
    ("config", "length", "quantization"),
    [
        ({}, 77, None),
        ({"max_position_embeddings": 32768}, 32768, None),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "linear", "factor": 4.0}}, 131072, None),
        ({"seq_length": 0}, 77, None),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, 77, "awq"),
    ],
)
def test_length_and_quantization_are_known_even_without_dimensions(
    tmp_path: Path, config: Any, length: int, quantization: str | None
) -> None:
    found = look_at(folder(tmp_path, config))
    assert found == Model(length, quantization, VARIANTS, "m", fingerprint(tmp_path), notes=found.notes)
    assert found.notes[0] == "config.json gives no dimensions: it has no num_hidden_layers"
    assert found.notes[1:] == (
        ("config.json: seq_length is 0, which is the longest context of no model",) * (0 in config.values())
    )


def test_a_length_counts_as_the_engines_release_counts_it(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    entry = folder(tmp_path, {**GLM_CONFIG, "max_position_embeddings": 32768, "rope_scaling": scaling})
    lengths = [look_at(entry, where=Where(release=release)).max_model_len for release in ((0, 29), (0, 30), None)]
    assert lengths == [131072, 32768, 32768]


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ("not json", "config.json is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("", "config.json is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "config.json is no table"),
        ('{"hidden_size": ', "config.json is not JSON: Expecting value: line 1 column 17 (char 16)"),
        (
            {**GLM_CONFIG, "hidden_size": "wide"},
            "config.json gives no dimensions: hidden_size is 'wide', not a number",
        ),
    ],
)
def test_a_configuration_that_says_nothing_is_a_note_and_no_error(tmp_path: Path, config: Any, note: str) -> None:
    entry = replace(folder(tmp_path, config), max_model_len=None)
    found = look_at(entry)
    assert (found.shape, found.weights, found.notes) == (None, None, (note,))


def test_a_configuration_nested_without_end_is_not_json(tmp_path: Path) -> None:
    folder(tmp_path, "[" * 200_000)
    assert read_config(tmp_path)[1][0].startswith("config.json is not JSON: ")


def test_no_more_than_a_configuration_is_read(tmp_path: Path) -> None:
    folder(tmp_path, json.dumps(GLM_CONFIG) + " " * CONFIG_BYTES + "x")
    found, notes = read_config(tmp_path)
    assert (found.shape, notes) == (GLM.shape, ())


def test_a_broken_checkpoint_is_said_and_the_dimensions_stand_in(tmp_path: Path) -> None:
    entry = folder(tmp_path, GLM_CONFIG)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 12)
    found = look_at(entry)
    assert found.weights == Weights(18_799_902_720, 16_315_842_560, 0, Basis.ESTIMATED, "its dimensions")
    assert found.notes == ("model.safetensors is cut off: 12 bytes do not hold its header",)


def test_a_folder_without_weights_is_known_by_its_dimensions(tmp_path: Path) -> None:
    found = look_at(folder(tmp_path, GLM_CONFIG))
    assert found.weights == Weights(18_799_902_720, 16_315_842_560, 0, Basis.ESTIMATED, "its dimensions")


def test_what_no_dimensions_tell_is_not_made_up(tmp_path: Path) -> None:
    strange = {**GLM_CONFIG, "model_type": "strange"}
    assert look_at(folder(tmp_path, strange)).weights is None
    index = {"metadata": {"total_size": 10_000_000_000}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    tables = 2 * 2 * 151552 * 4096
    expected = Weights(10_000_000_000, 10_000_000_000 - tables, 0, Basis.ESTIMATED, "the index of its weights")
    assert look_at(folder(tmp_path, strange)).weights == expected


def test_a_quantized_checkpoint_has_nothing_left_to_quantize(tmp_path: Path) -> None:
    entry = folder(tmp_path, {**GLM_CONFIG, "quantization_config": {"quant_method": "gptq"}})
    write(tmp_path / "model.safetensors", {"model.layers.39.mlp.up_proj.qweight": ("I32", (8, 4))})
    assert look_at(entry).weights == Weights(128, 0, 0, Basis.EXACT, "safetensors headers")


@pytest.mark.parametrize(
    ("config", "said", "basis"),
    [
        ({}, (), Basis.EXACT),
        ({"num_hidden_layers": 2}, ("2 layers are declared, 40 are stored",), Basis.ESTIMATED),
        ({"num_hidden_layers": 39, "num_nextn_predict_layers": 1}, (), Basis.EXACT),
        ({"hidden_size": "wide"}, None, Basis.EXACT),
    ],
)
def test_files_that_contradict_their_configuration_are_said_to_and_never_exact(
    tmp_path: Path, config: Any, said: tuple[str, ...] | None, basis: Basis
) -> None:
    """Of 28 layers 26 were left out in silence, and what was left was called exact."""
    write(tmp_path / "model.safetensors", glm_4_9b())
    found = look_at(folder(tmp_path, {**GLM_CONFIG, **config}))
    notes = [f"config.json and the files of weights contradict each other: {'; '.join(said)}"] if said else []
    assert [note for note in found.notes if "contradict" in note] == notes
    assert found.weights is not None
    assert found.weights.basis is basis


def test_without_its_encoder_a_model_sees_no_images_and_weighs_less(tmp_path: Path) -> None:
    nowhere = {"HF_HUB_CACHE": str(tmp_path)}
    gemma, text = find_model("gemma-3-27b-it"), Where(text_only=True)
    seeing, reading = (look_at(gemma, where=where, environment=nowhere) for where in (None, text))
    assert seeing.shape is not None
    assert reading.shape == replace(seeing.shape, vision=False)
    assert seeing.weights == gemma.weights
    assert reading.weights == gemma.text_weights
    assert reading.weights is not None
    assert gemma.weights is not None
    assert 0.6e9 < gemma.weights.loaded_bytes - reading.weights.loaded_bytes < 1.1e9, "its encoder of 0.4e9 numbers"
    minicpm = find_model("minicpm-v-4.5")
    known = look_at(minicpm, where=text, environment=nowhere)
    assert minicpm.weights is not None
    assert known.weights == replace(minicpm.weights, basis=Basis.ESTIMATED), "how much its encoder is nobody says"


def test_a_float32_checkpoint_is_loaded_in_half_its_bytes(tmp_path: Path) -> None:
    entry = folder(tmp_path, {**GLM_CONFIG, "model_type": "strange", "torch_dtype": "float32"})
    (tmp_path / "pytorch_model.bin").write_bytes(b"\0" * 100)
    assert look_at(entry).weights == Weights(50, basis=Basis.ESTIMATED, source="sizes of *.bin files")


def test_an_engine_for_text_alone_leaves_the_encoder_out(tmp_path: Path) -> None:
    entry = folder(tmp_path, {**GLM_CONFIG, "vision_config": {"depth": 1}})
    write(tmp_path / "model.safetensors", {"visual.blocks.0.w": ("BF16", (8,)), "model.norm.weight": ("BF16", (4,))})
    for text_only, size in ((False, 24), (True, 8)):
        found = look_at(entry, where=Where(text_only=text_only)).weights
        assert found == Weights(size, 0, 0, Basis.EXACT, "safetensors headers")


def test_a_quantization_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    entry = folder(tmp_path, {})
    (tmp_path / "hf_quant_config.json").write_text("{}")
    assert look_at(entry).quantization == "modelopt"


def test_a_gguf_file_is_quantized_already(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    missing = f"the weights cannot be read: No such file or directory ({file})"
    assert look_at(Entry("m", str(file))) == Model(None, "gguf", name="m", notes=(missing,))
    file.write_bytes(b"GGUF")
    weights = Weights(4, basis=Basis.ESTIMATED, source="the file's size")
    assert look_at(Entry("m", str(file))) == Model(None, "gguf", (), "m", fingerprint(file), weights=weights)


def test_a_model_in_the_hubs_cache_is_read_at_the_revision_that_is_there(tmp_path: Path) -> None:
    write(cached(tmp_path, "org/m") / "model.safetensors", glm_4_9b())
    expected = Model(131072, None, (), "org/m", "abc", GLM.shape, EXACT, (), "glm", "bfloat16")
    assert look_at(Entry("org/m", "org/m"), environment={"HF_HUB_CACHE": str(tmp_path)}) == expected
    here = Where(download_dir=str(tmp_path), revision="abc")
    assert look_at(Entry("org/m", "org/m"), environment={}, where=here) == expected


def test_a_download_that_broke_off_falls_back_on_the_catalogue(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, GLM.model)
    write(snapshot / "model-00001-of-00004.safetensors", {"model.norm.weight": ("BF16", (4096,))})
    found = look_at(GLM, environment={"HF_HUB_CACHE": str(tmp_path)})
    assert (found.weights, found.revision) == (GLM.weights, "abc")
    assert found.notes == ("3 of 4 files of weights are not there, model-00002-of-00004.safetensors among them",)


def test_a_model_that_is_nowhere_is_known_by_the_catalogue_alone(tmp_path: Path) -> None:
    found = look_at(GLM, environment={"HF_HOME": str(tmp_path)})
    assert found == Model(131072, None, GLM.variants, "glm-4-9b", "", GLM.shape, GLM.weights, (), "glm")
    assert GLM.weights == Weights(18_799_902_720, 16_315_842_560, 0, Basis.EXACT, "catalogue")


def test_a_model_that_nobody_knows_is_unknown(tmp_path: Path) -> None:
    assert look_at(Entry("org/m", "org/m"), environment={"HF_HOME": str(tmp_path)}) == Model(name="org/m")


@contextmanager
def shut(path: Path) -> Iterator[None]:
    """Take the right to enter a folder away, also from a test that runs as root."""
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(0o755)


def test_a_folder_of_the_cache_without_permission_is_a_note(tmp_path: Path) -> None:
    cached(tmp_path, GLM.model)
    place = tmp_path / "models--zai-org--glm-4-9b-chat-hf"
    with shut(place):
        found = look_at(GLM, environment={"HF_HUB_CACHE": str(tmp_path)})
    assert (found.shape, found.weights) == (GLM.shape, GLM.weights)
    assert len(found.notes) == 1
    assert found.notes[0].startswith("its files cannot be looked up: Permission denied (")


def test_files_that_cannot_be_read_are_notes(tmp_path: Path) -> None:
    entry = folder(tmp_path, GLM_CONFIG)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    assert look_at(entry).notes == (f"config.json cannot be read: Is a directory ({tmp_path / 'config.json'})",)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer for the hub with GLM-4-9B's own facts, and remember the questions."""
    questions: list[str] = []

    def ask(model: str, **_: Any) -> Answer:
        questions.append(model)
        return Answer({**GLM_CONFIG, "model_type": "strange"}, {"BF16": 9_399_951_360}, "cafe", ("a note",))

    monkeypatch.setattr(hub, "ask", ask)
    return questions


def test_the_hub_is_asked_for_what_nobody_here_knows(tmp_path: Path, asked: list[str]) -> None:
    found = look_at(Entry("org/m", "org/m"), online=True, environment={"HF_HOME": str(tmp_path)})
    linear = 18_799_902_720 - 4 * 151552 * 4096
    weights = Weights(18_799_902_720, linear, 0, Basis.ESTIMATED, "the hub's metadata")
    assert found == Model(131072, None, (), "org/m", "cafe", GLM.shape, weights, ("a note",), "strange", "bfloat16")
    assert asked == ["org/m"]


def test_files_here_are_believed_before_the_hub(tmp_path: Path, asked: list[str]) -> None:
    cached(tmp_path, "org/m", {**GLM_CONFIG, "model_type": "strange", "num_hidden_layers": 20})
    found = look_at(Entry("org/m", "org/m"), online=True, environment={"HF_HUB_CACHE": str(tmp_path)})
    assert found.shape is not None
    assert found.weights is not None
    assert (found.shape.num_hidden_layers, found.weights.loaded_bytes) == (20, 18_799_902_720)
    assert (found.revision, asked) == ("abc", ["org/m"])


@pytest.mark.parametrize(
    ("entry", "environment"),
    [
        (GLM, {}),
        (Entry("/m", "/m"), {}),
        (Entry("s3://x/m", "s3://x/m"), {}),
        (Entry("org/m", "org/m"), {"HF_HUB_OFFLINE": "1"}),
        (Entry("org/m", "org/m"), {"TRANSFORMERS_OFFLINE": "yes"}),
        (Entry("org/m", "org/m"), {"VLLM_USE_MODELSCOPE": "True"}),
    ],
)
def test_the_hub_is_left_alone_where_it_is_not_needed_or_not_wanted(
    tmp_path: Path, asked: list[str], entry: Entry, environment: dict[str, str]
) -> None:
    look_at(entry, online=True, environment={"HF_HOME": str(tmp_path), **environment})
    assert asked == []


def test_without_leave_nobody_is_asked(tmp_path: Path, asked: list[str]) -> None:
    look_at(Entry("org/m", "org/m"), environment={"HF_HOME": str(tmp_path)})
    assert asked == []


@pytest.mark.parametrize("there", ["False", "True"])
@pytest.mark.parametrize("name", ["m/qwen", "./m/qwen"])
def test_a_folder_named_from_here_is_no_hub_id_and_its_name_leaves_the_host_for_nobody(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, name: str, there: str
) -> None:
    monkeypatch.setattr(modelscope, "ask", hub.ask)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m" / "qwen").mkdir(parents=True)
    (tmp_path / "m" / "qwen" / "config.json").write_text('{"model_type": "qwen3"}')
    found = look_at(find_model(name), online=True, environment={"VLLM_USE_MODELSCOPE": there})
    assert (found.shape, found.weights, asked) == (None, None, [])
