"""What the veil holds back and for how long, and what it costs where nothing is secret."""

from __future__ import annotations

import pytest

from autolaunch.redaction import Secrets
from autolaunch.veil import KNOWN_SHAPES, LONG_LINE_BYTES, Shapes, Sieve, Veil

BEGIN, END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"


def veil(*anywhere: str, named: tuple[str, ...] = ()) -> Veil:
    return Veil(Secrets(anywhere, named), Shapes())


def test_what_the_engine_prints_by_itself_is_hidden() -> None:
    """A token that `hf auth login` had stored, and a mirror's password: autolaunch was told neither."""
    said = b"RuntimeError: cannot reach https://bob:S3cretPw99@mirror.corp/x with hf_FileStoredTokenXYZ123456\n"
    assert veil().feed(said) == b"RuntimeError: cannot reach https://bob:***@mirror.corp/x with ***\n"


def test_whole_lines_are_given_at_once_and_the_rest_is_held() -> None:
    one = veil()
    assert one.feed(b"a\nb\rc hf_Abcd") == b"a\nb\r"
    assert one.feed(b"efgh1") == b""
    assert one.feed(b"2\n") == b"c ***\n"
    assert one.finish() == b""


def test_what_ends_without_a_lines_end_is_given_at_the_end() -> None:
    one = veil("correctHorse9battery")
    assert one.feed(b"correctHorse9bat") == b""
    assert one.feed(b"tery sk-0123456789") == b""
    assert one.finish() == b"*** ***"
    assert one.finish() == b""


def test_a_key_is_held_until_its_end_and_nothing_before_or_after_it() -> None:
    one = veil()
    assert one.feed(b"before\n" + BEGIN + b"\nMIIEvQ\n") == b"before\n"
    assert one.feed(b"IBADAN\n") == b""
    assert one.feed(END + b"\nafter\n") == BEGIN + b"***" + END + b"\nafter\n"


def test_a_key_that_is_none_holds_nothing_up() -> None:
    one = veil()
    assert one.feed(BEGIN + b"\n") == b""
    assert one.feed(b"ValueError: no key\n") == BEGIN + b"\nValueError: no key\n"
    assert one.feed(BEGIN + b" is expected\n") == BEGIN + b" is expected\n"


def test_a_key_without_an_end_is_hidden_at_the_end() -> None:
    one = veil()
    assert one.feed(BEGIN + b"\nMIIEvQ\nIBAD") == b""
    assert one.finish() == BEGIN + b"***"


@pytest.mark.parametrize("body", [b"MIIEvQIB\n", b"M"])
def test_a_key_that_never_ends_takes_bounded_memory(body: bytes) -> None:
    one = veil()
    shown = one.feed(BEGIN + b"\n")
    for _ in range(40):
        shown += one.feed(body * (1 << 13))
    assert len(shown) > 40 * len(body) * (1 << 13) - 2 * LONG_LINE_BYTES


def test_a_token_that_is_cut_where_a_long_line_is_written_in_parts_is_hidden() -> None:
    """Hidden at the cut as far as it had come, its rest would have stood in the log."""
    one = veil()
    shown = one.feed(b"x " * LONG_LINE_BYTES + b"hf_FileStored")
    shown += one.feed(b"TokenXYZ123456 " + b"y " * LONG_LINE_BYTES)
    shown += one.finish()
    assert shown == b"x " * LONG_LINE_BYTES + b"*** " + b"y " * LONG_LINE_BYTES


def test_known_secrets_are_hidden_as_python_and_json_spell_them_and_plain_ones_behind_their_names() -> None:
    one = veil("it's a \\ secret-ä", named=("EMPTY",))
    assert one.feed(b'"it\'s a \\\\ secret-\\u00e4" api_key=EMPTY EMPTY\n') == b'"***" api_key=*** EMPTY\n'


def test_the_lines_of_a_flood_are_looked_at_once() -> None:
    asked: list[bytes] = []

    def matters(shape: bytes) -> bool:
        asked.append(shape)
        return b"!" in shape

    shapes, sieve = Shapes(), Sieve(matters)
    for n in range(5):
        listed, distinct = shapes.of(b"line %d\nline %d!\nline 0" % (n, n))
        assert listed == [b"line 0", b"line 0!", b"line 0"]
        assert sieve.keep(distinct) == {b"line 0!"}
    assert sorted(asked) == [b"line 0"] + [b"line 0!"] * 5


def test_what_is_remembered_of_lines_is_bounded() -> None:
    asked: list[bytes] = []

    def matters(shape: bytes) -> bool:
        asked.append(shape)
        return False

    sieve = Sieve(matters)
    for n in range(KNOWN_SHAPES + 1):
        sieve.keep({b"a" * (n + 1)})
    sieve.keep({b"a"})
    assert asked.count(b"a") == 2
