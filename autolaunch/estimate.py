"""All terms of one start, worked out from its settings alone.

Pure. Puts the terms together; what earlier starts measured is `calibration`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autolaunch.activation import Peaks, activation, peaks
from autolaunch.defaults import resolve
from autolaunch.facts import Model, Situation, Weights
from autolaunch.graphs import captured, charged, trial
from autolaunch.settings import Settings
from autolaunch.shape import Shape
from autolaunch.term import Term
from autolaunch.terms import loading, non_torch, outside, weights


@dataclass(frozen=True, slots=True)
class Parts:
    """The terms of one start on one rank; `peaks` are the two ends that its activation has by torch.compile's cache."""

    outside: Term
    weights: Term
    non_torch: Term
    activation: Term
    cudagraph: Term
    capture: Term
    loading: Term
    trial: Term
    peaks: Peaks

    @property
    def charged(self) -> tuple[Term, Term, Term, Term]:
        """What the engine subtracts from what it requested."""
        return self.weights, self.non_torch, self.activation, self.cudagraph


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that a start loads, where its dimensions and weights are known."""

    model: Model
    shape: Shape
    weights: Weights


def subject(settings: Settings, model: Model) -> Subject | None:
    """Return what will be loaded: the wished model, or the pre-quantized variant in its place; None where unknown."""
    if settings.model is not None:
        variant = next((found for found in model.variants if found.model == settings.model), None)
        if variant is None:
            return None
        model = replace(model, weights=variant.weights, quantization=variant.quantization)
    if model.shape is None or model.weights is None:
        return None
    return Subject(model, model.shape, model.weights)


def estimate(found: Subject, settings: Settings, situation: Situation) -> Parts:
    """Work out every term of one start."""
    shape, device = found.shape, situation.device
    run = resolve(settings, situation)
    loaded = weights(found.model, found.weights, settings, device, run)
    return Parts(
        outside=outside(device, run),
        weights=loaded,
        non_torch=non_torch(shape, device, run),
        activation=activation(shape, run),
        cudagraph=charged(shape, device, run),
        capture=captured(shape, device, run),
        loading=loading(shape, loaded, run),
        trial=trial(shape, device, run),
        peaks=peaks(shape, run),
    )
