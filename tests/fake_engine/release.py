"""What one vLLM release does at its start where releases differ: the engine, its defaults, what it subtracts. Pure."""

from __future__ import annotations

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = ("0.24.0", "0.32.0", "0.11.0", "0.8.5", "0.6.3", "0.4.3")
"""The releases whose texts are kept as data: on a GPU but for 0.32.0; V0 before 0.8."""

SINCE = ((13, "0.24.0"), (10, "0.11.0"), (8, "0.8.5"), (5, "0.6.3"), (0, "0.4.3"))
"""Whose texts a release without its own prints, by its second number."""

RELEASES = (*TEXTS, "0.6.6", "0.10.2", "0.13.0", "0.17.1", "0.19.0", "0.30.0")
"""The releases that can be asked for; those without texts of their own print the nearest one's, with their number."""

LARGE_CARD_GIB, HUGE_CARD_GIB = 70, 160
LONG_CONTEXT = 32768
"""Above this V0 turns chunked prefill on, so that it does not profile a whole context (vllm/engine/arg_utils.py)."""


class Release(Record):
    """A release by its second number: every release so far is 0.X."""

    minor: int

    @property
    def is_v0(self) -> bool:
        """One process; no comparison with what is free; the sum of a full request's activations."""
        return self.minor < 8

    @property
    def serves_last(self) -> bool:
        """Uvicorn comes when the engine is made: the port is bound then, and no signal is caught before."""
        return self.minor < 5

    @property
    def refuses_low_memory(self) -> bool:
        """What is free is compared with what is desired (gpu_worker.py; not yet in 0.9.0)."""
        return self.minor >= 10

    @property
    def knows_auto(self) -> bool:
        """`--max-model-len auto` is understood (vllm-project/vllm#29431)."""
        return self.minor >= 14

    @property
    def streams_fp8(self) -> bool:
        """On-the-fly FP8 converts layer by layer; before, all 16-bit weights had to fit first (vllm#31914)."""
        return self.minor >= 15

    @property
    def estimates_graphs(self) -> bool:
        """What graphs will take is estimated and printed."""
        return self.minor >= 19

    @property
    def subtracts_graphs(self) -> bool:
        """The estimate is taken from the KV pool."""
        return self.minor >= 21

    @property
    def is_runner_v2(self) -> bool:
        """The second model runner: no float32 logits while profiling, sampler state in non-torch memory."""
        return self.minor >= 28

    @property
    def utilization(self) -> float:
        """The default of gpu_memory_utilization."""
        return 0.92 if self.minor >= 19 else 0.9

    @property
    def budget(self) -> str:
        """How the measured budget is said at INFO: the flag of the texts' line, "" where it is not said."""
        if self.is_v0:
            return "budget_v0"
        if self.is_runner_v2:
            return "budget_consumed"
        return "budget_weight" if self.minor == 10 else ""  # from 0.11.0 to 0.24.0 at DEBUG


def release(version: str) -> Release:
    """Give the release of a version such as "0.24.0"."""
    return Release(minor=int(version.split(".")[1]))


def texts_of(version: str) -> str:
    """Give the release whose texts this one prints."""
    if version in TEXTS:
        return version
    minor = release(version).minor
    return next(name for since, name in SINCE if since <= minor)


def batch_defaults(known: Release, total_gib: float, name: str) -> tuple[int, int]:
    """Give (max_num_seqs, max_num_batched_tokens) by card size (EngineArgs.get_batch_defaults of the API server)."""
    if known.is_v0 or total_gib < LARGE_CARD_GIB or "a100" in name.lower():
        return 256, 2048
    return (1024, 16384) if total_gib >= HUGE_CARD_GIB else (1024, 8192)


def profiled_tokens(known: Release, arguments: Mapping[str, object], max_len: int) -> int:
    """Give the tokens of the profile run: the batch, or on V0 without chunked prefill a whole context."""
    given = arguments.get("max_num_batched_tokens")
    batch = int(given) if isinstance(given, (int, float)) else 2048
    if known.is_v0 and max_len <= LONG_CONTEXT and not arguments.get("enable_chunked_prefill"):
        return max(batch, max_len)
    return batch
