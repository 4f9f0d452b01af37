"""What looks like a secret is hidden in text and bytes alike; what an engine prints otherwise stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autolaunch.looks import LONGEST_BYTES, hide_looks, hide_looks_in_bytes, is_suspicious, open_key, secrets_by_look

LOGS = sorted((Path(__file__).parents[1] / "data").rglob("*.log"))
BEGIN, END = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nAgEAAoIBAQC7+/abcdefghijklmnop==\n"
HELD = [
    ("cannot reach https://bob:S3cretPw99@mirror.corp/x", "cannot reach https://bob:***@mirror.corp/x"),
    ("with hf_FileStoredTokenXYZ123456.", "with ***."),
    ("hf_" + "abcdefgh" * 4, "***"),
    ("sk-proj-abc_DEF-123", "***"),
    ("gho_0123456789abcdef0 github_pat_0123456789_abcdefghij", "*** ***"),
    ("glpat-0123456789abcdef nvapi-0123456789abcdef_-xyz", "*** ***"),
    ("AKIA0123456789AB ASIA0123456789AB", "*** ***"),
    ("AIza" + "Sy0123456789" * 3, "***"),
    ("xoxb-0123456789-abc", "***"),
    ("ms-01234567-89ab-cdef-0123-456789abcdef", "***"),
    ("Bearer abc123def456", "Bearer ***"),
    ("authorization: bearer horse", "authorization: bearer ***"),
    ("[(b'Authorization', b'Basic aG9yc2U=')]", "[(b'Authorization', b'Basic ***')]"),
    ("'Authorization': 'horse'", "'Authorization': '***'"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbg-_ end", "jwt *** end"),
    ("http://h/x?token=horse&a=b", "http://h/x?token=***&a=b"),
    ("GET /x?a=b&X-Amz-Security-Token=q%2F HTTP/1.1", "GET /x?a=b&X-Amz-Security-Token=*** HTTP/1.1"),
    ("'https://h/?sv=1&sig=a%3D', '?key=horse'", "'https://h/?sv=1&sig=***', '?key=***'"),
    (
        "https://h/x?Expires=1&amp;Signature=a~b&Key-Pair-Id=K1",
        "https://h/x?Expires=1&amp;Signature=***&Key-Pair-Id=K1",
    ),
    (f"a\n{BEGIN}\n{BODY}{END}\nb", f"a\n{BEGIN}***{END}\nb"),
    (f"a\n{BEGIN}\r\n{BODY}cut off:\n", f"a\n{BEGIN}***\ncut off:\n"),
    (f"{BEGIN}\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES,0A\n\n{BODY}", f"{BEGIN}***\n"),
    (f"{BEGIN}\n(EngineCore pid=1) MIIEvQ\n(EngineCore pid=1) ab==\nx y", f"{BEGIN}***\nx y"),
    (f"{BEGIN}\n\x1b[1;36m(EngineCore pid=1)\x1b[0;0m MIIEvQ\nx y", f"{BEGIN}***\nx y"),
    (f"'{BEGIN}\\nMIIEvQIB\\nADA=\\n{END}\\n'", f"'{BEGIN}***{END}\\n'"),
    (f"{BEGIN} MIIEvQ IBADA= {END}", f"{BEGIN}***{END}"),
]
FREE = [
    "task-oriented risk-averse disk-based",
    "hf_overrides={} hf_processor_kwargs=None hf_config_path hf_quantizer hf_transformers",
    "Bearer authentication failed",
    "authorization is needed",
    "eyJust a word. eyJ.x.y",
    "http://0.0.0.0:8000 git@host:path https://me@host/x user@host:22",
    "shards:   0% 0/10 [00:00<?, ?it/s] what?key a&b=c",
    "?max_tokens=5&key_value=7&design=x",
    "-----BEGIN CERTIFICATE-----\nMIIEvQIB\n-----END CERTIFICATE-----",
    f"{BEGIN} is expected at the first line\nMIIEvQ",
    f"{BEGIN}\nValueError: no key is there\nIt was tried",
]


@pytest.mark.parametrize(("text", "shown"), HELD)
def test_what_looks_like_a_secret_is_hidden_without_being_told(text: str, shown: str) -> None:
    assert hide_looks(text) == shown
    assert hide_looks_in_bytes(text.encode()) == shown.encode()
    assert hide_looks(shown) == shown


@pytest.mark.parametrize("text", FREE)
def test_what_only_resembles_one_stays(text: str) -> None:
    assert hide_looks(text) == text
    assert hide_looks_in_bytes(text.encode()) == text.encode()


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_what_real_engines_print_stays_as_it_is(log: Path) -> None:
    assert hide_looks_in_bytes(log.read_bytes()) == log.read_bytes()


@pytest.mark.parametrize("text", [text for text, _ in HELD])
def test_no_secret_stands_where_nothing_is_suspicious_whatever_its_digits(text: str) -> None:
    """Lines are told apart with each digit a 0: a look that hung on another digit would be overlooked."""
    assert is_suspicious(text.encode().translate(bytes.maketrans(b"123456789", b"000000000")))


def test_what_looks_like_a_secret_is_found_to_be_hidden_elsewhere_too() -> None:
    text = "https://me:pa55w0rd!@h/x?token=horse-1 hf_FileStoredTokenXYZ123456"
    assert secrets_by_look(text) == {"pa55w0rd!", "horse-1", "hf_FileStoredTokenXYZ123456"}


def test_a_secret_that_may_go_on_is_left_for_the_rest_of_it() -> None:
    assert hide_looks_in_bytes(b"sk-0123456789 sk-012345678", whole=False) == b"*** sk-012345678"
    assert hide_looks_in_bytes(b"sk-" + b"a" * LONGEST_BYTES, whole=False) == b"***"


@pytest.mark.parametrize(
    ("block", "begin"),
    [
        ("no key\n", 7),
        (f"a\n{BEGIN}\n", 2),
        (f"a\n{BEGIN}\r\n", 2),
        (f"a\n{BEGIN}\n{BODY}", 2),
        (f"a\n{BEGIN}\nMIIE\n{BODY}it ends here\n", None),
        (f"a\n{BEGIN}\n{BODY}{END}\n", None),
        (f"{BEGIN}\n" + "MIIEvQ\n" * LONGEST_BYTES, None),
    ],
)
def test_a_key_whose_end_is_to_come_is_known_by_its_beginning(block: str, begin: int | None) -> None:
    assert open_key(block.encode()) == (len(block) if begin is None else begin)


def test_a_key_that_is_not_whole_is_seen_at_once_however_its_lines_end() -> None:
    """Twenty lines that ended in CRLF took 26 s, each two more four times as long, and the engine's pipe was full."""
    began = time.process_time()
    for end in ("\r\n", "\n", "\r", "\\r\\n"):
        body = end.join([BEGIN, "Proc-Type: 4,ENCRYPTED", *["MIIEpAIBAAKCAQEA0123456789abcdef"] * 60])
        assert open_key(body.encode()) == 0
        assert open_key(f"{body}{end}{END}{end}".encode()) != 0
        open_key((BEGIN + f"{end}DEK-Info: a" * 60 + "x-").encode())
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "line",
    [
        "eyJaaaaaa-" * 6500,
        "://a:b" * 10_000,
        "://" + "a:" * 32_000,
        "?a-" * 20_000,
        f"{BEGIN}\n" * 2000,
        "hf_a" * 16_000,
    ],
)
def test_a_line_that_is_made_to_be_slow_is_not(line: str) -> None:
    began = time.process_time()
    hide_looks_in_bytes(line.encode())
    assert time.process_time() - began < 1.0
