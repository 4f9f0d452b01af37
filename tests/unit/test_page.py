"""The page that people read: everything is on it, escaped, and nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import inspect
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as some

from autolaunch import drawing
from autolaunch.failure import Phase
from autolaunch.metrics import PHASES
from autolaunch.narration import STEP_WORDS
from autolaunch.page import BAR_WIDTH, HEADERS, PHASE_WORDS, TERMS, Part, bar, page, parts
from autolaunch.page_style import SCRIPT, STYLE
from autolaunch.plan_form import TERMS as BUDGET_TERMS
from autolaunch.settings import Settings
from autolaunch.status import Past, Status
from tests.unit.test_status_form import FULL

NOW = 1767323100.0
GIB = 1 << 30
BUDGET = {
    "total_bytes": 24 * GIB,
    "free_bytes": 22 * GIB,
    "requested_bytes": 21 * GIB,
    "weights_bytes": 17 * GIB,
    "non_torch_bytes": GIB // 2,
    "activation_bytes": GIB,
    "cudagraph_bytes": GIB // 2,
    "kv_cache_bytes": 2 * GIB,
    "kv_cache_tokens": 52000,
}
SERVING = replace(
    FULL, phase="ready", step=None, budget=BUDGET, outside_bytes=GIB // 2, ready_at=NOW - 50, since=NOW - 50
)
VOID = {"meta", "br", "rect"}


class Reader(HTMLParser):
    """Reads a page as a browser does: its tags must close, its text comes out."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID - {"rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return "\n".join(word for word in self.words if word)


def read(status: Status, *tail: str) -> str:
    """Return what a person reads."""
    return Reader(page(status, tail, now=NOW)).text


def test_a_server_that_serves_reads_so() -> None:
    assert read(SERVING, "INFO: ready") == "\n".join(
        (
            "Serving: glm-4-9b",
            "Serving",
            "glm-4-9b",
            "serving glm-4-9b at http://127.0.0.1:8000, context 70624 tokens",
            "vLLM 0.24.0, strategy default",
            "attempt 2, 50 s in this phase",
            "1 restart after a crash",
            "What was in the way",
            "kv_too_small",
            ": 5 GiB are needed, 2 are there",
            "the engine's line",
            "attempt 1 failed after 61 s, 2026-01-02 03:03:21 UTC",
            "The ladder",
            "attempt 1 failed after 61 s: kv_too_small",
            "5 GiB are needed, 2 are there",
            "context: 131072 -> 70624",
            "70624 fit",
            "attempt 2 serves after 48 s",
            "since 2026-01-02 03:04:10 UTC",
            "Where the memory goes",
            *("weights: 17.00 GiB", "activations: 1.00 GiB", "outside PyTorch: 0.50 GiB", "CUDA graphs: 0.50 GiB"),
            *("KV cache: 2.00 GiB", "outside the budget: 0.50 GiB", "held by others: 2.00 GiB", "left free: 0.50 GiB"),
            *("per GPU, 24.00 GiB", "planned", "measured"),
            *("weights", "exact", "17.00 GiB", "17.50 GiB"),
            *("activations", "1.00 GiB"),
            *("outside PyTorch", "0.50 GiB"),
            *("CUDA graphs", "0.50 GiB"),
            *("KV cache", "2.00 GiB"),
            *("outside the budget", "0.50 GiB"),
            *("held by others", "2.00 GiB"),
            *("left free", "0.50 GiB"),
            "The KV cache holds 80,000 tokens in all. The plan is the newest that was made; later steps are not in it.",
            "Settings",
            *("--gpu-memory-utilization", "yours", "0.95", "--max-model-len", "auto", "url", "http://127.0.0.1:8000"),
            "what the engine says of itself",
            *("max_model_len", "70624", "weights_gib", "17.5", "kv_cache_tokens", "80000"),
            "it fits",
            "The engine's log",
            "its newest 1 lines of /state/runs/r/attempt-2.log",
            "INFO: ready",
            "run 20260102-030405-7-ab, 2026-01-02T03:05:00.000Z",
            ", not answering",
        )
    )


def test_a_run_that_has_just_begun_leaves_out_what_is_not_known() -> None:
    assert read(Status(run="r", model="glm-4-9b")).split("\n")[:5] == [
        "Planning the first start: glm-4-9b",
        "Planning the first start",
        "glm-4-9b",
        "planning",
        "a vLLM of unknown version",
    ]
    assert "Where the memory goes" not in read(Status())


@pytest.mark.parametrize("step", list(Phase))
def test_every_step_of_a_start_has_its_words(step: Phase) -> None:
    assert f"Starting the engine: {STEP_WORDS[step]}" in read(replace(FULL, step=step))


def test_every_phase_of_the_machine_has_its_words() -> None:
    assert set(PHASE_WORDS) == set(PHASES)


def test_a_crash_is_the_last_rung_until_the_next_start() -> None:
    crash = Past(
        NOW, "crashed", 2, "runtime_oom", "512 MiB were asked for, 210 MiB were free", "CUDA out of memory", 2.0
    )
    waiting = read(replace(FULL, phase="backoff", past=(*FULL.past, crash)))
    assert "attempt 2 died in service: runtime_oom\n512 MiB were asked for, 210 MiB were free\n" in waiting
    hang = Past(1.0, "crashed", 2, "other_crash", "the engine hangs: no answer", death="hang")
    assert "attempt 2 hung in service: other_crash\nthe engine hangs: no answer\n" in read(
        replace(FULL, phase="backoff", past=(hang,))
    )
    assert "Clearing up\n" in read(replace(FULL, phase="stopping", clearing="other_crash"))
    assert (
        "\nWhat went wrong\nruntime_oom\n: 512 MiB were asked for, 210 MiB were free\nCUDA out of memory\n" in waiting
    )
    again = read(replace(FULL, phase="starting", attempt=3, past=(*FULL.past, crash)))
    assert "\nattempt 3\nstarting the engine\n" in again


def test_the_page_loads_nothing_from_anywhere() -> None:
    tags = Reader(page(SERVING, ("line",), now=NOW)).tags
    assert not [tag for tag, given in tags if {"src", "href", "action", "style", "srcset", "data"} & set(given)]
    assert not [tag for tag, given in tags if any(name.startswith("on") for name in given)]
    assert "http" not in STYLE + SCRIPT
    assert "url(" not in STYLE


def test_the_policy_allows_our_own_style_and_script_and_nothing_else() -> None:
    text = page(SERVING, now=NOW)
    policy = dict(HEADERS)["Content-Security-Policy"]
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        (found,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;"


@given(some.text(max_size=40).map(lambda text: text + EVIL))
def test_whatever_a_log_or_a_model_is_called_stays_text(text: str) -> None:
    status = replace(
        SERVING,
        model=text,
        run=text,
        engine_version=text,
        strategy=text,
        url=text,
        log=text,
        why=(text,),
        settings=Settings(model=text),
        effective={text: text},
        basis={"weights_bytes": text},
        past=(Past(1.0, "failed", 1, text, text, text + "!"), Past(2.0, "step", 2, "", text, text)),
    )
    shown = page(status, (text,), now=NOW)
    assert [tag for tag, _ in Reader(shown).tags if tag in ("script", "img")] == ["script"]
    assert html.escape(EVIL) in shown


def test_the_bar_is_drawn_to_scale() -> None:
    drawn = bar((Part("weights", "weights", 3), Part("kv_cache", "KV cache", -1), Part("rest", "free", 1)))
    assert re.findall(r'class="(\w+)" x="([\d.]+)" y="0" width="([\d.]+)"', drawn) == [
        ("weights", "0.0", "750.0"),
        ("rest", "750.0", "250.0"),
    ]


def test_the_parts_add_up_to_the_card() -> None:
    assert sum(part.planned for part in parts(SERVING)) == BUDGET["total_bytes"]
    widths = map(float, re.findall(r' width="([\d.]+)"', bar(parts(SERVING))))
    assert sum(widths) == pytest.approx(BAR_WIDTH, abs=0.5)


def test_the_terms_are_those_of_the_plan_in_the_words_of_its_drawing() -> None:
    assert {term for term, _ in TERMS} == set(BUDGET_TERMS)
    source = inspect.getsource(drawing)
    assert all(f'"{words}"' in source for _, words in TERMS)
    assert all(f".{term}{{" in STYLE for term, _ in (*TERMS, *((part.colour, "") for part in parts(SERVING))))
