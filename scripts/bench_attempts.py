"""`scripts/bench attempts`: hundreds of situations through the real supervisor over a fake engine with a memory model.

    scripts/bench attempts --situations 60          a few minutes, for every day
    scripts/bench attempts                          500 situations
    scripts/bench attempts --only 17 -v             one of them, with its record

Competitors: autolaunch (and its second start in the same state folder), the strategy `classic`, one plain start of the
engine, one with `--max-model-len auto`, against an oracle that knows the memory model. Seconds are simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))

from scripts.attempts import checkpoints, report  # noqa: E402 - found only with the checkout on the path
from scripts.attempts.oracle import best  # noqa: E402
from scripts.attempts.runs import DIRECT, Ports, Run, Stage  # noqa: E402
from scripts.attempts.situations import Situation, sample, situation  # noqa: E402
from tests.fake_engine import leftovers  # noqa: E402
from tests.fake_engine.models import MODELS  # noqa: E402

PROGRESS_EVERY = 20


class Bench:
    """One bench: a folder with the models, and the workers' ports."""

    def __init__(self, folder: Path, autolaunch: Path, workers: int, *, verbose: bool) -> None:
        self.folder = folder
        self.autolaunch = autolaunch
        self.verbose = verbose
        self.models = {dims.name: checkpoints.write(dims, folder / "models" / dims.name) for dims in MODELS}
        self.free: queue.SimpleQueue[Ports] = queue.SimpleQueue()
        for worker in range(workers):
            self.free.put(Ports(worker))

    def case(self, asked: Situation) -> report.Case:
        """Run every competitor in one situation."""
        ports = self.free.get()
        try:
            runs = {name: self._direct(name, asked, ports) for name in DIRECT}
            runs["classic"] = self._supervised(("classic",), asked, ports)["classic"]
            runs |= self._supervised(("autolaunch", "second start"), asked, ports)
            seen = runs["autolaunch"].came_up or best(asked, at_first=True) is not None
            return report.Case(asked, best(asked), runs, seen)
        finally:
            self.free.put(ports)

    def _direct(self, name: str, asked: Situation, ports: Ports) -> Run:
        with self._stage(name, asked) as stage:
            return stage.start_directly(name, ports.take())

    def _supervised(self, names: Sequence[str], asked: Situation, ports: Ports) -> dict[str, Run]:
        """Run one after the other in the same state folder; the next only where one came up, on settled neighbours."""
        runs: dict[str, Run] = {}
        with self._stage(names[0], asked) as stage:
            for name in names:
                runs[name] = stage.supervise(name, ports.take())
                if self.verbose:
                    _show(stage, name, runs[name])
                if not runs[name].came_up:
                    break
                stage.settle()
        return runs

    @contextmanager
    def _stage(self, name: str, asked: Situation) -> Iterator[Stage]:
        stage = Stage(self.folder / f"{asked.number}-{name}", asked, self.models[asked.dims.name], self.autolaunch)
        try:
            yield stage
        finally:
            stage.close()


def _show(stage: Stage, name: str, run: Run) -> None:
    """Print a run's record, what the supervisor said and what the engine's ledger knows."""
    for title, file in (("said", f"{name.replace(' ', '-')}.err"), ("record", f"{name.replace(' ', '-')}.jsonl")):
        path = stage.folder / file
        print(f"--- {name}: {title}\n{path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''}")
    print(f"--- {name}: {run}")
    for line in leftovers.events(stage.folder, "judged"):
        numbers = {key: round(value, 3) for key, value in line["numbers"].items()}
        print(f"start {line['n'] + 1}: {line['kind']} after {line['seconds']} s  {json.dumps(numbers)}")


def main(argv: Sequence[str]) -> int:
    """Run the bench; 0 unless something hung or was left behind."""
    options = _parser().parse_args(argv)
    chosen = [situation(options.only, options.seed)] if options.only else list(sample(options.situations, options.seed))
    folder = Path(tempfile.mkdtemp(prefix="autolaunch-attempts-"))
    began = time.monotonic()
    try:
        bench = Bench(folder, options.autolaunch, options.workers, verbose=options.verbose)
        cases = _all(bench, chosen, options.workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    wall_s = time.monotonic() - began
    if options.only:
        print(f"{cases[0].situation.text}\n{report.shown(cases[0].answer)}\n")
    print(f"{len(cases)} situations of seed {options.seed} in {wall_s:.0f} s, {options.workers} at a time\n")
    print(report.table(cases))
    if options.out:
        text = json.dumps(report.as_json(cases, seed=options.seed, wall_seconds=wall_s), indent=1)
        options.out.write_text(text, encoding="utf-8")
    return int(any(run.left for case in cases for run in case.runs.values()))


def _all(bench: Bench, chosen: Sequence[Situation], workers: int) -> list[report.Case]:
    cases = []
    with ThreadPoolExecutor(workers) as pool:
        for case in pool.map(bench.case, chosen):
            cases.append(case)
            if len(cases) % PROGRESS_EVERY == 0 and len(chosen) > PROGRESS_EVERY:
                print(f"{len(cases)} of {len(chosen)}", file=sys.stderr, flush=True)
    return cases


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench attempts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--situations", type=int, default=500, metavar="N")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE", help="everything as JSON")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one situation of the sample")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the records")
    parser.add_argument(
        "--autolaunch", type=Path, default=CHECKOUT, metavar="CHECKOUT", help="whose autolaunch; default: this one"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
