"""What the engine says about its own budget, in the wordings of its releases."""

from __future__ import annotations

import pytest

from autolaunch.figures import Effective, learn

OLD = (
    "Free memory on device (78.66/79.18 GiB) on startup. Desired GPU memory utilization is (0.9, 71.26 GiB). Actual "
    "usage is 17.56 GiB for weight, 2.21 GiB for peak activation, 0.25 GiB for non-torch memory, and 0.7 GiB for "
    "CUDAGraph memory. Current kv cache memory in use is 51.24 GiB."
)
NEW = (
    "Free memory on device (78.84/79.25 GiB) on startup. Desired GPU memory utilization is (0.92, 72.91 GiB). Actual "
    "usage is 15.26 GiB for consumed memory (weights + non-torch), 1.44 GiB for peak activation, and 0.23 GiB for "
    "CUDAGraph memory. Current kv cache memory in use is 56.21 GiB."
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OLD, Effective(free_gib=78.66, total_gib=79.18, utilization=0.9, requested_gib=71.26, weights_gib=17.56,
                        activation_gib=2.21, non_torch_gib=0.25, captured_gib=0.7)),
        (NEW, Effective(free_gib=78.84, total_gib=79.25, utilization=0.92, requested_gib=72.91, consumed_gib=15.26,
                        activation_gib=1.44, captured_gib=0.23)),
        ("Estimated CUDA graph memory: 0.54 GiB total", Effective(cudagraph_gib=0.54)),
        ("Graph capturing finished in 9 secs, took 0.70 GiB", Effective(captured_gib=0.70)),
        ("Graph capturing finished in 27.1 secs, took 0.47 GiB", Effective(captured_gib=0.47)),
        ("Graph capturing finished in 1 sec, took -0.02 GiB", Effective(captured_gib=-0.02)),
        ("Auto set (3.85/11.84) GiB for KV cache on node 0, with 4.74 GiB requested memory for the worker. 0.88 GiB "
         "memory was consumed by non-kv usages.",
         Effective(available_kv_gib=3.85, consumed_gib=0.88)),
        ("Graph capturing finished", Effective()),
        ("consumed memory, CUDA graph memory: , for CUDAGraph", Effective()),
    ],
)  # fmt: skip
def test_a_line_says_what_was_measured(text: str, said: Effective) -> None:
    assert learn(Effective(), text) == said


def test_an_estimate_of_the_graphs_and_what_they_took_are_two_figures() -> None:
    known = learn(Effective(), "Estimated CUDA graph memory: 0.40 GiB total")
    assert learn(known, "Graph capturing finished in 6 secs, took 0.55 GiB") == Effective(
        cudagraph_gib=0.40, captured_gib=0.55
    )
