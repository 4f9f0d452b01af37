"""What vLLM fills in, by release and card."""

from __future__ import annotations

from typing import Any

import pytest

from autolaunch.defaults import Era, Resolved, cache_value_bytes, resolve, usual_batched_tokens, usual_seqs
from autolaunch.facts import GIB, Device, DeviceKind, Engine, Model, Situation
from autolaunch.settings import AUTO, Settings
from tests.unit.starts import A100, GLM, GPT_OSS_20B, H100, RTX_4090, run

B200 = Device(DeviceKind.CUDA, "NVIDIA B200", int(178.3 * GIB), None, (10, 0))
HOST = Device(DeviceKind.CPU, "host memory, node 0", 256 * GIB)


@pytest.mark.parametrize(
    ("version", "era"),
    [
        ("0.4.2", Era.V0), ("0.7.3", Era.V0), ("0.8.0", Era.SORTED), ("0.16.0", Era.SORTED), ("0.17.1", Era.UNSORTED),
        ("0.18.0", Era.WORKSPACES), ("0.19.0", Era.TRIED), ("0.20.2", Era.TRIED), ("0.21.0", Era.GRAPHS_CHARGED),
        ("0.28.0", Era.GRAPHS_CHARGED), ("0.29.0", Era.V2_RUNNER), ("0.99.0", Era.V2_RUNNER),
        ("1.0.0", Era.V2_RUNNER), (None, Era.V2_RUNNER), ("nightly", Era.V2_RUNNER),
    ],
)  # fmt: skip
def test_every_release_belongs_to_an_era_and_an_unknown_one_to_the_newest(version: str | None, era: Era) -> None:
    assert Era.of(Engine(version)) is era


@pytest.mark.parametrize(
    ("device", "version", "seqs", "tokens"),
    [
        (H100.device(), "0.24.0", 1024, 8192),
        (H100.device(), "0.7.0", 256, 8192),
        (A100.device(), "0.24.0", 256, 2048),
        (RTX_4090.device(), "0.24.0", 256, 2048),
        (B200, "0.27.0", 1024, 8192),
        (B200, "0.28.0", 1024, 16384),
        (B200, None, 1024, 16384),
        (HOST, "0.32.0", 128, 2048),
        (Device(DeviceKind.CUDA), "0.24.0", 256, 2048),
    ],
)
def test_the_batch_follows_the_cards_size_except_on_an_a100(
    device: Device, version: str | None, seqs: int, tokens: int
) -> None:
    """vllm/engine/arg_utils.py, get_batch_defaults; 16384 tokens from 160 GiB on since 0.28."""
    engine = Engine(version)
    assert (usual_seqs(device, engine), usual_batched_tokens(device, engine, length=8192)) == (seqs, tokens)


@pytest.mark.parametrize(
    ("length", "tokens"), [(512, 2048), (8192, 8192), (32768, 32768), (131072, 2048), (None, 2048)]
)
def test_v0_batches_a_whole_prompt_unless_it_is_very_long(length: int | None, tokens: int) -> None:
    assert usual_batched_tokens(RTX_4090.device(), Engine("0.6.3"), length=length) == tokens


@pytest.mark.parametrize(
    ("dtype", "own", "found"),
    [(None, 2, 2), ("auto", 4, 4), ("bfloat16", 4, 2), ("fp8", 2, 1), ("fp8_e4m3", 2, 1), ("float32", 2, 4)],
)
def test_the_cache_has_the_models_own_type_unless_another_is_set(dtype: str | None, own: int, found: int) -> None:
    assert cache_value_bytes(dtype, own) == found


def resolved(version: str | None = "0.24.0", *, device: Device | None = None, **settings: Any) -> Resolved:
    """Return GLM-4-9B's settings on an H100."""
    return resolve(Settings(**settings), Situation(device or H100.device(), Engine(version), GLM))


def test_a_bare_start_is_filled_in_whole() -> None:
    found = resolved()
    assert found == Resolved(
        era=Era.GRAPHS_CHARGED,
        certain=True,
        utilization=0.92,
        max_model_len=131072,
        max_num_seqs=1024,
        max_num_batched_tokens=8192,
        capture_sizes=(1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)),
        full_graphs=51,
        ranks=1,
        cache_bytes=2,
        eager=False,
        on_host=False,
    )


@pytest.mark.parametrize(
    ("version", "settings", "graphs"),
    [
        ("0.24.0", {"max_num_seqs": 256, "max_num_batched_tokens": 2048}, (51, 35, 512)),
        ("0.24.0", {"max_num_seqs": 8}, (5, 4, 16)),
        ("0.24.0", {"max_num_seqs": 1}, (2, 1, 2)),
        ("0.24.0", {"enforce_eager": True}, (0, 0, 0)),
        ("0.24.0", {"cudagraph_capture_sizes": (1, 2, 4, 8)}, (4, 4, 8)),
        ("0.24.0", {"cudagraph_capture_sizes": (1, 2, 4, 8), "max_num_seqs": 4}, (4, 3, 8)),
        ("0.10.2", {}, (67, 0, 512)),
        ("0.11.0", {}, (67, 67, 512)),
        ("0.7.2", {}, (35, 0, 256)),
        ("0.7.2", {"max_num_seqs": 2}, (4, 0, 8)),
    ],
)
def test_the_capture_sizes_are_those_that_logs_of_the_release_name(
    version: str, settings: dict[str, Any], graphs: tuple[int, int, int]
) -> None:
    """51 piecewise and 51 or 35 whole graphs in 0.19 to 0.30, 67 in 0.10, 35 in V0."""
    found = resolved(version, **settings)
    assert (len(found.capture_sizes), found.full_graphs, max(found.capture_sizes, default=0)) == graphs


def test_gpt_oss_and_blackwell_capture_batches_twice_as_large() -> None:
    """83 sizes in the logs of gpt-oss-20b on two H100."""
    assert len(run(GPT_OSS_20B, H100, "0.19.0").capture_sizes) == 83
    assert max(resolved("0.30.0", device=B200).capture_sizes) == 1024


def test_fewer_batched_tokens_than_sequences_are_fewer_sequences() -> None:
    assert resolved(max_num_batched_tokens=512).max_num_seqs == 512
    assert resolved(max_num_batched_tokens=512, max_num_seqs=300).max_num_seqs == 300


def test_a_context_that_the_engine_fits_profiles_as_the_models_own() -> None:
    assert resolved(max_model_len=AUTO).max_model_len == 131072
    assert resolved(max_model_len=4096).max_model_len == 4096


def test_a_cpu_engine_captures_no_graphs_and_a_card_of_another_kind_still_does() -> None:
    host = resolved("0.32.0", device=HOST)
    assert (host.capture_sizes, host.on_host, host.eager, host.max_num_seqs) == ((), True, False, 128)


def test_a_model_of_unknown_length_leaves_it_open() -> None:
    assert resolve(Settings(), Situation(H100.device(), Engine("0.24.0"), Model())).max_model_len is None


@pytest.mark.parametrize(
    ("version", "free", "graphs", "in_flight"),
    [
        ("0.7.0", False, False, 8192),
        ("0.18.0", True, False, 8192),
        ("0.19.0", True, True, 8192),
        ("0.29.0", True, True, 16384),
    ],
)
def test_what_a_release_does_while_it_starts(version: str, free: bool, graphs: bool, in_flight: int) -> None:
    found = resolved(version, max_num_batched_tokens=8192)
    assert (found.checks_free, found.estimates_graphs, found.tokens_in_flight) == (free, graphs, in_flight)
