"""What the runs of all competitors say together: the table and its JSON form. Pure."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scripts.attempts.oracle import RUNGS, Answer
from scripts.attempts.runs import Run
from scripts.attempts.situations import Situation

COMPETITORS = ("autolaunch", "second start", "classic", "plain", "auto")
FLOOR = 4096


@dataclass(frozen=True)
class Case:
    """A situation with the oracle's answer and every competitor's run.

    `foreseeable` is False where the answer only came with a neighbour that left: before that, nothing comes up.
    """

    situation: Situation
    answer: Answer | None
    runs: Mapping[str, Run]
    foreseeable: bool = True


@dataclass(frozen=True)
class Score:
    """One competitor over many cases. `came_up` of `possible`; the rest over those that came up there.

    `spared` is the share that conceded no more than the oracle, the context aside. `beyond` counts those that came up
    where the oracle finds nothing; `wasted` the starts where it rightly finds none.
    """

    competitor: str
    possible: int
    came_up: int
    attempts: tuple[float, float, float]
    seconds: float
    context: tuple[float, float]
    kv: tuple[float, float]
    spared: float
    beyond: int
    wasted: int
    hopeless: int
    given_up: tuple[int, ...]

    @property
    def share(self) -> float:
        """Share of the possible cases that came up."""
        return self.came_up / self.possible if self.possible else 0.0


def score(competitor: str, cases: Iterable[Case]) -> Score:
    """Return a competitor's figures; a second start is only asked for where the first came up."""
    ours = [(case, case.runs[competitor]) for case in cases if competitor in case.runs]
    possible = [(case, run) for case, run in ours if case.answer is not None]
    up = [(case, run) for case, run in possible if served(case, run)]
    hopeless = [run for case, run in ours if case.answer is None]
    return Score(
        competitor=competitor,
        possible=len(possible),
        came_up=len(up),
        attempts=spread([run.starts for _, run in up]),
        seconds=round(quantile([run.seconds for _, run in up], 0.5), 1),
        context=kept(up, lambda run: run.context, lambda answer: answer.context),
        kv=kept(up, lambda run: run.kv_tokens, lambda answer: answer.kv_tokens),
        spared=round(sum(pain(case, run) <= least_pain(case) for case, run in up) / max(1, len(up)), 3),
        beyond=sum(run.came_up for run in hopeless),
        wasted=sum(run.starts for run in hopeless if not run.came_up),
        hopeless=len(hopeless),
        given_up=tuple(case.situation.number for case, run in possible if not served(case, run)),
    )


def served(case: Case, run: Run) -> bool:
    """Whether a run came up, and with at least the context that the user named."""
    least = case.situation.min_context or 0
    return run.came_up and run.context >= min(least, case.situation.dims.max_len)


def pain(case: Case, run: Run) -> tuple[bool, ...]:
    """Return what a run conceded, the most painful rung first; what the user asked for is no concession."""
    settings = json.loads(run.settings or "{}")
    batch = {"max_num_seqs", "max_num_batched_tokens", "cudagraph_capture_sizes"} & settings.keys()
    conceded = {
        "quantized_weights": "quantization" in settings or "model" in settings,
        "fp8_kv": str(settings.get("kv_cache_dtype", "auto")).startswith("fp8"),
        "eager": bool(settings.get("enforce_eager")),
        "batch": bool(batch - ({"max_num_seqs"} if case.situation.pin == "max_num_seqs" else set())),
    }
    return tuple(conceded[name] for name in RUNGS)


def least_pain(case: Case) -> tuple[bool, ...]:
    """Return what the oracle conceded."""
    return tuple(case.answer is not None and name in case.answer.conceded for name in RUNGS)


def kept(
    up: Sequence[tuple[Case, Run]], ours: Callable[[Run], int], best: Callable[[Answer], int]
) -> tuple[float, float]:
    """Return (median, 5th percentile) of what was kept of the oracle's, as shares."""
    shares = [ours(run) / max(1, best(case.answer)) for case, run in up if case.answer is not None]
    return round(quantile(shares, 0.5), 3), round(quantile(shares, 0.05), 3)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (median, 95th percentile, maximum)."""
    return quantile(values, 0.5), quantile(values, 0.95), max(values, default=0)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of them does not exceed; 0 of none. The median of an even count is the mean."""
    if not values:
        return 0.0
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


HEAD = (
    f"{'':<13}{'came up':>14}{'attempts':>12}{'to READY':>10}{'context kept':>14}{'KV kept':>14}"
    f"{'spared':>8}{'hopeless':>17}"
)
UNITS = (
    f"{'':<13}{'of possible':>14}{'50 95 max':>12}{'50 %':>10}{'50 %   5 %':>14}{'50 %   5 %':>14}"
    f"{'':>8}{'starts wasted':>17}"
)


def row(found: Score) -> str:
    """Return a competitor's line of the table."""
    attempts = " ".join(f"{value:g}" for value in found.attempts)
    context, kv = (f"{first:.2f}  {second:.2f}" for first, second in (found.context, found.kv))
    wasted = f"{found.wasted} in {found.hopeless}" + (f", {found.beyond} up" if found.beyond else "")
    came_up = f"{found.came_up}/{found.possible} {found.share:4.0%}"
    return (
        f"{found.competitor:<13}{came_up:>14}{attempts:>12}{found.seconds:>8.0f} s{context:>14}{kv:>14}"
        f"{found.spared:>8.0%}{wasted:>17}"
    )


def table(cases: Sequence[Case]) -> str:
    """Return the whole report as text."""
    lines = [HEAD, UNITS, *(row(score(name, cases)) for name in COMPETITORS)]
    for title, name_of in (("neighbour", lambda s: s.neighbour), ("release", lambda s: s.version), ("pin", _pin)):
        lines += ["", f"autolaunch by {title}"]
        for name in sorted({name_of(case.situation) for case in cases}):
            some = [case for case in cases if name_of(case.situation) == name]
            lines.append(row(score("autolaunch", some)).replace("autolaunch   ", f"{name:<13.13}", 1))
    lines += ["", *_lists(cases)]
    return "\n".join(lines)


def _pin(situation: Situation) -> str:
    return situation.pin


def _lists(cases: Sequence[Case]) -> list[str]:
    later = [case for case in cases if "second start" in case.runs and case.runs["second start"].kinds != ("ok",)]
    every = [run for case in cases for run in case.runs.values()]
    bad = [run for run in every if run.left or (run.code is None and run.competitor in SUPERVISED)]
    first = Counter(case.runs["autolaunch"].kinds[0] for case in cases if case.answer and case.runs["autolaunch"].kinds)
    return [
        *_given_up(cases),
        f"second starts that were not one attempt: {len(later)}",
        *(f"  {case.situation.number:4d}  {' '.join(case.runs['second start'].kinds)}" for case in later),
        f"runs that hung or left something: {len(bad)}",
        *(f"  {run.number:4d}  {run.competitor}: {run.left or 'hung'}" for run in bad),
        "first attempts of autolaunch: " + ", ".join(f"{kind} {n}" for kind, n in first.most_common()),
    ]


def _given_up(cases: Sequence[Case]) -> list[str]:
    numbers = score("autolaunch", cases).given_up
    found = [case for case in cases if case.situation.number in numbers]
    unseen = sum(not case.foreseeable for case in found)
    but = f", {unseen} of them before a neighbour left that took all that would do" if unseen else ""
    lines = [f"given up wrongly by autolaunch: {len(found)}{but} (replay one with --only NUMBER -v)"]
    for case in found:
        run, seen = case.runs["autolaunch"], "" if case.foreseeable else "; not while the neighbour is there"
        lines.append(f"  {case.situation.number:4d}  {case.situation.text}")
        lines.append(f"        exit {run.code} after {' '.join(run.kinds) or 'no start'}; {shown(case.answer)}{seen}")
    return lines


SUPERVISED = ("autolaunch", "second start", "classic")


def shown(answer: Answer | None) -> str:
    """Return the oracle's answer in words."""
    if answer is None:
        return "oracle: nothing comes up"
    options = " ".join(f"{name}={value}" for name, value in answer.options.items())
    return f"oracle: {options} ({answer.kv_tokens} tokens of cache)"


def as_json(cases: Sequence[Case], *, seed: int, wall_seconds: float) -> dict[str, Any]:
    """Return everything, for a later look."""
    return {
        "v": 1,
        "seed": seed,
        "situations": len(cases),
        "wall_seconds": round(wall_seconds, 1),
        "scores": [{**asdict(found), "share": found.share} for found in (score(name, cases) for name in COMPETITORS)],
        "cases": [
            {
                "number": case.situation.number,
                "text": case.situation.text,
                "oracle": None if case.answer is None else asdict(case.answer),
                "foreseeable": case.foreseeable,
                "runs": {name: run.as_json() for name, run in case.runs.items()},
            }
            for case in cases
        ],
    }
