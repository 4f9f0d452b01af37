"""`scripts/bench memory`: what it prints of records, and that the memory model meets its goals on public ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
OWN = CHECKOUT / "tests" / "data" / "memory" / "records.jsonl"
"""Starts of the engine logs kept beside it, one that tells too little and one that memory did not decide."""

PUBLIC = CHECKOUT.parent / "shared" / "memtruth" / "records.jsonl"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the part as `scripts/bench` does."""
    command = [sys.executable, "scripts/bench.py", "memory", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def figures(text: str, name: str, after: str) -> list[str]:
    """Return the words of the first row of a name after a heading."""
    rows = text[text.index(after) :].splitlines()
    return next(row for row in rows if row.startswith(name + " ")).removeprefix(name).split()


def test_records_become_tables_by_card_and_kind_and_verdicts() -> None:
    done = bench("--records", str(OWN))
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 of 6 records tell enough, 3" in done.stdout
    for heading, name in (("by card", "H100-80G"), ("by kind", "dense"), ("by era", "GRAPHS_CHARGED")):
        count, median, _, worst, _, inside = figures(done.stdout, name, heading)
        assert (count, inside) == ("3", "3/3")
        assert float(median) <= float(worst) <= 0.1
    assert figures(done.stdout, "came up", "verdict")[:2] == ["2", "2"]
    assert figures(done.stdout, "failed of memory", "verdict")[:2] == ["2", "2"]
    assert figures(done.stdout, "all", "verdict") == ["4", "4", "100.0%"]


def test_every_term_of_every_record_is_shown_on_request() -> None:
    shown = bench("--records", str(OWN), "--detail").stdout
    assert re.search(
        r"gpu_b GRAPHS_CHARGED H100-80G dense\n +weights 17\.5\d/17\.56 non-torch .* kv 2\.\d\d/2\.69", shown
    )


def test_without_records_it_says_so() -> None:
    done = bench("--records", "/nonexistent.jsonl")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no records at /nonexistent.jsonl\nhint: --records FILE names a records.jsonl of real starts\n"
    )


def test_the_goals_are_met_on_public_records() -> None:
    """Dense models: median at most 0.15 GiB, 90th percentile 0.5; verdicts right in at least 95 %."""
    if not PUBLIC.is_file():
        pytest.skip(f"no records at {PUBLIC}")
    shown = bench().stdout
    count, median, p90, *_ = figures(shown, "dense", "by kind")
    assert int(count) >= 30
    assert float(median) <= 0.15
    assert float(p90) <= 0.5
    assert float(figures(shown, "all", "verdict")[-1].rstrip("%")) >= 95.0
