"""A model as its dimensions, and the bytes that follow from them: weights, KV cache. Pure.

The dimensions are those of the public config.json files; the parameter counts that follow were compared with the
published ones (GLM-4-9B 9,399,951,360). Not one formula is the package's: these tests may not share its mistakes.
"""

from __future__ import annotations

from .record import Record

GIB = 1024**3
FP8_SHARE = 0.503
"""What is left of a 16-bit linear weight in FP8: 10.02 GiB measured for GLM-4-9B, 8.49 for Llama 8B."""

FOUR_BIT_BYTES = 0.5 + 2.5 / 128
"""Bytes of a 4-bit weight with the scale and zero point of its group of 128 (AWQ, GPTQ)."""


class ModelDims(Record):
    """What memory depends on; `stored` is how the checkpoint keeps its linear weights: bf16, fp8 or awq.

    experts  of each layer (0: a dense one); `intermediate` is then one expert's. `biases` of q, k and v;
    `head_norms` of q and k.
    """

    name: str = "glm-4-9b"
    architecture: str = "GlmForCausalLM"
    layers: int = 40
    hidden: int = 4096
    heads: int = 32
    kv_heads: int = 2
    head_dim: int = 128
    intermediate: int = 13696
    vocab: int = 151552
    max_len: int = 131072
    tied: bool = False
    biases: bool = True
    head_norms: bool = False
    experts: int = 0
    experts_per_token: int = 0
    stored: str = "bf16"

    @property
    def linear_per_layer(self) -> int:
        """Weights of one layer's linear layers."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        mlp = 3 * self.hidden * self.intermediate
        return attention + (mlp * self.experts if self.experts else mlp)

    @property
    def other_parameters(self) -> int:
        """Weights that stay in 16 bits: embeddings, the head, norms, biases, the router of experts."""
        outer = self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden
        inner = 2 * self.hidden + self.hidden * self.experts
        inner += (self.heads + 2 * self.kv_heads) * self.head_dim if self.biases else 0
        inner += 2 * self.head_dim if self.head_norms else 0
        return outer + inner * self.layers

    def weight_bytes(self, method: str | None = None) -> int:
        """Give the bytes of one copy as loaded with `--quantization method` (None: as it is stored)."""
        linear = self.linear_per_layer * self.layers
        stored = {"bf16": 2.0, "fp8": 1.0, "awq": FOUR_BIT_BYTES}[self.stored]
        each = {"fp8": 2 * FP8_SHARE, "bitsandbytes": FOUR_BIT_BYTES}.get(str(method), stored)
        return int(linear * min(each, stored)) + 2 * self.other_parameters

    def largest_layer_bytes(self) -> int:
        """Give the 16-bit bytes of the largest thing that is loaded at once."""
        return 2 * max(self.linear_per_layer // max(1, self.experts), self.vocab * self.hidden)

    def token_bytes(self, ranks: int, cache: str) -> int:
        """Give the KV bytes of a token on one rank; heads that cannot be shared out are repeated."""
        return 2 * self.layers * max(1, self.kv_heads // ranks) * self.head_dim * (1 if cache.startswith("fp8") else 2)


GLM_4_9B = ModelDims()


def qwen2(name: str, sizes: tuple[int, int, int, int, int], *, vocab: int = 152064, tied: bool = False) -> ModelDims:
    """Give a Qwen2.5 of (layers, hidden, heads, kv_heads, intermediate)."""
    layers, hidden, heads, kv_heads, intermediate = sizes
    return ModelDims(
        name=name,
        architecture="Qwen2ForCausalLM",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate=intermediate,
        vocab=vocab,
        max_len=32768,
        tied=tied,
    )


def llama(name: str, sizes: tuple[int, int, int, int, int], *, vocab: int, max_len: int) -> ModelDims:
    """Give a Llama or Mistral of (layers, hidden, heads, kv_heads, intermediate)."""
    layers, hidden, heads, kv_heads, intermediate = sizes
    return ModelDims(
        name=name,
        architecture="MistralForCausalLM" if "istral" in name else "LlamaForCausalLM",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate=intermediate,
        vocab=vocab,
        max_len=max_len,
        biases=False,
    )


def four_bit(dims: ModelDims) -> ModelDims:
    """Give the AWQ sibling of a model."""
    return ModelDims(**{**vars(dims), "name": dims.name + "-AWQ", "stored": "awq"})


QWEN_05B = qwen2("Qwen2.5-0.5B-Instruct", (24, 896, 14, 2, 4864), vocab=151936, tied=True)
QWEN_7B = qwen2("Qwen2.5-7B-Instruct", (28, 3584, 28, 4, 18944))
QWEN_14B = qwen2("Qwen2.5-14B-Instruct", (48, 5120, 40, 8, 13824))
QWEN_32B = qwen2("Qwen2.5-32B-Instruct", (64, 5120, 40, 8, 27648))
QWEN3_8B = ModelDims(
    name="Qwen3-8B",
    architecture="Qwen3ForCausalLM",
    layers=36,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=12288,
    vocab=151936,
    max_len=40960,
    biases=False,
    head_norms=True,
)
QWEN3_30B_A3B = ModelDims(
    name="Qwen3-30B-A3B",
    architecture="Qwen3MoeForCausalLM",
    layers=48,
    hidden=2048,
    heads=32,
    kv_heads=4,
    head_dim=128,
    intermediate=768,
    vocab=151936,
    max_len=40960,
    biases=False,
    head_norms=True,
    experts=128,
    experts_per_token=8,
)
LLAMA_8B = llama("Llama-3.1-8B-Instruct", (32, 4096, 32, 8, 14336), vocab=128256, max_len=131072)
LLAMA_70B = llama("Llama-3.1-70B-Instruct", (80, 8192, 64, 8, 28672), vocab=128256, max_len=131072)
MISTRAL_7B = llama("Mistral-7B-Instruct-v0.3", (32, 4096, 32, 8, 14336), vocab=32768, max_len=32768)
PHI_4 = ModelDims(
    name="phi-4",
    architecture="Phi3ForCausalLM",
    layers=40,
    hidden=5120,
    heads=40,
    kv_heads=10,
    head_dim=128,
    intermediate=17920,
    vocab=100352,
    max_len=16384,
    biases=False,
)
MODELS = (
    QWEN_05B,
    QWEN_7B,
    QWEN_14B,
    QWEN_32B,
    QWEN3_8B,
    QWEN3_30B_A3B,
    GLM_4_9B,
    LLAMA_8B,
    LLAMA_70B,
    MISTRAL_7B,
    PHI_4,
    four_bit(QWEN_14B),
    four_bit(QWEN_32B),
    four_bit(LLAMA_70B),
)
