"""Models and starts that were measured, as the memory model's tests need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autolaunch.budget import Demand
from autolaunch.defaults import Resolved, resolve
from autolaunch.facts import GIB, Basis, Device, DeviceKind, Engine, Model, Situation, Weights
from autolaunch.past import Past
from autolaunch.settings import Settings
from autolaunch.shape import CacheKind, CacheLayers, Shape

H100_BYTES = 85_017_493_504
A100_BYTES = 85_093_777_408
RTX_4090_BYTES = 25_250_627_584


def plain(hidden: int, inner: int, layers: int, all_heads: tuple[int, int], vocab: int, **more: Any) -> Shape:
    """Return the shape of a model with plain attention and so many heads and KV heads."""
    heads, kv = all_heads
    head_dim = more.pop("head_dim", hidden // heads)
    full = CacheLayers(CacheKind.FULL, layers, 2 * kv * head_dim, kv)
    return Shape(
        more.pop("architecture", "LlamaForCausalLM"),
        hidden,
        inner,
        layers,
        heads,
        kv,
        head_dim,
        vocab,
        more.pop("caches", (full,)),
        **more,
    )


def latent(hidden: int, layers: int, heads: int, vocab: int, **more: Any) -> Shape:
    """Return the shape of a model with latent attention."""
    caches = (CacheLayers(CacheKind.LATENT, layers, 576),)
    return plain(hidden, 10944, layers, (heads, heads), vocab, caches=caches, **more)


GLM_4_9B = plain(4096, 13696, 40, (32, 2), 151552, architecture="GlmForCausalLM")
QWEN3_8B = plain(4096, 12288, 36, (32, 8), 151936)
QWEN3_14B = plain(5120, 17408, 40, (40, 8), 151936)
QWEN3_32B = plain(5120, 25600, 64, (64, 8), 151936, head_dim=128)
QWEN25_7B = plain(3584, 18944, 28, (28, 4), 152064)
LLAMA_8B = plain(4096, 14336, 32, (32, 8), 128256)
MISTRAL_7B = plain(4096, 14336, 32, (32, 8), 32768)
GEMMA2_2B = plain(2304, 9216, 26, (8, 4), 256000, head_dim=256, soft_cap=True, tie_word_embeddings=True)
GEMMA2_27B = plain(4608, 36864, 46, (32, 16), 256000, head_dim=128, soft_cap=True, tie_word_embeddings=True)
QWEN3_30B = plain(
    2048, 6144, 48, (32, 4), 151936, head_dim=128, experts=128, experts_per_token=8, expert_intermediate_size=768
)
MIXTRAL = plain(4096, 14336, 32, (32, 8), 32000, experts=8, experts_per_token=2, expert_intermediate_size=14336)
GPT_OSS_20B = plain(
    2880, 2880, 24, (64, 8), 201088, head_dim=64, experts=32, experts_per_token=4, expert_intermediate_size=2880,
    architecture="GptOssForCausalLM",
)  # fmt: skip
DEEPSEEK_V2_LITE = latent(2048, 27, 16, 102400, experts=64, experts_per_token=6, expert_intermediate_size=1408)
MAMBA = plain(
    2560, 5120, 64, (1, 1), 50280, head_dim=1, caches=(CacheLayers(CacheKind.STATE, 64, state_bytes=400_000),)
)
TINY_GLM = plain(256, 1152, 32, (4, 1), 512, head_dim=128)

GLM = Model(
    131072,
    name="glm-4-9b",
    shape=GLM_4_9B,
    weights=Weights(18_799_902_720, linear_bytes=16_315_842_560, basis=Basis.EXACT, source="safetensors headers"),
)


@dataclass(frozen=True, slots=True)
class Card:
    """A card with the bytes that CUDA counts on it."""

    name: str
    total_bytes: int
    capability: tuple[int, int] | None

    def device(self, free_bytes: int | None = None) -> Device:
        """Return the card as measured."""
        return Device(DeviceKind.CUDA, self.name, self.total_bytes, free_bytes, self.capability)


H100 = Card("NVIDIA H100 80GB HBM3", H100_BYTES, (9, 0))
A100 = Card("NVIDIA A100 80GB PCIe", A100_BYTES, (8, 0))
RTX_4090 = Card("NVIDIA GeForce RTX 4090", RTX_4090_BYTES, (8, 9))
L4 = Card("NVIDIA L4", 23_659_151_360, (8, 9))
T4 = Card("Tesla T4", int(14.74 * GIB), (7, 5))


def shown(total_gib: float) -> Card:
    """Return an H100 that shows so much memory."""
    return Card(H100.name, int(total_gib * GIB), H100.capability)


def run(shape: Shape, card: Card, version: str | None, **settings: Any) -> Resolved:
    """Return what a start with these settings runs with."""
    situation = Situation(card.device(), Engine(version, DeviceKind.CUDA), Model(shape=shape))
    return resolve(Settings(**settings), situation)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of GLM-4-9B on an H100 or a part of it, as autolaunch sees it beforehand."""

    total_gib: float = 79.178
    free_gib: float | None = None
    version: str | None = "0.24.0"
    settings: Settings = field(default_factory=Settings)
    past: Past = field(default_factory=Past)

    @property
    def demand(self) -> Demand:
        """The start as the memory model takes it."""
        free = None if self.free_gib is None else int(self.free_gib * GIB)
        card = H100 if self.total_gib == 79.178 else shown(self.total_gib)
        situation = Situation(card.device(free), Engine(self.version, DeviceKind.CUDA), GLM)
        return Demand(self.settings, situation, self.past)
