"""However the output is cut into blocks, no secret passes the veil, and everything else does."""

from __future__ import annotations

import string
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as some

from autolaunch.looks import hide_looks_in_bytes
from autolaunch.redaction import Secrets
from autolaunch.veil import LONG_LINE_BYTES, Shapes, Veil

ALNUM = string.ascii_letters + string.digits
BEGIN, END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
KNOWN = Secrets(("correctHorse9battery",), ("EMPTY",))


def chance(alphabet: str, least: int, most: int) -> some.SearchStrategy[str]:
    """Words of chance with a digit and a capital in them."""
    return some.text(alphabet, min_size=least, max_size=most).map(lambda word: f"Q7{word}")


def told(before: str, secret: some.SearchStrategy[str], after: str) -> some.SearchStrategy[tuple[str, str, str]]:
    return secret.map(lambda word: (before, word, after))


KEY_LINES = some.lists(chance(ALNUM + "+/", 20, 62), min_size=1, max_size=6)
SECRETS = some.one_of(
    told("with ", chance(ALNUM, 8, 40).map(lambda word: f"hf_{word}"), " and"),
    told("with '", chance(ALNUM + "_-", 8, 60).map(lambda word: f"sk-{word}"), "' and"),
    told("cannot reach https://bob:", chance(ALNUM + "!$%.@", 4, 30), "@mirror.corp/x"),
    told("GET /x?a=b&X-Amz-Signature=", chance(ALNUM + "%~", 8, 64), "&c=d HTTP/1.1"),
    told("{'Authorization': 'Bearer ", chance(ALNUM + "._~+/-", 8, 80), "'}"),
    told("jwt ", chance(ALNUM, 6, 60).map(lambda word: f"eyJ{word}.eyJ{word}.{word}"), " end"),
    told(BEGIN + "\n", KEY_LINES.map("\n".join), f"\n{END}\nend"),
    told(BEGIN + "\\n", KEY_LINES.map("\\n".join), f"\\n{END}\\n"),
    told("said ", some.just(KNOWN.anywhere[0]), "!"),
)
LINES = some.text(some.characters(codec="utf-8", exclude_characters="-?&@:/"), max_size=60)


def through(data: bytes, cuts: list[int]) -> bytes:
    veil = Veil(KNOWN, Shapes())
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join([*(veil.feed(data[begin:end]) for begin, end in pairwise(places)), veil.finish()])


CUTS = some.lists(some.integers(0, 1 << 20), max_size=20)


@given(some.lists(SECRETS | LINES, max_size=8), CUTS)
@settings(max_examples=300, deadline=None)
@example([(f"{BEGIN}\n", "Q7MIIEvQIBADANBgkqhkiG9w0B\nQ7AgEAAoIBAQC7", f"\n{END}\n")], list(range(120)))
def test_no_secret_passes_however_the_output_is_cut(pieces: list[tuple[str, str, str] | str], cuts: list[int]) -> None:
    said = "".join(piece + "\n" if isinstance(piece, str) else "".join(piece) + "\n" for piece in pieces)
    shown = through(said.encode(), cuts)
    for piece in pieces:
        if not isinstance(piece, str):
            for line in piece[1].replace("\\n", "\n").split("\n"):
                assert line.encode() not in shown
    assert shown == through(said.encode(), [])


@given(LINES, SECRETS, some.integers(LONG_LINE_BYTES - 200, LONG_LINE_BYTES + 50), CUTS)
@settings(max_examples=100, deadline=None)
@example("", ("with ", "hf_Q7FileStoredToken", " and"), LONG_LINE_BYTES, [12, 17])
def test_no_part_of_a_secret_passes_in_a_line_that_is_written_in_parts(
    line: str, piece: tuple[str, str, str], at: int, cuts: list[int]
) -> None:
    """Cuts in and around the secret, where so much was held that half the line is passed on."""
    head = f"{line}{'x ' * (at // 2)}"
    said = f"{head}{''.join(piece)}{'y ' * LONG_LINE_BYTES}".encode()
    near = [len(head.encode()) + cut % 90 for cut in cuts]
    assert through(said, near) == hide_looks_in_bytes(said.replace(KNOWN.anywhere[0].encode(), b"***"))


@given(some.lists(some.binary(max_size=80), max_size=20), CUTS)
@settings(deadline=None)
def test_what_holds_no_secret_passes_as_it_is(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(line.translate(None, b"?&@-_:yK") for line in lines)
    assert through(data, cuts) == data
