"""Which of the models with a short name fit: the same answer as a plan for each, in a table that fits the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from autolaunch import planner
from autolaunch.candidates import Question, candidates
from autolaunch.cards import find_card
from autolaunch.case import Limits
from autolaunch.catalog import catalog, find_model
from autolaunch.cli import cli
from autolaunch.climb import begin
from autolaunch.entry import Entry
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation
from autolaunch.lineup import Fit, Listed, Verdict, Where, judge, tensor_parallel_sizes
from autolaunch.lineup_text import HEADINGS, in_full, table, verdict
from autolaunch.model import look_at
from autolaunch.settings import Settings
from autolaunch.strategy import load_strategy
from tests import fake_nvml

DEFAULT = load_strategy("default")
NOWHERE = {"HF_HOME": "/nowhere"}


def where(card: str, *cards: int, version: str = "0.32.0") -> Where:
    """So many cards of a kind."""
    return Where(dict.fromkeys(cards or (1,), find_card(card).device()), Engine(version, DeviceKind.CUDA), DEFAULT)


def known(name: str) -> tuple[Entry, Model]:
    """A model of the catalogue, as if nothing of it were here."""
    entry = find_model(name) if not catalog().get(name, Entry("", "")).refusal else catalog()[name]
    return entry, look_at(entry, environment=NOWHERE)


def shown(name: str, place: Where) -> str:
    """The words of a model's verdict."""
    entry, model = known(name)
    return verdict(judge(entry, model, place), full=model.max_model_len)


@pytest.mark.parametrize(
    ("name", "card", "cards", "words"),
    [
        ("qwen3-4b", "RTX 4090", (1,), "fits"),
        ("glm-4-9b", "RTX 4090", (1,), "fits, 72k"),
        ("phi-4", "RTX 4090", (1,), "fits with FP8"),
        ("qwen3-32b", "RTX 4090", (1,), "fits with AWQ, 7k"),
        ("glm-4.5-air", "H100", (1, 2, 4, 8), "fits on 2 cards with FP8"),
        ("glm-4.5-air", "H100", (4,), "fits on 4 cards"),
        ("kimi-k2-thinking", "H200", (1, 2, 4, 8), "fits on 8 cards"),
        ("chatglm3-6b", "RTX 4090", (1,), "needs vLLM 0.9 or older"),
        ("hunyuanvideo-1.5", "RTX 4090", (1,), "not for vLLM"),
        ("glm-4-9b-0414", "Tesla T4", (1,), "needs a newer card"),
    ],
)
def test_a_verdict_in_a_few_words(name: str, card: str, cards: tuple[int, ...], words: str) -> None:
    assert shown(name, where(card, *cards)) == words


def test_what_is_missing_is_what_a_card_that_is_so_much_larger_has() -> None:
    entry, model = known("gemma-3-27b-it")
    card = find_card("RTX 4090").device()
    engine = Engine("0.32.0", DeviceKind.CUDA)
    fit = judge(entry, model, Where({1: card}, engine, DEFAULT))
    assert fit.verdict is Verdict.TOO_BIG
    assert fit.missing is not None
    total = (card.total_bytes or 0) + int(1.06 * fit.missing)  # a share is left to the engine's context
    larger = Device(DeviceKind.CUDA, "larger", total, total, (8, 9))
    assert judge(entry, model, Where({1: larger}, engine, DEFAULT)).verdict is not Verdict.TOO_BIG
    smaller = Device(DeviceKind.CUDA, "smaller", total - fit.missing // 2, total - fit.missing // 2, (8, 9))
    assert judge(entry, model, Where({1: smaller}, engine, DEFAULT)).verdict is Verdict.TOO_BIG


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (Fit(Verdict.UNKNOWN, why="no card can be read here"), "unknown"),
        (Fit(Verdict.TOO_BIG, missing=int(2.5 * GIB)), "too big by 2.5 GiB"),
        (Fit(Verdict.TOO_BIG, cards=4, missing=GIB), "too big by 1.0 GiB each"),
        (Fit(Verdict.TOO_BIG), "too big"),
        (Fit(Verdict.FEWER_BITS, bits="bitsandbytes", context=4096), "fits in 4 bits, 4k"),
        (Fit(Verdict.FITS, hopeful=True, context=600), "may fit, 600"),
        (Fit(Verdict.FITS, context=8192), "fits"),
    ],
)
def test_the_words_of_every_kind_of_verdict(fit: Fit, words: str) -> None:
    assert verdict(fit, full=8192) == words


def test_without_a_card_nothing_is_known_but_refusals() -> None:
    nowhere = Where({}, Engine("0.32.0"), DEFAULT)
    assert judge(*known("glm-4-9b"), nowhere) == Fit(Verdict.UNKNOWN, why="no card can be read here")
    assert judge(*known("got-ocr-2.0"), nowhere).verdict is Verdict.REFUSED


def test_a_model_of_which_nothing_is_known_is_unknown() -> None:
    fit = judge(Entry("own", "me/own"), Model(name="own"), where("H100"))
    assert (fit.verdict, fit.why) == (
        Verdict.UNKNOWN, "the model's size is not known before it is loaded: the engine's own figures decide"
    )  # fmt: skip


@pytest.mark.parametrize("card", ["RTX 4090", "H100", "Tesla T4"])
@pytest.mark.parametrize("version", ["0.6.3", "0.11.0", "0.32.0"])
def test_the_plan_is_the_same_with_and_without_the_short_cut(
    card: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first combination cannot be beaten the others are not looked at: a list of 50 models takes half."""
    found = []
    for name in list(catalog())[::4]:
        _, model = known(name)
        situation = Situation(find_card(card).device(), Engine(version, DeviceKind.CUDA), model)
        climb = begin(DEFAULT, Limits(), Settings(), pins=frozenset(), situation=situation)
        found.append(Question(climb, situation))
    short = [planner.plan(question) for question in found]
    monkeypatch.setattr(planner, "_is_whole", lambda *_: False)
    assert short == [planner.plan(question) for question in found]
    assert all(tuple(candidates(question)) for question in found if planner.plan(question).fits)


def listed(*names: str, card: str = "RTX 4090") -> list[Listed]:
    """Models with their verdicts."""
    place = where(card)
    return [Listed(*known(name), judge(*known(name), place)) for name in names]


def test_the_table_fits_80_columns_without_the_hub_ids_and_120_with_them() -> None:
    every = listed(*catalog())
    for width in (80, 120):
        lines = list(table(every, width=width))
        assert max(map(len, lines)) <= width
        assert len(lines) == len(catalog()) + 1
    assert lines[0].split() == list(HEADINGS)
    assert "zai-org/glm-4-9b-chat-hf" in lines[2]
    assert next(table(every, width=80)).split() == list(HEADINGS[:-1])


@pytest.mark.parametrize("width", [1, 20, 60, 79, 100, 110])
def test_a_narrow_terminal_loses_columns_but_never_the_verdict(width: int) -> None:
    for line, one in zip(
        list(table(listed("glm-4-9b", "qwen3-32b"), width=width))[1:], ("fits, 72k", "AWQ"), strict=True
    ):
        assert one in line


def test_a_file_gets_every_column_whole() -> None:
    (_, line) = table(listed("mistral-small-24b-instruct-2501"), width=None)
    assert line.split("  ")[-1] == "mistralai/Mistral-Small-24B-Instruct-2501"


def test_one_model_is_shown_in_full() -> None:
    (one,) = listed("minicpm-v-4.5", card="H100")
    assert list(in_full(one)) == [
        "minicpm-v-4.5  openbmb/MiniCPM-V-4_5",
        "  MiniCPM-V 4.5, sees images, remote code for transformers 4, 16.2 GiB in bf16",
        "  also       minicpm-v-4_5, minicpm-v",
        "  weights    16.20 GiB (exact)",
        "  context    40960 tokens",
        "  KV cache   144.00 MiB for 1024 tokens",
        "  cards      1, 2, 4, 8, 16",
        "  needs      vLLM 0.10.2 or newer; vLLM 0.23 or older; "
        "--trust-remote-code, which the short name brings: code of its publisher runs",
        "  fewer bits openbmb/MiniCPM-V-4_5-AWQ (awq, 6.62 GiB)",
        "  here       needs vLLM 0.23 or older: minicpm-v-4.5 needs vLLM 0.23 or older, this is 0.32.0",
    ]


def test_kimi_can_be_shared_out_and_minimax_not_to_eight() -> None:
    assert tensor_parallel_sizes(known("kimi-k2-thinking")[1]) == (1, 2, 4, 8, 16)
    assert tensor_parallel_sizes(known("minimax-m2")[1]) == (1, 2, 4)
    assert tensor_parallel_sizes(Model()) == ()


# --- the command


def run(*args: str, tmp_path: Path) -> tuple[str, str]:
    """Run `autolaunch models` away from this machine's cards and models; return stdout and stderr."""
    away = {"XDG_CONFIG_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "PATH": "", "AUTOLAUNCH_ENGINE": None}
    result = CliRunner().invoke(cli, ["models", *args], env=away)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


def test_the_command_lists_every_model_for_a_card_that_is_not_here(tmp_path: Path) -> None:
    out, err = run("--gpu", "RTX 4090", "--engine-version", "0.32.0", tmp_path=tmp_path)
    assert [line.split()[0] for line in out.splitlines()] == ["name", *catalog()]
    assert err.splitlines()[0] == "on NVIDIA GeForce RTX 4090, 23.52 GiB of 23.52 GiB free, vLLM 0.32.0"


def test_a_card_by_its_size_and_what_is_free_of_it(tmp_path: Path) -> None:
    words = ("--gpu-memory-total", "80GiB", "--gpu-memory-free", "20GiB", "--engine-version", "0.32.0", "--gpus", "2")
    out, err = run("glm-4-9b", *words, tmp_path=tmp_path)
    assert err.splitlines()[0] == "on 2 x a card of 80.00 GiB, 20.00 GiB of 80.00 GiB free, vLLM 0.32.0"
    assert out.splitlines()[-1] == "  here       fits on 2 cards"


def test_json_has_whole_values_and_null_for_what_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "autolaunch").mkdir()
    file = tmp_path / "autolaunch" / "models.toml"
    file.write_text('[mine]\nmodel = "me/mine"\n')
    out, _ = run("--gpu", "H100", "--engine-version", "0.32.0", "--json", tmp_path=tmp_path)
    answer = json.loads(out)
    assert answer["on"] == {
        "device": "NVIDIA H100 80GB HBM3", "kind": "cuda", "cards": 1, "total_bytes": answer["on"]["free_bytes"],
        "free_bytes": answer["on"]["total_bytes"], "engine_version": "0.32.0",
    }  # fmt: skip
    assert [one["name"] for one in answer["models"]] == ["mine", *catalog()]
    mine, glm = answer["models"][0], answer["models"][2]
    assert (mine["file"], mine["weights_bytes"], mine["fits"], mine["verdict"]) == (str(file), None, None, "unknown")
    assert glm == {
        "name": "glm-4-9b", "model": "zai-org/glm-4-9b-chat-hf",
        "description": "GLM-4-9B chat, no remote code, 17.5 GiB in bf16",
        "also": ["glm-4-9b-chat", "glm-4-9b-chat-hf", "THUDM/glm-4-9b-chat-hf"], "file": None,
        "weights_bytes": 18_799_902_720, "max_model_len": 131_072, "kv_bytes_per_token": 40_960.0,
        "tensor_parallel_sizes": [1, 2, 4, 8, 16], "since": "0.6.5", "until": None, "trust_remote_code": False,
        "variants": ["ModelCloud/glm-4-9b-chat-gptq-4bit", "model-scope/glm-4-9b-chat-GPTQ-Int4"],
        "verdict": "fits", "fits": True, "quantization": None, "cards": 1, "context": 131_072,
        "missing_bytes": None, "why": "", "settings": glm["settings"],
    }  # fmt: skip


def test_this_machines_cards_are_judged_with_as_few_as_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"name": "card", "total": 24 * GIB, "free": 23 * GIB, "capability": [8, 9]}
    fake_nvml.believe(monkeypatch, tmp_path, card, card)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    engine = ("--engine", "/bin/true", "--engine-version", "0.32.0")  # whatever vLLM may lie beside this Python
    out, err = run("qwen2.5-14b-instruct", *engine, tmp_path=tmp_path)
    assert err.splitlines()[0] == "on 2 x card, 23.00 GiB of 24.00 GiB free, vLLM 0.32.0"
    assert out.splitlines()[-1] == "  here       fits with FP8, 25k"
    out, _ = run("qwen2.5-14b-instruct", *engine, "--gpus", "2", tmp_path=tmp_path)
    assert out.splitlines()[-1] == "  here       fits on 2 cards"


def test_an_older_engine_is_judged_by_the_form_that_it_would_serve(tmp_path: Path) -> None:
    out, _ = run("glm-4-9b", "--gpu", "H100", "--engine-version", "0.6.3", tmp_path=tmp_path)
    assert out.splitlines()[-1] == "  here       fits"


def test_a_refused_model_is_shown_with_the_reason(tmp_path: Path) -> None:
    out, _ = run("tencent/HunyuanVideo-1.5", "--gpu", "H100", tmp_path=tmp_path)
    assert "  here       not for vLLM: HunyuanVideo-1.5 makes videos" in out
