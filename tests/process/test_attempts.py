"""`scripts/bench attempts` over real processes: one situation, all competitors, nothing left."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from scripts.attempts.oracle import best
from scripts.attempts.situations import CARDS, Situation
from scripts.bench_attempts import CHECKOUT, Bench, main
from tests.fake_engine.memory import MemoryModel
from tests.fake_engine.models import GLM_4_9B

pytestmark = pytest.mark.process


def mentioning(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found += [int(entry.name)] * (text.encode() in (entry / "environ").read_bytes())
            except OSError:
                continue
    return found


def test_every_competitor_lives_through_a_situation_and_leaves_nothing(tmp_path: Path) -> None:
    card = next(card for card in CARDS if card.name == "NVIDIA L4")
    memory = MemoryModel(
        total_gib=card.total_bytes / 2**30, capability=card.capability, dims=GLM_4_9B, cache="folder", nvml=True
    )
    case = Bench(tmp_path, CHECKOUT, 1, verbose=False).case(Situation(1, card, GLM_4_9B, "0.24.0", "none", memory))
    assert case.answer == best(case.situation)
    assert (case.runs["plain"].kinds, case.runs["plain"].came_up) == (("kv_too_small",), False)
    auto = case.runs["auto"]
    assert (auto.kinds, auto.came_up, auto.seconds) == (("ok",), True, 91.5)
    assert auto.context == auto.kv_tokens > 4096
    for name in ("autolaunch", "second start", "classic"):
        run = case.runs[name]
        assert (run.came_up, run.code, run.kinds[-1], run.left) == (True, 0, "ok", "")
        assert run.context >= 4096
        assert '"' in run.settings
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert mentioning(str(tmp_path)) == []


def test_the_command_prints_a_table_and_removes_its_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    assert main(["--situations", "2", "--seed", "4", "--out", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    assert "2 situations of seed 4 in " in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("autolaunch  ", "classic", "plain"))] == [
        "autolaunch",
        "classic",
        "plain",
    ]
    assert (tmp_path / "out.json").stat().st_size > 1000
    assert list((tmp_path / "t").iterdir()) == []
