"""A run's status as one page that a person can read on a phone: the phase, the ladder, the memory, the log's end.

Pure. Owns the picture, its words and its own policy: nothing is loaded from anywhere, and everything that came from a
model, an engine or a log is escaped. Light or dark as the reader's device is; without a script it still refreshes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from autolaunch.narration import STEP_WORDS
from autolaunch.page_style import SCRIPT, STYLE
from autolaunch.settings import Settings
from autolaunch.sizes import gib
from autolaunch.status import Past, Status
from autolaunch.status_form import measured, rfc3339
from autolaunch.verdict import Death


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


HEADERS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
"""Our own style and script by their digests, and nothing else, whatever a log line holds."""

PHASE_WORDS: Mapping[str, str] = {
    "planning": "Planning the first start",
    "starting": "Starting the engine",
    "ready": "Serving",
    "stopping": "Stopping the engine",
    "backoff": "Waiting to start again",
    "stopped": "Stopped",
    "exhausted": "Nothing fits",
}

TERMS = (
    ("weights", "weights"),
    ("activation", "activations"),
    ("non_torch", "outside PyTorch"),
    ("cudagraph", "CUDA graphs"),
    ("kv_cache", "KV cache"),
)
"""The terms of a budget as `autolaunch plan` draws them, in its order and with its words."""

BAR_WIDTH, BAR_HEIGHT = 1000, 44


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a card's memory: its colour's name, its words, its bytes as planned and as measured, its basis."""

    colour: str
    name: str
    planned: int
    found: int | None = None
    basis: str = ""


def page(status: Status, tail: Sequence[str] = (), *, now: float) -> str:
    """Return the whole page; `tail` the newest lines of the engine's log, `now` in Unix seconds."""
    title = f"{_phase(status)}: {status.model}"
    sections = "\n".join(
        section
        for section in (
            _headline(status, now),
            _failure(status),
            _section("The ladder", _ladder(status)),
            _section("Where the memory goes", _memory(status)),
            _section("Settings", _settings(status)),
            _section("The engine's log", _log(status, tail)),
        )
        if section
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        '<noscript><meta http-equiv="refresh" content="10"></noscript></head>\n'
        f"<body><main>\n{sections}\n"
        f'<footer>run {escape(status.run)}, {rfc3339(now)}<span id="lost" hidden>, not answering</span></footer>\n'
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def _section(name: str, content: str) -> str:
    return f"<section><h2>{escape(name)}</h2>{content}</section>" if content else ""


def _headline(status: Status, now: float) -> str:
    words = _phase(status)
    if status.phase == "starting" and status.step is not None:
        words = f"{words}: {STEP_WORDS[status.step]}"
    version = f"vLLM {status.engine_version}" if status.engine_version else "a vLLM of unknown version"
    facts = [
        f"{version}, strategy {status.strategy}" if status.strategy else version,
        f"attempt {status.attempt}" + (f", {_span(now - status.since)} in this phase" if status.since else ""),
    ]
    if status.restarts:
        facts.append(f"{status.restarts} restart{'s' if status.restarts > 1 else ''} after a crash")
    return (
        f'<header class="{_mood(status.phase)}"><p class="phase">{escape(words)}</p><h1>{escape(status.model)}</h1>'
        f"<p>{escape(status.line)}</p><p class=dim>{'<br>'.join(map(escape, facts))}</p></header>"
    )


def _phase(status: Status) -> str:
    return "Clearing up" if status.clearing else PHASE_WORDS.get(status.phase, status.phase)


def _mood(phase: str) -> str:
    return {"ready": "good", "exhausted": "bad", "backoff": "bad", "stopped": "still"}.get(phase, "busy")


def _failure(status: Status) -> str:
    """Return the last failure in plain words, also when the engine serves again; "" where none failed."""
    failure = status.last_failure
    if failure is None:
        return ""
    again = status.phase == "ready" and failure.what == "failed"
    words = "What was in the way" if again else "What went wrong"
    line = f'<p class="dim line">{escape(failure.why)}</p>' if failure.why and failure.why != failure.text else ""
    when = f"{_happened(failure)}, {_clock(failure.at)}"
    return _section(words, f"<p><b>{escape(failure.kind)}</b>: {escape(failure.text)}</p>{line}<p class=dim>{when}</p>")


def _happened(past: Past) -> str:
    if past.what == "crashed":
        return f"attempt {past.n} {'hung' if past.death == Death.HANG else 'died'} in service"
    return f"attempt {past.n} failed after {_span(past.seconds)}"


def _ladder(status: Status) -> str:
    rows = list(_rungs(status))
    return f"<ol>{''.join(rows)}</ol>" if rows else ""


def _rungs(status: Status) -> Iterator[str]:
    for past in status.past:
        if past.what == "step":
            yield _rung("step", past.text, past.why)
        else:
            yield _rung("bad", f"{_happened(past)}: {past.kind}", past.text)
    if not status.attempt or (status.past and _over(status)):
        return
    if status.phase == "ready":
        took = f" after {_span(status.ready_seconds)}" if status.ready_seconds is not None else ""
        yield _rung(
            "good", f"attempt {status.attempt} serves{took}", f"since {_clock(status.ready_at or status.since)}"
        )
    else:
        yield _rung("busy", f"attempt {status.attempt}", _phase(status).lower())


def _over(status: Status) -> bool:
    """Whether the newest attempt is already told as failed or crashed."""
    newest = status.past[-1]
    return newest.what != "step" and newest.n == status.attempt and status.phase != "ready"


def _rung(mood: str, words: str, more: str) -> str:
    rest = f"<br><span class=dim>{escape(more)}</span>" if more else ""
    return f'<li class="{mood}">{escape(words)}{rest}</li>'


# --- memory


def parts(status: Status) -> tuple[Part, ...]:
    """Return where a card's memory goes by the plan, and what the engine measured of it; none without a plan."""
    budget = status.budget
    total, requested = budget.get("total_bytes"), budget.get("requested_bytes")
    if total is None or requested is None:
        return ()
    free = total if budget.get("free_bytes") is None else budget["free_bytes"]
    found = measured(status.effective)
    own = [
        Part(term, name, budget[f"{term}_bytes"], found.get(f"{term}_bytes"), status.basis.get(f"{term}_bytes", ""))
        for term, name in TERMS
        if budget.get(f"{term}_bytes")
    ]
    outside = status.outside_bytes or 0
    rest = (
        Part("outside", "outside the budget", outside),
        Part("held", "held by others", total - free),
        Part("rest", "left free", free - outside - requested),
    )
    return (*own, *(part for part in rest if part.planned))


def _memory(status: Status) -> str:
    shown = parts(status)
    if not shown:
        return ""
    tokens = status.effective.get("kv_cache_tokens", status.budget.get("kv_cache_tokens"))
    cache = f" The KV cache holds {tokens:,} tokens in all." if isinstance(tokens, int) else ""
    stale = " The plan is the newest that was made; later steps are not in it." if status.attempt > 1 else ""
    rows = "".join(
        f'<tr><td><i class="sign {part.colour}"></i>{escape(part.name)} '
        f"<span class=dim>{escape(part.basis)}</span></td>"
        f"<td>{gib(part.planned)}</td><td>{'' if part.found is None else gib(part.found)}</td></tr>"
        for part in shown
    )
    return (
        f"{bar(shown)}<table class=memory><thead><tr><th>per GPU, {gib(status.budget['total_bytes'])}</th>"
        f"<th>planned</th><th>measured</th></tr></thead><tbody>{rows}</tbody></table><p class=dim>{cache}{stale}</p>"
    )


def bar(shown: Sequence[Part]) -> str:
    """Return the parts drawn to scale; what takes more than there is (a negative part) is left out."""
    positive = [part for part in shown if part.planned > 0]
    total = sum(part.planned for part in positive)
    words = ", ".join(f"{part.name} {gib(part.planned)}" for part in positive)
    drawn, x = [], 0.0
    for part in positive:
        width = part.planned / total * BAR_WIDTH
        drawn.append(
            f'<rect class="{part.colour}" x="{x:.1f}" y="0" width="{width:.1f}" height="{BAR_HEIGHT}">'
            f"<title>{escape(part.name)}: {gib(part.planned)}</title></rect>"
        )
        x += width
    return (
        f'<svg role="img" aria-label="{escape(words)}" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" '
        f'preserveAspectRatio="none">{"".join(drawn)}</svg>'
    )


def _settings(status: Status) -> str:
    rows = "".join(
        _row(option, value, "yours" if name in status.pins else "") for name, option, value in _set(status.settings)
    )
    rows += _row("url", status.url) if status.url else ""
    if status.effective:
        rows += "<tr><th colspan=2>what the engine says of itself</th></tr>"
        rows += "".join(_row(name, value) for name, value in status.effective.items())
    why = "".join(f"<p class=dim>{escape(text)}</p>" for text in status.why)
    return f"<table><tbody>{rows}</tbody></table>{why}"


def _set(settings: Settings) -> Iterator[tuple[str, str, Any]]:
    for name, value in settings.as_json().items():
        option = "--" + name.replace("_", "-")
        yield name, option, ",".join(map(str, value)) if isinstance(value, list) else value


def _row(name: str, value: Any, note: str = "") -> str:
    shown = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    shown = round(shown, 3) if isinstance(shown, float) else shown
    more = f" <span class=dim>{escape(note)}</span>" if note else ""
    return f"<tr><td><code>{escape(name)}</code>{more}</td><td>{escape(str(shown))}</td></tr>"


def _log(status: Status, tail: Sequence[str]) -> str:
    if not tail:
        return ""
    where = f"{status.log}/attempt-{status.attempt}.log"
    lines = escape("\n".join(tail))
    return f"<p class=dim>its newest {len(tail)} lines of {escape(where)}</p><pre tabindex=0>{lines}</pre>"


def _span(seconds: float) -> str:
    if 0 <= seconds < 10:
        return f"{seconds:.1f} s"
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172800 else f"{whole // 86400} days"


def _clock(at: float) -> str:
    return rfc3339(at)[:19].replace("T", " ") + " UTC"
