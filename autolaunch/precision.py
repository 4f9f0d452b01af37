"""In which floating point type a model runs on a card that has no bfloat16.

Pure. vLLM takes a checkpoint's own type, which today is mostly bfloat16, and cards below compute capability 8.0 do not
compute with it: older releases fail, newer ones choose for themselves. It is said here instead, before the start.
Sources: vllm/config/model.py (_FLOAT16_NOT_SUPPORTED_MODELS), vllm/worker/worker.py (_check_if_gpu_supports_dtype).
"""

from __future__ import annotations

from dataclasses import dataclass

from autolaunch.errors import WishError
from autolaunch.facts import Device, DeviceKind, Model

BFLOAT16 = (8, 0)
"""The least compute capability that computes with bfloat16."""

NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""Model types that vLLM refuses in float16: their numbers are not stable in it."""

OVERFLOWING = frozenset({"chatglm", "glm"})
"""Model types that run in float16 and are known to run out of its range now and then."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Words for the engine's command line, and what is to be said of them; empty where vLLM's own choice is right."""

    words: tuple[str, ...] = ()
    said: str = ""


def precision(model: Model, device: Device, *, asked: str | None) -> Precision:
    """Return the dtype that a model needs on a card; `asked` is the user's, which stands; `auto` asks for none.

    Raises `WishError` where no type of 16 bits is left: vLLM would take 32 bits or fail.
    """
    capability = device.compute_capability
    if device.kind is not DeviceKind.CUDA or capability is None or capability >= BFLOAT16:
        return Precision()
    asked = None if asked == "auto" else asked
    card = f"{device.name or 'the card'} has compute capability {capability[0]}.{capability[1]}, bfloat16 needs 8.0"
    if asked == "bfloat16":
        raise WishError(f"--dtype bfloat16: {card}", hint="give --dtype half, or leave it out")
    if asked in ("half", "float16") and model.model_type in NO_FLOAT16:
        raise WishError(f"--dtype {asked}: vLLM refuses float16 for models of type {model.model_type}", hint=_FLOAT32)
    if asked is not None or model.dtype in ("float16", "float32"):
        return Precision()
    if model.model_type in NO_FLOAT16:
        raise WishError(f"{card}, and vLLM refuses float16 for models of type {model.model_type}", hint=_FLOAT32)
    risk = ": should it answer '!!!!', its numbers left float16's range" if model.model_type in OVERFLOWING else ""
    return Precision(("--dtype", "half"), f"{card}: --dtype half is given{risk}")


_FLOAT32 = "use a card of compute capability 8.0 or newer, or --dtype float32, which takes twice the memory"
