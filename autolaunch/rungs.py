"""The rungs: which values cure this failure, in the right direction and by the right amount.

Pure functions, one per rung of `strategy.RUNG_NAMES` (the utilization's arithmetic is `share`'s). Each yields
the values it would set, the least painful first, whether or not the user pinned them (`ladder` takes pins and
past attempts into account); nothing where the rung has no answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from autolaunch.case import RAISING, Case, Effort, Proposal
from autolaunch.defaults import usual_batched_tokens, usual_seqs
from autolaunch.facts import GIB, DeviceKind, Situation
from autolaunch.failure import Kind
from autolaunch.settings import AUTO
from autolaunch.share import ceiling, utilization
from autolaunch.strategy import Rung

BATCH_LEVELS = ((128, 2048), (32, 1024), (8, 512))
"""(max_num_seqs, max_num_batched_tokens), each a clear step below vLLM's defaults 256..1024 and 2048..8192."""

CAPTURE_SIZES = ((1, 2, 4, 8, 16, 32), (1, 2, 4, 8))
"""cudagraph_capture_sizes worth trying when graph capture itself ran out of memory."""

NATIVE_FP8 = (8, 9)
"""The least compute capability that computes with 8-bit floating point numbers."""

MOST_SAVED = 0.8
"""The largest share of the weights' bytes that any method saves (4 bits and what stays in bf16)."""


def context(rung: Rung, case: Case) -> Iterator[Proposal]:
    """Shorten the context to what the engine says fits, or by half on a literal ladder."""
    now, floor = case.context, _floor(rung, case)
    if case.failure.kind is Kind.KV_TOO_SMALL and rung.step == "engine":
        fit = case.fitting
        if fit is not None:
            at_once = case.limits.concurrency
            why = f"the KV cache holds {fit * at_once} tokens" + (f", for {at_once} requests" if at_once > 1 else "")
        else:
            fit, why = (now or 0) // 2, "the engine did not say how much fits: half"
        to = fit
        if to < floor and case.situation.engine.is_v0:  # a shorter context frees what profiling a long one took
            to, why = max(floor, (now or 0) // 2), f"{why}; V0 profiles less with a shorter context"
    elif rung.step == "halve":
        if now is None:
            return  # half of a length that nobody knows is none
        to, why = max(now // 2, floor), f"half of {now}"
    elif case.situation.engine.is_v0:
        part = 4 if (now or 0) > 32768 else 2
        to, why = (now or 0) // part, "V0 profiles one request of full length: a shorter one has a lower peak"
        to = max(to, floor) if (now or 0) > floor else to
    else:
        return
    to = min(to, case.limits.max_context or to)
    if max(floor, 1) <= to and (now is None or to < now):
        yield Proposal({"max_model_len": to}, why)


def _floor(rung: Rung, case: Case) -> int:
    """Return the shortest context this rung may set: the user's floor and the file's hold to the end."""
    wish = case.limits.min_context
    if case.limits.floor_is_wish:
        return max(wish, int(rung.min))
    return int(rung.min) or (case.limits.least_context if case.last_resort else wish)


def batch(_: Rung, case: Case) -> Iterator[Proposal]:
    """Ask for fewer sequences and tokens at once: less activation memory, fewer and smaller CUDA graphs."""
    settings, failure = case.settings, case.failure
    if failure.kind is Kind.SEQS_TOO_MANY:
        most, now = case.number("num_seqs"), settings.max_num_seqs or math.inf
        if most and case.limits.concurrency <= most < now:
            yield Proposal({"max_num_seqs": int(most)}, f"the cache holds the state of {int(most)} sequences")
        return
    if not _within_reach(case, weights=False):
        return
    if failure.kind is Kind.GRAPH_OOM and case.before_cache:
        return  # compiling ran out of memory: its trial copies of weights do not depend on the batch
    if failure.kind is Kind.GRAPH_OOM and not settings.enforce_eager and not case.situation.engine.is_v0:
        for sizes in CAPTURE_SIZES:
            if len(sizes) < len(settings.cudagraph_capture_sizes or range(99)):
                why = f"{len(sizes)} CUDA graphs up to batch size {sizes[-1]}"
                yield Proposal({"cudagraph_capture_sizes": sizes}, why)
    for seqs, tokens in BATCH_LEVELS:
        values = _fewer(case, max(seqs, case.limits.concurrency), tokens)
        if values:
            yield Proposal(values, "less memory for activations, in the profile run and after it")


def _fewer(case: Case, seqs: int, tokens: int) -> dict[str, int]:
    """Return those of a level's values that are below what the attempt ran with; {} where they are barely so.

    vLLM refuses fewer batched tokens than sequences; V0 without chunked prefill needs them to hold a whole
    context; the warm-up of the sampler is a matter of sequences alone.
    """
    now_seqs, now_tokens = _at_once(case)
    values: dict[str, int] = {}
    if seqs < now_seqs:
        values["max_num_seqs"] = seqs
    if case.failure.kind is Kind.SAMPLER_OOM or case.situation.engine.is_v0:
        return values
    kept = now_seqs if "max_num_seqs" in case.pins else min(seqs, now_seqs)
    tokens = max(tokens, int(kept))
    if tokens < now_tokens:
        values["max_num_batched_tokens"] = tokens
    elif values and case.effort is Effort.SPARING and case.failure.kind is not Kind.GRAPH_OOM:
        return {}
    return values


def _at_once(case: Case) -> tuple[int, int]:
    """Return the sequences and batched tokens that the attempt ran with: set, said, or vLLM's default for the card."""
    settings, effective, situation = case.settings, case.effective, case.situation
    device = replace(situation.device, total_bytes=int((case.total_gib or 0.0) * GIB))
    return (
        settings.max_num_seqs or effective.max_num_seqs or usual_seqs(device, situation.engine),
        settings.max_num_batched_tokens
        or effective.max_num_batched_tokens
        or usual_batched_tokens(device, situation.engine, length=case.context),
    )


def eager(_: Rung, case: Case) -> Iterator[Proposal]:
    """Do without CUDA graphs and compilation: their memory is free, each token a little slower."""
    if case.settings.enforce_eager or not _within_reach(case, weights=False):
        return
    why = "no memory for CUDA graphs, somewhat slower tokens"
    if case.failure.kind is Kind.COMPILE_ERROR:
        why = "nothing is compiled then, somewhat slower tokens"
    yield Proposal({"enforce_eager": True}, why)


def fp8_kv(_: Rung, case: Case) -> Iterator[Proposal]:
    """Keep the KV cache in 8 bits: twice the tokens in the same bytes, where the card computes with them."""
    capability, release = case.situation.device.compute_capability, case.situation.engine.release
    if case.settings.kv_cache_dtype is not None or capability is None or capability < NATIVE_FP8:
        return
    if release is not None and release < (0, 9):
        return  # no V1 attention took an FP8 cache before
    if _within_reach(case, weights=False, cache=0.5):
        yield Proposal({"kv_cache_dtype": "fp8"}, "the KV cache in 8 bits holds twice the tokens")


def gpus(_: Rung, case: Case) -> Iterator[Proposal]:
    """Spread the model over more of the cards that the user allows, as many as its heads can be shared out to."""
    shape, now = case.situation.model.shape, case.settings.tensor_parallel_size or 1
    for ranks in (2**power for power in range(1, 6)):
        if now < ranks <= case.limits.gpus and (shape is None or shape.divides(ranks)):
            yield Proposal({"tensor_parallel_size": ranks}, f"each of {ranks} cards holds its part of the weights")


def quantized_weights(rung: Rung, case: Case) -> Iterator[Proposal]:
    """Load the weights in fewer bits, by the allowed methods that this card and engine can run, in their order."""
    if case.failure.kind is Kind.KV_ALLOC_OOM and not case.pool_is_fixed:
        return  # what the weights free goes to the cache: the engine would take as much
    if _within_reach(case, weights=True):
        yield from lighter_weights(rung, case)


def lighter_weights(rung: Rung, case: Case) -> Iterator[Proposal]:
    """Return every way that is left to load the weights in fewer bits, whether or not it cures anything."""
    settings, situation = case.settings, case.situation
    if situation.model.quantization is not None or settings.model is not None:
        return
    tried = settings.quantization
    if tried is not None and (tried not in rung.methods or "quantization" in case.pins):
        return
    for method in rung.methods[rung.methods.index(tried) + 1 if tried else 0 :]:
        proposal = _quantize(method, situation)
        if proposal is not None:
            yield proposal


def _quantize(method: str, situation: Situation) -> Proposal | None:
    capability = situation.device.compute_capability
    if method == "fp8":
        if capability is None or capability < (8, 0):
            return None
        how = "native FP8" if capability >= NATIVE_FP8 else "weight-only FP8 (Marlin)"
        return Proposal({"quantization": "fp8"}, f"about half the weight bytes, {how} on this card")
    if method == "variant":
        able = (v for v in situation.model.variants if v.official and (capability or (9, 9)) >= v.capability)
        variant = next(able, None)
        if variant is None:
            return None
        return Proposal(
            {"model": variant.model, "quantization": None},
            "the catalogue's pre-quantized weights of this model",
        )
    if not situation.engine.has_bitsandbytes or situation.device.kind is not DeviceKind.CUDA:
        return None
    return Proposal({"quantization": "bitsandbytes"}, "4-bit weights, a quarter of the bytes")


def _within_reach(case: Case, *, weights: bool, cache: float = 1.0) -> bool:
    """Whether a concession can cure a missing cache, even if it freed all that it touches.

    What is missing is in the engine's numbers; against it stand the memory that a higher share could still
    take, all that is neither weights nor cache, and with `weights` their bytes, of which at best `MOST_SAVED`
    goes. Beyond SPARING only what no concession at all can cure is passed over: fewer bits count as long as a
    rung is left for them, and a context may fall to the least of use. A cache that the user sized in bytes
    grows with nothing. `cache` is the share of its bytes that a token keeps.
    """
    available, overhead, total = case.available_kv_gib, case.overhead_gib, case.total_gib
    if case.effort is Effort.BLIND or case.failure.kind not in RAISING:
        return True
    if case.pool_is_fixed and cache == 1.0:
        return False
    if available is None or overhead is None or total is None:
        return True
    missing = -available
    if case.failure.kind is Kind.KV_TOO_SMALL:
        missing = least_needed_gib(case) * cache - available
    room = 0.0
    if "gpu_memory_utilization" not in case.pins:
        room = max(0.0, ceiling(Rung("utilization", frozenset()), case) - case.utilization) * total
    if weights or (case.lighter and case.effort is not Effort.SPARING):
        room += (case.effective.weights_gib or math.inf) * MOST_SAVED
    return missing <= room + overhead


def least_needed_gib(case: Case) -> float:
    """Return the cache for the shortest context that is wished: a pinned one, else the floor of this effort."""
    needed, now = case.needed_kv_gib, case.context
    if not needed or not now:
        return 0.0
    if "max_model_len" in case.pins and case.settings.max_model_len != AUTO:
        return needed
    floor = case.limits.min_context if case.effort is Effort.SPARING else case.limits.least_context
    return needed * min(1.0, floor / now)


RUNGS: Mapping[str, Callable[[Rung, Case], Iterator[Proposal]]] = {
    "utilization": utilization,
    "gpus": gpus,
    "context": context,
    "batch": batch,
    "eager": eager,
    "fp8_kv": fp8_kv,
    "quantized_weights": quantized_weights,
}
"""What each rung's name in a strategy file means."""
