"""What somebody who knows the memory model would start with: the best settings that come up, by search. Pure.

The knobs and their order are the default strategy's: the context gives way down to the floor before the batch, the
batch before CUDA graphs, these before 8 bits for the cache, that before 8 bits for the weights; the share of the card
is free up to MOST. Everything is tried on the settled neighbours and a cold compile cache, with the host's deviations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.attempts.situations import Situation
from tests.fake_engine.arguments import Arguments, parse
from tests.fake_engine.course import BLOCK, judge
from tests.fake_engine.memory import MemoryModel, Verdict
from tests.fake_engine.release import LONG_CONTEXT, batch_defaults, release

LEAST, MOST = 0.05, 0.95
FLOOR, LAST_FLOOR = 4096, 512
BATCHES: tuple[tuple[int, int] | None, ...] = (None, (128, 2048), (32, 1024), (8, 512))
NATIVE_FP8, MARLIN_FP8 = (8, 9), (8, 0)
FP8_CACHE_SINCE = 9
"""The first release (0.X) whose attention takes an FP8 cache."""

TOO_MUCH = frozenset({"free_memory_low", "kv_alloc_oom", "graph_oom", "sampler_oom"})
"""Ends that a smaller share may cure."""

AUTO = -1
RUNGS = ("quantized_weights", "fp8_kv", "eager", "batch")
"""The concessions but the context, the most painful first."""


@dataclass(frozen=True)
class Answer:
    """What comes up: the engine's options, the context and the cache in tokens; `conceded` by rung."""

    options: Mapping[str, object]
    context: int
    kv_tokens: int
    conceded: tuple[str, ...]


def best(situation: Situation, *, at_first: bool = False) -> Answer | None:
    """Give the best answer, None where nothing comes up; `at_first` as long as neighbours stay as they are at first."""
    full = situation.dims.max_len
    floors = (min(situation.min_context or FLOOR, full),)
    floors += () if situation.min_context else (min(LAST_FLOOR, full),)
    ways = tuple(_ways(situation))
    for floor in floors:
        for conceded, options in ways:
            answer = _longest(_Trial(situation, options, settled(situation, at_first=at_first)), floor, conceded)
            if answer is not None:
                return answer
    return None


def _ways(situation: Situation) -> list[tuple[tuple[str, ...], dict[str, object]]]:
    """Give every combination of concessions that the user's pins leave, the least painful first."""
    capability, pinned = situation.card.capability, given(situation).given
    quantize = situation.dims.stored == "bf16" and capability >= MARLIN_FP8
    small_cache = situation.minor >= FP8_CACHE_SINCE and capability >= NATIVE_FP8
    made = []
    for weights, cache, eager, batch in itertools.product(
        (False, True) if quantize else (False,), (False, True) if small_cache else (False,), (False, True), BATCHES
    ):
        options: dict[str, object] = {}
        if batch is not None:
            options = {"max_num_seqs": batch[0], "max_num_batched_tokens": batch[1]}
            if situation.minor < 8:
                del options["max_num_batched_tokens"]  # V0 needs them to hold a whole context
            options = {name: value for name, value in options.items() if name not in pinned}
        options |= {"enforce_eager": True} if eager else {}
        options |= {"kv_cache_dtype": "fp8"} if cache else {}
        options |= {"quantization": "fp8"} if weights else {}
        made_use = (weights, cache, eager, batch is not None)
        made.append((tuple(name for name, is_so in zip(RUNGS, made_use, strict=True) if is_so), options))
    return made


def given(situation: Situation) -> Arguments:
    """Give the user's own options as the engine reads them, with its defaults on that card."""
    defaults = batch_defaults(release(situation.version), situation.card.total_bytes / (1 << 30), situation.card.name)
    return parse(["m", *situation.options], situation.version).on(*defaults)


def settled(situation: Situation, *, at_first: bool = False) -> MemoryModel:
    """Give the memory model once neighbours have stopped to move, or before they have begun."""
    memory = situation.memory if at_first else situation.memory.settled()
    return MemoryModel(**{**vars(memory), "moves": (), "nvml": False})


class _Trial:
    """One way to start, at any share and context."""

    def __init__(self, situation: Situation, options: Mapping[str, object], memory: MemoryModel) -> None:
        arguments = given(situation)
        self.memory = memory
        self.version = situation.version
        self.pinned = arguments.given
        self.options = dict(options)
        self.base = {**arguments.with_defaults(), **options}
        seqs, tokens = self.base["max_num_seqs"], self.base["max_num_batched_tokens"]
        if isinstance(seqs, int) and isinstance(tokens, int) and tokens < seqs and not release(self.version).is_v0:
            self.base["max_num_batched_tokens"] = self.options["max_num_batched_tokens"] = seqs

    def start(self, share: float, context: int) -> Verdict:
        """Judge one start."""
        arguments = {**self.base, "gpu_memory_utilization": share}
        if "max_model_len" not in self.pinned:
            arguments["max_model_len"] = context
        return judge(self.memory, arguments, self.version, cold=True)

    def highest(self, context: int) -> tuple[float, Verdict]:
        """Give the largest share that is not too much, and how the start ends there."""
        share = self.pinned.get("gpu_memory_utilization")
        if isinstance(share, float):
            return share, self.start(share, context)
        low, high = round(LEAST * 1000), round(MOST * 1000)
        while low < high:
            middle = (low + high + 1) // 2
            if self.start(middle / 1000, context).kind in TOO_MUCH:
                high = middle - 1
            else:
                low = middle
        return low / 1000, self.start(low / 1000, context)


def _longest(trial: _Trial, floor: int, conceded: tuple[str, ...]) -> Answer | None:
    """Give the longest context that comes up this way, None if none reaches the floor."""
    full = trial.memory.dims.max_len
    if "max_model_len" in trial.pinned or not release(trial.version).is_v0:
        share, verdict = trial.highest(AUTO)
        context = int(verdict.numbers["max_model_len"])
        if verdict.kind != "ok" or ("max_model_len" not in trial.pinned and context < floor):
            return None
        return _answer(trial, share, context, verdict, conceded)
    for low, high in ((max(floor, LONG_CONTEXT + BLOCK), full), (floor, min(LONG_CONTEXT, full))):
        found = _search(trial, low, high)
        if found is not None:
            return _answer(trial, found[0], found[1], found[2], conceded)
    return None


def _search(trial: _Trial, low: int, high: int) -> tuple[float, int, Verdict] | None:
    """Give the longest context between two that comes up, in blocks; V0's peak depends on it."""
    found, first, last = None, -(-low // BLOCK), high // BLOCK
    while first <= last:
        middle = (first + last + 1) // 2
        share, verdict = trial.highest(middle * BLOCK)
        if verdict.kind == "ok":
            found, first = (share, middle * BLOCK, verdict), middle + 1
        else:
            last = middle - 1
    return found


def _answer(trial: _Trial, share: float, context: int, verdict: Verdict, conceded: tuple[str, ...]) -> Answer:
    options = {"gpu_memory_utilization": share, "max_model_len": context, **trial.options}
    return Answer(options, context, int(verdict.numbers["kv_cache_tokens"]), conceded)
