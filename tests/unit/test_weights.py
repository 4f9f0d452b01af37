"""The bytes of checkpoints on disk, and of files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autolaunch.facts import Basis, Weights
from autolaunch.tensors import Reading, Tensor
from autolaunch.weights import HEADER_LIMIT, INDEX, Found, Unreadable, read_header, total_of, weigh, weigh_file
from tests.unit.checkpoints import glm_4_9b, header, write, write_raw

UP = "model.layers.0.mlp.up_proj.weight"
ONE = {UP: ("BF16", (8, 4))}
HEADERS = "safetensors headers"


def index(folder: Path, files: dict[str, str], *, total: Any = 1000) -> None:
    """Write an index of weights."""
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": files}))


def test_a_file_says_what_it_holds_without_being_read(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", glm_4_9b())
    found = weigh(tmp_path, Reading(layers=40))
    assert found == Found(Weights(18_799_902_720, 16_315_842_560, 0, Basis.EXACT, HEADERS))


def test_a_header_is_a_list_of_tensors(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"x": ("F32", (2, 3)), "scalar": ("BF16", ())})
    assert read_header(tmp_path / "a.safetensors") == (Tensor("x", "F32", (2, 3), 24), Tensor("scalar", "BF16", (), 2))


def test_of_several_files_those_of_the_index_count(tmp_path: Path) -> None:
    write(tmp_path / "model-00001-of-00002.safetensors", ONE)
    write(tmp_path / "model-00002-of-00002.safetensors", {"model.embed_tokens.weight": ("BF16", (10, 4))})
    write(tmp_path / "consolidated.safetensors", {"tok_embeddings.weight": ("BF16", (1000, 4))})
    index(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    assert weigh(tmp_path, Reading()) == Found(Weights(64 + 80, 64, 0, Basis.EXACT, HEADERS))


def test_without_an_index_a_second_copy_and_an_adapter_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", ONE)
    write(tmp_path / "consolidated.safetensors", ONE)
    write(tmp_path / "adapter_model.safetensors", ONE)
    (tmp_path / "original").mkdir()
    write(tmp_path / "original" / "model.safetensors", ONE)
    assert weigh(tmp_path, Reading()).weights == Weights(64, 64, 0, Basis.EXACT, HEADERS)


def test_a_copy_that_stands_alone_is_the_model(tmp_path: Path) -> None:
    write(tmp_path / "consolidated.safetensors", {"layers.0.attention.wq.weight": ("BF16", (8, 4))})
    assert weigh(tmp_path, Reading()).weights == Weights(64, 64, 0, Basis.EXACT, HEADERS)


def test_a_tensor_that_two_files_hold_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", ONE)
    write(tmp_path / "b.safetensors", ONE)
    assert weigh(tmp_path, Reading()).weights == Weights(64, 64, 0, Basis.EXACT, HEADERS)


def test_a_download_that_broke_off_is_not_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "model-00002-of-00003.safetensors", ONE)
    files = {f"t{part}": f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)}
    note = "2 of 3 files of weights are not there, model-00001-of-00003.safetensors among them"
    assert weigh(tmp_path, Reading()) == Found(None, (note,))
    index(tmp_path, files, total=5000)
    expected = Weights(5000, basis=Basis.ESTIMATED, source="the index of its weights")
    assert weigh(tmp_path, Reading()) == Found(expected, (note,))


def test_a_link_to_a_file_that_is_gone_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    index(tmp_path, {"a": "model.safetensors"})
    assert weigh(tmp_path, Reading()).notes == ("1 of 1 files of weights are not there, model.safetensors among them",)


def test_a_link_to_a_blob_is_the_file(tmp_path: Path) -> None:
    write(tmp_path / "blob", ONE)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "blob")
    assert weigh(snapshot, Reading()).weights == Weights(64, 64, 0, Basis.EXACT, HEADERS)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/hostname", "sub/model.safetensors"])
def test_an_index_reaches_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    index(tmp_path, {"a": name})
    assert weigh(tmp_path, Reading()).notes == (f"1 of 1 files of weights are not there, {name} among them",)


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"weight_map": 7}', '{"weight_map": {"a": 7}}'])
def test_an_index_that_is_none_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    assert weigh(tmp_path, Reading()) == Found(None, (f"{INDEX} is no index of weights",))


TABLE = header(ONE)[0]
GOOD = TABLE[UP]


@pytest.mark.parametrize(
    ("text", "data", "why"),
    [
        (b"nonsense", 0, "m.safetensors has a header that is not JSON"),
        (b"\xff\xfe", 0, "m.safetensors has a header that is not JSON"),
        (b"[" * 100_000, 0, "m.safetensors has a header that is not JSON"),
        (b"[]", 0, "m.safetensors has a header that is not a table"),
        (json.dumps(TABLE).encode(), 63, f"m.safetensors is cut off: {UP} ends at byte 64 of 63"),
        (json.dumps({"x": 7}).encode(), 64, "m.safetensors does not say the size of x"),
        (json.dumps({"x": {**GOOD, "dtype": 7}}).encode(), 64, "m.safetensors does not say the size of x"),
        (json.dumps({"x": {**GOOD, "shape": "8, 4"}}).encode(), 64, "m.safetensors does not say the size of x"),
        (json.dumps({"x": {**GOOD, "shape": [-8, 4]}}).encode(), 64, "m.safetensors does not say the size of x"),
        (json.dumps({"x": {**GOOD, "shape": [True]}}).encode(), 64, "m.safetensors does not say the size of x"),
        (json.dumps({"x": {**GOOD, "data_offsets": [0]}}).encode(), 64, "m.safetensors does not say the size of x"),
        (
            json.dumps({"x": {**GOOD, "data_offsets": [64, 0]}}).encode(),
            64,
            "m.safetensors is cut off: x ends at byte 0 of 64",
        ),
        (
            json.dumps({"x": {**GOOD, "shape": [8, 5]}}).encode(),
            64,
            "m.safetensors contradicts itself: x is BF16 [8, 5] in 64 bytes",
        ),
    ],
)
def test_a_header_that_cannot_be_true_is_refused_with_a_reason(
    tmp_path: Path, text: bytes, data: int, why: str
) -> None:
    write_raw(tmp_path / "m.safetensors", text, data)
    assert weigh(tmp_path, Reading()) == Found(None, (why,))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "m.safetensors is cut off: 0 bytes do not hold its header"),
        (b"\x10\0\0", "m.safetensors is cut off: 3 bytes do not hold its header"),
        (b"\x10\0\0\0\0\0\0\0{}", "m.safetensors is cut off: 10 bytes do not hold its header"),
        (b"\xff" * 20, "m.safetensors is cut off: 20 bytes do not hold its header"),
    ],
)
def test_a_file_that_ends_within_its_header_is_cut_off(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    assert weigh(tmp_path, Reading()) == Found(None, (why,))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 15231233024\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.gguf"])
def test_what_git_lfs_leaves_in_the_place_of_a_file_is_said_to_be_that(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    said = f"{name} is a pointer of git-lfs in the place of the weights: git lfs pull fetches them"
    assert weigh(tmp_path, Reading()) == Found(None, (said,))
    assert weigh_file(tmp_path / name) == Found(None, (said,))


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    write_raw(file, b"{}", 3 * HEADER_LIMIT, length=HEADER_LIMIT + 1)
    with pytest.raises(Unreadable, match=r"m\.safetensors claims a header of 100000001 bytes"):
        read_header(file)


def test_a_type_of_tomorrow_is_believed_by_its_bytes(tmp_path: Path) -> None:
    entry = {"dtype": "F1_X", "shape": [800], "data_offsets": [0, 100]}
    write_raw(tmp_path / "m.safetensors", json.dumps({"x": entry}).encode(), 100)
    assert weigh(tmp_path, Reading()).weights == Weights(100, 0, 0, Basis.EXACT, HEADERS)


@pytest.mark.parametrize(
    ("files", "reading", "size"),
    [
        ({"pytorch_model.bin": 100, "training_args.bin": 7, "optimizer.pt": 9}, Reading(), 100),
        ({"pytorch_model.bin": 100}, Reading(float32=True), 50),
        ({"pytorch_model.bin": 100}, Reading(float32=True, quantized=True), 100),
        ({"pytorch_model-00001-of-00002.bin": 60, "pytorch_model-00002-of-00002.bin": 50}, Reading(), 110),
        ({"consolidated.00.pt": 70}, Reading(), 70),
        ({"model.gguf": 80}, Reading(float32=True), 80),
    ],
)
def test_files_without_headers_count_by_their_size(
    tmp_path: Path, files: dict[str, int], reading: Reading, size: int
) -> None:
    for name, length in files.items():
        (tmp_path / name).write_bytes(b"\0" * length)
    suffix = next(iter(files)).rpartition(".")[2]
    assert weigh(tmp_path, reading) == Found(Weights(size, basis=Basis.ESTIMATED, source=f"sizes of *.{suffix} files"))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (
            ["pytorch_model-00001-of-00002.bin"],
            "1 of 2 files of weights are not there, pytorch_model-00002-of-00002.bin among them",
        ),
        (["q4.gguf", "q8.gguf"], "there are 2 GGUF files, and each is a whole model"),
    ],
)
def test_files_that_are_not_one_model_are_not_added_up(tmp_path: Path, names: list[str], why: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert weigh(tmp_path, Reading()) == Found(None, (why,))


def test_a_folder_without_weights_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert weigh(tmp_path, Reading()) == Found(None)


def test_a_folder_that_is_none_says_why(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()
    assert weigh(file, Reading()).notes == (f"the weights cannot be read: Not a directory ({file})",)


def test_a_gguf_file_counts_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    assert weigh_file(file) == Found(None, (f"the weights cannot be read: No such file or directory ({file})",))
    file.write_bytes(b"GGUF")
    assert weigh_file(file) == Found(Weights(4, basis=Basis.ESTIMATED, source="the file's size"))


@pytest.mark.parametrize("total", [None, 0, -1, True, "9", 1.5, 1e30, 1 << 60, float("inf")])
def test_a_sum_that_can_be_none_is_none(total: Any) -> None:
    assert total_of(total, "x") is None


@pytest.mark.parametrize("total", [9000, 9000.0])
def test_a_sum_is_an_estimate(total: Any) -> None:
    assert total_of(total, "x") == Weights(9000, basis=Basis.ESTIMATED, source="x")
