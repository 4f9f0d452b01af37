"""What the command line says of itself, and of words that it cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from autolaunch.cli import cli, main
from autolaunch.errors import WishError
from autolaunch.planning import Imagined
from autolaunch.state import trouble_of


@pytest.mark.parametrize("command", ["serve", "plan", "systemd"])
def test_the_usage_names_the_model(command: str) -> None:
    said = CliRunner().invoke(cli, [command, "--help"]).stdout.splitlines()[0]
    assert said.startswith("Usage: ")
    assert f" {command} MODEL [OPTIONS] [ANY VLLM" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["plan", "glm-4-9b", "--gpu-memory-total", "22"], "autolaunch plan --help lists its options"),
        (["glm-4-9b", "--memory", "22"], "autolaunch serve --help lists its options"),
        (["history", "--limit", "0"], "autolaunch history --help lists its options"),
        (["diagnose", "--nonsense"], "autolaunch diagnose --help lists its options"),
    ],
)
def test_a_mistyped_option_names_the_help_of_its_command(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"hint: {hint}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("a100", "a100 is taken for NVIDIA A100-SXM4-40GB, the one of 40 GB; there is one of 80 GB: A100 80GB"),
        ("A100-40GB", ""),
        ("RTX 4060 Ti 8G", ""),
        ("RTX 4090", ""),
    ],
)
def test_a_name_that_cards_of_several_sizes_have_is_told_which_one_was_taken(name: str, note: str) -> None:
    assert Imagined(gpu=name).note == note
    assert Imagined(total_bytes=1 << 34).note == ""


def test_a_card_of_a_few_kilobytes_is_refused() -> None:
    with pytest.raises(WishError, match="no card has less than 1 GiB"):
        Imagined(total_bytes=22 << 10).device()


def test_a_state_folder_is_no_trouble_where_it_can_be_made_and_nothing_is(tmp_path: Path) -> None:
    assert trouble_of(tmp_path / "a" / "b") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert trouble_of(tmp_path / "state") == f"{tmp_path}/state is no folder"
