"""`scripts/bench memory`: the memory model against real starts, as tables by card and by kind of model.

Reads records.jsonl of public start-up logs, which is not part of the project: `--records FILE`, else
../shared/memtruth beside the checkout. Stock releases that are stated, with a whole budget, are scored first; what
forks and starts of guessed releases printed is shown apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from memory_records import Record, came_up, demand_of, kind_of, told_whole

from autolaunch.budget import Budget, predict
from autolaunch.defaults import Era
from autolaunch.facts import GIB
from autolaunch.failure import Kind
from autolaunch.foresight import Foretold, foresee

RECORDS = Path(__file__).resolve().parents[2] / "shared" / "memtruth" / "records.jsonl"
HALF_A_CENT = 0.005 * GIB
"""What two printed decimals hide."""


@dataclass(frozen=True)
class Scored:
    """One record with its prediction."""

    record: Record
    budget: Budget
    foretold: Foretold
    era: Era
    kind: str
    weights_from: str

    @property
    def error_gib(self) -> float | None:
        """Predicted less measured KV memory."""
        measured = self.record["available_kv_gib"]
        return None if measured is None else self.budget.kv_cache.gib - measured

    @property
    def within(self) -> bool:
        """Whether the measured KV memory lies in the predicted range."""
        kv, measured = self.budget.kv_cache, self.record["available_kv_gib"] * GIB
        return bool(kv.low - HALF_A_CENT <= measured <= kv.high + HALF_A_CENT)

    @property
    def cell(self) -> tuple[Era, str]:
        """Starts that share the constants of the model."""
        return self.era, self.record["gpu_family"]


def score(records: Iterable[Record]) -> list[Scored]:
    """Predict every record that tells enough."""
    found = []
    for record in records:
        told = demand_of(record)
        if told is None:
            continue
        demand, source = told
        budget, foretold, shape = predict(demand), foresee(demand), demand.situation.model.shape
        if budget is not None and foretold is not None and shape is not None:
            era = Era.of(demand.situation.engine)
            found.append(Scored(record, budget, foretold, era, kind_of(shape), source))
    return found


def row(name: str, errors: Sequence[float], inside: int | None = None) -> None:
    """Print one row: how many, median, 90th percentile and worst absolute error, median error, how many in range."""
    sizes = sorted(map(abs, errors))
    if not sizes:
        return
    p90 = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    figures = f"{statistics.median(sizes):9.2f}{p90:7.2f}{sizes[-1]:8.2f}{statistics.median(errors):+8.2f}"
    print(f"{name:<34}{len(sizes):>4}{figures}" + ("" if inside is None else f"{inside:>7}/{len(sizes)}"))


def table(title: str, scored: Sequence[Scored], key: Callable[[Scored], str]) -> None:
    """Print one table, a row for each value of `key` and one for all."""
    measured = [one for one in scored if one.error_gib is not None]
    print(f"\n{title:<34}{'n':>4}{'median':>9}{'p90':>7}{'worst':>8}{'bias':>8}{'in range':>10}")
    names = sorted({key(one) for one in measured})
    for name in [*names, "all"]:
        group = [one for one in measured if name in (key(one), "all")]
        row(name, [one.error_gib or 0.0 for one in group], sum(one.within for one in group))


def held_out(scored: Sequence[Scored]) -> None:
    """Print the errors that are left when each cell's constant is refitted without the record's own group.

    A cell is an era on a kind of card; the constant is the median error of its other groups, 0 where there is none.
    """
    measured = [one for one in scored if one.error_gib is not None]
    errors = {"dense": [], "all": []}  # type: dict[str, list[float]]
    for one in measured:
        others: dict[str, list[float]] = {}
        for other in measured:
            if other.cell == one.cell and other.record["dup_group"] != one.record["dup_group"]:
                others.setdefault(other.record["dup_group"], []).append(other.error_gib or 0.0)
        shift = statistics.median(map(statistics.median, others.values())) if others else 0.0
        errors["all"].append((one.error_gib or 0.0) - shift)
        if one.kind == "dense":
            errors["dense"].append(errors["all"][-1])
    print("\nrefitted without its own group")
    for name, found in errors.items():
        row(name, found)


def verdicts(scored: Sequence[Scored]) -> None:
    """Print how often "it comes up" was right, and every start of which it was wrong."""
    judged = [(one, came_up(one.record)) for one in scored]
    known = [(one, truth) for one, truth in judged if truth is not None]
    right = [(one, truth) for one, truth in known if (one.foretold.kind is Kind.OK) == truth]
    print(f"\n{'verdict':<34}{'n':>4}{'right':>9}{'doubtful':>10}")
    for name, truth in (("came up", True), ("failed of memory", False)):
        group = [one for one, was in known if was is truth]
        good = sum(1 for one, was in right if was is truth)
        print(f"{name:<34}{len(group):>4}{good:>9}{sum(one.foretold.doubtful for one in group):>10}")
    if known:
        print(f"{'all':<34}{len(known):>4}{len(right):>9}   {len(right) / len(known):.1%}")
    for one, _ in (pair for pair in known if pair not in right):
        doubt = "doubtful" if one.foretold.doubtful else "certain"
        print(f"  wrong: {one.record['id']}: {one.foretold.kind} ({doubt}), in truth {one.record['outcome']}")


def detail(scored: Sequence[Scored]) -> None:
    """Print every record with its terms, predicted / measured, the largest error first."""
    for one in sorted(scored, key=lambda one: -abs(one.error_gib or 0.0)):
        record, budget = one.record, one.budget
        terms = (
            ("weights", budget.weights, record["weights_gib"]),
            ("non-torch", budget.non_torch, record["non_torch_gib"]),
            ("activation", budget.activation, record["activation_peak_gib"]),
            ("graphs", budget.cudagraph, record["cudagraph_estimate_gib"]),
            ("captured", budget.capture, record["cudagraph_actual_gib"]),
            ("kv", budget.kv_cache, record["available_kv_gib"]),
        )
        print(f"{one.error_gib or 0.0:+.2f} {record['id']} {one.era.name} {record['gpu_family']} {one.kind}")
        print("      " + " ".join(f"{name} {term.gib:.2f}/{'?' if was is None else was}" for name, term, was in terms))


def main(arguments: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="scripts/bench memory", description=__doc__)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--detail", action="store_true", help="every record with its terms")
    wish = parser.parse_args(arguments)
    if not wish.records.is_file():
        sys.exit(f"error: no records at {wish.records}\nhint: --records FILE names a records.jsonl of real starts")
    records = [json.loads(line) for line in wish.records.read_text(encoding="utf-8").splitlines() if line.strip()]
    scored = score(records)
    stock = [one for one in scored if one.record["fork"] is False]
    stated = [one for one in stock if told_whole(one.record)]
    full = [one for one in stated if one.record["completeness"] == "full"]
    print(
        f"KV memory, predicted less measured, in GiB; {len(scored)} of {len(records)} records tell enough, {len(full)}"
    )
    print("of them stock, whole and of a stated release. Goals on dense models: median 0.15, p90 0.5.")
    table("by card", full, lambda one: str(one.record["gpu_family"]))
    table("by kind", full, lambda one: one.kind)
    table("by era", full, lambda one: one.era.name)
    table("by where the weights are from", full, lambda one: one.weights_from)
    table("apart: stock, release guessed", [one for one in stock if not told_whole(one.record)], lambda one: one.kind)
    table("apart: forks", [one for one in scored if one.record["fork"]], lambda one: one.kind)
    held_out(full)
    verdicts(stated)
    if wish.detail:
        detail(scored)


if __name__ == "__main__":
    main(sys.argv[1:])
