"""Output for its own sake: floods, long lines, garbage. `write` is the only output there is."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .behaviours import Behaviour
    from .texts import Speech

BLOCK_BYTES = 65536

GARBAGE = (
    b"\x00\x00\x00 NULs before \x00 and between\n"
    b"bad UTF-8: \xff\xfe\xc3\x28 \xe2\x82 \xf0\x9f\x98\n"
    b"\x1b[1;36m(EngineCore pid=640)\x1b[0;0m \x1b[31mERROR\x1b[0m coloured \x1b[2K\x1b[1A\n"
    b"\rLoading safetensors checkpoint shards:   0% Completed | 0/10 [00:00<?, ?it/s]"
    b"\rLoading safetensors checkpoint shards:  50% Completed | 5/10 [00:01<00:01,  4.11it/s]"
    b"\rLoading safetensors checkpoint shards: 100% Completed | 10/10 [00:02<00:00,  4.01it/s]\n"
    b"\r\n\r\r\n"
    b"\xef\xbb\xbfa byte order mark, \xc2\x85 a next line, \xe2\x80\xa8 a line separator, \x0b\x0c\x1c\x1d\n"
    b"latin-1: caf\xe9 cr\xe8me\n"
    b"half a character at the end \xe2\x96"
    b"\x88\n"
)


def write(handle: int, data: bytes) -> None:
    """Write all of it; a reader that is gone is no error, as for vLLM's logging."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(handle, view) :]
        except (BrokenPipeError, OSError):
            return


def say(lines: list[tuple[int, str]]) -> None:
    """Write lines to their streams, neighbours on the same stream at once."""
    block: list[str] = []
    current = 0
    for handle, line in lines:
        if block and handle != current:
            write(current, "".join(block).encode())
            block.clear()
        current = handle
        block.append(line + "\n")
    if block:
        write(current, "".join(block).encode())


def noise(behaviour: Behaviour, speech: Speech) -> Iterator[bytes]:
    """Give the bytes of a noisy behaviour, block by block; none for the others."""
    name = behaviour._name
    if name == "garbage":
        yield GARBAGE
    elif name == "long_line":
        total = int(getattr(behaviour, "bytes", 0))
        for start in range(0, total, BLOCK_BYTES):
            yield b"x" * min(BLOCK_BYTES, total - start)
        yield b"\n"
    elif name == "spam":
        total = int(getattr(behaviour, "bytes", 0))
        block = _block(speech, int(getattr(behaviour, "line_length", 160)))
        for start in range(0, total, len(block)):
            yield block if total - start >= len(block) else block[: max(0, total - start - 1)] + b"\n"


def _block(speech: Speech, line_length: int) -> bytes:
    """Give about 64 KiB of log lines of exactly `line_length` bytes, the newline included."""
    lines = []
    for number in range(max(1, BLOCK_BYTES // line_length)):
        speech.values["n"] = number
        text = speech.phase("spam")[0][1].encode()
        lines.append(text[: line_length - 1].ljust(line_length - 1, b".") + b"\n")
    return b"".join(lines)
