"""The memory of CUDA graphs: what the engine subtracts for them, and what they take in the end.

Pure. From 0.21 on an estimate is subtracted from the cache; what capturing really takes comes out of what was
never requested, or out of the estimate.
"""

from __future__ import annotations

from autolaunch.defaults import LARGEST_GRAPH, Era, Resolved
from autolaunch.facts import GIB, Device
from autolaunch.shape import CacheKind, Shape, block_bytes
from autolaunch.term import NOTHING, Term, estimated
from autolaunch.terms import MIB


def charged(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return what the engine subtracts for graphs: nothing before 0.21."""
    return _tried(shape, device, run) if run.era >= Era.GRAPHS_CHARGED else NOTHING


def _tried(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return the engine's own estimate, from the first graphs that it captures."""
    if not run.capture_sizes:
        return NOTHING
    if run.era >= Era.V2_RUNNER:
        graphs = shape.num_hidden_layers * max(1, run.full_graphs) * MIB
        return estimated(*(each * graphs for each in _per_layer_mib(shape, device)))
    figure = _first_two(shape, run)
    return estimated(figure, 0.7 * figure, 1.7 * figure)


def captured(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return what the graphs take in the end.

    The second runner's estimate is 1.8 to 2.3 times that; the first one's 0.16 GiB short of it (GLM-4-9B on 0.24,
    twice). Before: 0.58 GiB and 0.0122 a layer for 102 graphs (0.19, rms 0.26), 0.54 to 0.68 GiB for 67 (0.10),
    0.08 to 0.58 for 35 (V0).
    """
    if not run.capture_sizes:
        return NOTHING
    layers, graphs = shape.num_hidden_layers, len(run.capture_sizes) + run.full_graphs
    if run.era >= Era.V2_RUNNER:
        figure = charged(shape, device, run)
        return estimated(0.53 * figure.bytes, 0.4 * figure.low, 0.9 * figure.high)
    if run.era >= Era.GRAPHS_CHARGED:
        usual = _first_two(shape, run) + 0.16 * GIB
    elif run.era >= Era.UNSORTED:
        usual = 0.58 * GIB * _reach(run) + 0.1225 * layers * graphs * MIB
    else:
        usual = 0.27 * GIB * _reach(run) + 0.18 * layers * graphs * MIB
    return estimated(usual, (0.3 if run.era is Era.V0 else 0.5) * usual, 2.2 * usual)


def trial(shape: Shape, device: Device, run: Resolved) -> Term:
    """Return what trying the graphs takes in the profile run (0.19 on): a small KV cache, and the first graphs.

    The cache has a block for each place of the largest graph (in the second runner for each of its sequences): 0.31
    GiB for GLM-4-9B (0.95 GiB in all when it ran out of memory on 0.24), 24.5 GiB for a hybrid with 51 MB a block.
    """
    if not run.capture_sizes or not run.estimates_graphs:
        return NOTHING
    block = block_bytes(shape, ranks=run.ranks, cache_bytes=run.cache_bytes)
    places = max(run.capture_sizes)
    cache = block * (min(places, run.max_num_seqs) if run.era >= Era.V2_RUNNER else places)
    first = _tried(shape, device, run)
    likely = cache + first.bytes + 0.3 * GIB
    return estimated(likely, cache + 0.5 * first.low, likely + first.above)


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
        return (0.6, 0.25, 0.8) if hopper else (0.7, 0.35, 0.8)
    if not shape.has(CacheKind.FULL) and shape.has(CacheKind.STATE):
        return 0.2, 0.15, 0.3
    return usual, least, most


def _first_two(shape: Shape, run: Resolved) -> float:
    """Return the first runner's estimate in bytes, which it extrapolates from the first two graphs of either kind.

    The larger of the two first graphs (whole: 262 MiB for 512 sequences of an H100; piecewise 60 MiB and 0.017 a
    hidden unit), then 0.10 MiB per layer and piecewise graph, 0.05 per whole one (GLM-4-9B on 0.24: 0.54 GiB for
    51 and 51 graphs, 0.40 for 51 and 35).
    """
    whole = 262 * min(run.max_num_seqs, max(run.capture_sizes)) / LARGEST_GRAPH / run.ranks
    pieces = (60 + 0.017 * shape.hidden_size) * _reach(run)
    rest = shape.num_hidden_layers * (0.1 * len(run.capture_sizes) + 0.05 * run.full_graphs)
    return (max(whole, pieces) + rest) * MIB


def _reach(run: Resolved) -> float:
    """Return how much of a first graph's fixed memory is left where only small batches are captured."""
    return 0.4 + 0.6 * min(1.0, max(run.capture_sizes) / LARGEST_GRAPH)
