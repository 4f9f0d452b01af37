"""A run's status as Prometheus reads it.

Pure. Owns the names of the metrics and what each counts; prometheus_client writes the text, from a registry of its own
for every scrape, so that there is nothing to keep in step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from autolaunch import __version__
from autolaunch.failure import Kind
from autolaunch.status import Status
from autolaunch.status_form import measured
from autolaunch.verdict import Death

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily, Metric

PHASES = ("planning", "starting", "ready", "stopping", "backoff", "stopped", "exhausted")
TERMS = ("total", "free", "requested", "weights", "non_torch", "activation", "cudagraph", "kv_cache")

Place = tuple[str, str]
"""A phase and, while an engine starts, how far it is ("" else)."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The seconds that a run has spent in each place, and since when it is where it is (monotonic)."""

    place: Place = ("planning", "")
    since: float | None = None
    seconds: Mapping[Place, float] = field(default_factory=dict)

    def moved(self, status: Status, now: float) -> Spent:
        """Return what was spent once the run is where `status` says."""
        there = self.until(now)
        return replace(there, place=(status.phase, status.step.value if status.step else ""))

    def until(self, now: float) -> Spent:
        """Return what was spent until now."""
        more = 0.0 if self.since is None else now - self.since
        return replace(self, since=now, seconds={**self.seconds, self.place: self.seconds.get(self.place, 0.0) + more})


NOTHING_SPENT = Spent()


@dataclass(frozen=True, slots=True, eq=False)  # a registry keeps it as a key
class _Collector:
    status: Status
    spent: Spent
    alive: bool

    def collect(self) -> Iterator[Metric]:
        yield from _about(self.status)
        yield from _now(self.status, self.alive)
        yield from _counts(self.status, self.spent)
        yield from _memory(self.status)


def metrics(status: Status, spent: Spent = NOTHING_SPENT, *, alive: bool = True) -> tuple[str, bytes]:
    """Return the content type and the text of `/metrics`; `alive` is whether the supervisor's loop goes round."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest  # noqa: PLC0415 - at a scrape

    registry = CollectorRegistry()
    registry.register(_Collector(status, spent, alive))
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def _about(status: Status) -> Iterator[Metric]:
    from prometheus_client.core import InfoMetricFamily  # noqa: PLC0415 - at a scrape

    about = {
        "version": __version__,
        "run": status.run,
        "model": status.model,
        "engine_version": status.engine_version or "",
        "strategy": status.strategy,
    }
    yield InfoMetricFamily("autolaunch_run", "The run, its model and engine.", value=about)
    settings = {name: _text(value) for name, value in status.settings.as_json().items()}
    yield InfoMetricFamily(
        "autolaunch_settings", "The settings of the newest start, as vLLM spells them.", value=settings
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _now(status: Status, alive: bool) -> Iterator[Metric]:
    yield _gauge("up", "Whether the supervisor's loop goes round.", float(alive))
    yield _gauge("ready", "Whether the engine serves.", float(status.phase == "ready"))
    phases = {phase: float(phase == status.phase) for phase in PHASES}
    yield _gauges("phase", "1 for the phase the run is in.", "phase", phases)
    if status.ready_seconds is not None:
        yield _gauge("ready_seconds", "Seconds that the newest start took until it served.", status.ready_seconds)
    if status.ready_at is not None:
        yield _gauge("ready_timestamp_seconds", "When the engine last came up, Unix seconds.", status.ready_at)
    for name, words in (
        ("max_model_len", "Context of the engine, tokens."),
        ("kv_cache_tokens", "Tokens in its cache."),
    ):
        if isinstance(status.effective.get(name), int):
            yield _gauge(name, words, float(status.effective[name]))


def _counts(status: Status, spent: Spent) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 - at a scrape

    yield CounterMetricFamily("autolaunch_attempts", "Engine starts of this run.", value=status.attempt)
    yield CounterMetricFamily("autolaunch_restarts", "Starts after an engine in service ended.", value=status.restarts)
    failed = CounterMetricFamily("autolaunch_failures", "Failed starts and crashes by their kind.", labels=["kind"])
    for kind in Kind:
        if kind is not Kind.OK:
            failed.add_metric([kind.value], status.failures.get(kind.value, 0))
    yield failed
    died = CounterMetricFamily("autolaunch_deaths", "Ends of an engine in service, by how it ended.", labels=["death"])
    for death in Death:
        died.add_metric([death.value], status.deaths.get(death.value, 0))
    yield died
    seconds = CounterMetricFamily("autolaunch_phase_seconds", "Seconds spent in each phase.", labels=["phase", "step"])
    for place, some in spent.seconds.items():
        seconds.add_metric(list(place), some)
    yield seconds


def _memory(status: Status) -> Iterator[Metric]:
    predicted = {**{term: status.budget.get(f"{term}_bytes") for term in TERMS}, "outside": status.outside_bytes}
    said = measured(status.effective)
    found = {term: said.get(f"{term}_bytes") for term in TERMS}
    for name, words, values in (
        ("memory_predicted_bytes", "The plan's budget per GPU, term by term.", predicted),
        ("memory_measured_bytes", "What the engine itself measured, term by term.", found),
    ):
        known = {term: float(value) for term, value in values.items() if value is not None}
        if known:
            yield _gauges(name, words, "term", known)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - at a scrape

    return GaugeMetricFamily(f"autolaunch_{name}", words, value=value)


def _gauges(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - at a scrape

    family = GaugeMetricFamily(f"autolaunch_{name}", words, labels=[label])
    for value in values:
        family.add_metric([value], values[value])
    return family
