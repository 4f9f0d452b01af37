"""A vLLM general plugin: the engine believes in a card of SMALL_CARD_GIB, as CUDA would report it."""

import os


def register() -> None:
    """Replace what PyTorch and vLLM's platform say of the card's size; called in every process of the engine."""
    wanted = os.environ.get("SMALL_CARD_GIB")
    if not wanted:
        return
    import torch
    from vllm.platforms import current_platform

    total = int(float(wanted) * 2**30)
    real = torch.cuda.mem_get_info
    if getattr(real, "is_small", False):
        return

    def smaller(device=None):  # type: ignore[no-untyped-def]
        free, _ = real(device)
        return min(free, total), total

    smaller.is_small = True  # type: ignore[attr-defined]
    torch.cuda.mem_get_info = smaller
    platform = type(current_platform)
    platform.mem_get_info = staticmethod(smaller)
    platform.get_device_total_memory = classmethod(lambda cls, device_id=0: total)
