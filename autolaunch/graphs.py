"""The memory of CUDA graphs: what the engine subtracts for them, and what they take in the end.

Pure. From 0.21 on an estimate is subtracted from the cache; what capturing really takes comes out of what was
never requested, or out of the estimate.
"""

from __future__ import annotations

from autolaunch.defaults import Era, Resolved
from autolaunch.facts import Device, DeviceKind
from autolaunch.shape import CacheKind, Shape
from autolaunch.term import NOTHING, Term, estimated
from autolaunch.terms import MIB


def charged(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return what the engine subtracts for graphs: nothing before 0.21."""
    if not _captures(device, run) or run.era < Era.GRAPHS_CHARGED:
        return NOTHING
    if run.era >= Era.V2_RUNNER:
        each, low, high = _per_layer_mib(shape, device)
        graphs = shape.num_hidden_layers * max(1, run.full_graphs) * MIB
        return estimated(each * graphs, low * graphs, high * graphs)
    figure = _first_runner(shape, run, scale=0.62)
    return estimated(figure, 0.6 * figure, 2.0 * figure)


def captured(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return what the graphs take in the end."""
    if not _captures(device, run):
        return NOTHING
    if run.era >= Era.V2_RUNNER:
        each, low, high = _per_layer_mib(shape, device)
        graphs = shape.num_hidden_layers * max(1, run.full_graphs) * MIB
        return estimated(0.53 * each * graphs, 0.4 * low * graphs, 0.9 * high * graphs)
    figure = _first_runner(shape, run, scale=0.8 if run.era >= Era.GRAPHS_CHARGED else 1.15)
    return estimated(figure, 0.6 * figure, 1.8 * figure)


def _captures(device: Device, run: Resolved) -> bool:
    return bool(run.capture_sizes) and device.kind is not DeviceKind.CPU


def _per_layer_mib(shape: Shape, device: Device) -> tuple[float, float, float]:
    """Return the second runner's estimate per layer and whole graph: usual, least, most, in MiB.

    Dense models on compute capability 8 0.334 to 0.394 (17 starts), on 9 0.25 to 0.69; MLA 0.63 and 1.39, gpt-oss
    0.77, Mamba 0.20.
    """
    hopper = (device.compute_capability or (9, 0)) >= (9, 0)
    usual, least, most = (0.5, 0.25, 0.7) if hopper else (0.37, 0.33, 0.4)
    if shape.has(CacheKind.LATENT):
        return usual * (2.7 if hopper else 1.7), usual * 1.5, usual * 3
    if shape.experts:
        return usual * 1.6, usual * 0.8, usual * 2.2
    if not shape.has(CacheKind.FULL) and shape.has(CacheKind.STATE):
        return 0.2, 0.15, 0.3
    return usual, least, most


def _first_runner(shape: Shape, run: Resolved, *, scale: float) -> float:
    """Return the first runner's figure in bytes: the first graph, then so much per layer and graph."""
    layers = shape.num_hidden_layers
    first = (60 + 0.03 * shape.hidden_size / run.ranks) * MIB
    rest = layers * (0.19 * len(run.capture_sizes) + 0.15 * run.full_graphs) * MIB
    return scale * (first + rest)
