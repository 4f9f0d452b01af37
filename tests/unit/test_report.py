"""A report holds what a diagnosis needs, is bounded whatever the run left, and gives no secret away."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from autolaunch import report
from autolaunch.errors import WishError
from autolaunch.figures import Effective
from autolaunch.kept import KeptRecord, about
from autolaunch.logfile import Bounds, LogFile
from autolaunch.memory import Memory
from autolaunch.past import Key, Outcome
from autolaunch.redaction import scrub
from autolaunch.report import LOG_BYTES, Piece, events, gather, newest_failed, pack
from autolaunch.settings import Settings
from autolaunch.state import log_of
from autolaunch.status import Status

LOG = (Path(__file__).parents[1] / "data" / "engine_logs" / "gpu_p_20g_profile_oom.log").read_bytes()
EMPTY = {"PATH": "/nowhere"}


def attempt(n: int) -> dict[str, Any]:
    return {"event": "attempt", "n": n}


def failed(n: int) -> dict[str, Any]:
    return {"event": "failed", "n": n}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "20260101-000000-1-aaaa"
    folder.mkdir(parents=True)
    return folder


def told(run: Path, *lines: dict[str, Any]) -> None:
    (run / "record.jsonl").write_text("".join(json.dumps({"v": 1, **line}) + "\n" for line in lines))


def gathered(run: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """The report's pieces by their names, without the host's."""
    state = run.parents[1]
    return {piece.name: piece.text for piece in gather(state, run, environment or EMPTY) if piece.name != "host.txt"}


# --- what failed


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], None),
        ([attempt(1), {"event": "ready", "n": 1}], None),
        ([attempt(1), failed(1), attempt(2)], 1),
        ([attempt(1), failed(1), attempt(2), {"event": "ready"}, {"event": "crashed"}], 2),
        ([attempt(1), {"event": "crashed"}, {"event": "restarting"}, attempt(2)], 1),
        ([{"event": "crashed"}], None),
        ([{"event": "failed", "n": "x"}, {"no": "event"}], None),
    ],
)
def test_the_newest_failed_attempt_is_found(lines: list[dict[str, Any]], found: int | None) -> None:
    assert newest_failed(lines) == found


def test_lines_that_are_no_events_are_left_out() -> None:
    assert events(b'{"event": "plan"}\n[autolaunch: 3 bytes are left out]\n[1]\n{"event": "st') == ({"event": "plan"},)


# --- what is in it


def test_a_report_on_a_failed_run_has_its_diagnosis_its_logs_and_its_past(run: Path) -> None:
    state = run.parents[1]
    memory = Memory.open(state, pytest.fail)
    memory.add(Key("org/m"), Outcome(Settings(), None, Effective(), engine_version="0.24.0", at=1.0))
    memory.add(Key("org/other"), Outcome(Settings(), None, Effective(), at=2.0))
    KeptRecord(run, about(Status(run=run.name, model="./m"), Key("org/m"), "a card"), pytest.fail)
    told(run, attempt(1), failed(1), attempt(2), {"event": "ready", "n": 2})
    log_of(run, 1).write_bytes(LOG)
    log_of(run, 2).write_bytes(b"up\n")
    pieces = gathered(run)
    assert list(pieces) == [
        "run.json",
        "record.jsonl",
        "diagnosis.json",
        "attempt-1.log",
        "attempt-2.log",
        "history.jsonl",
    ]
    assert json.loads(pieces["run.json"])["model"] == "./m"
    assert [json.loads(line)["event"] for line in pieces["record.jsonl"].splitlines()] == [
        "attempt",
        "failed",
        "attempt",
        "ready",
    ]
    assert json.loads(pieces["diagnosis.json"])["kind"] == "profile_oom"
    assert pieces["attempt-1.log"].count("\n") == LOG.count(b"\n")
    assert pieces["attempt-2.log"] == "up\n"
    (start,) = [json.loads(line) for line in pieces["history.jsonl"].splitlines()]
    assert start["key"]["model"] == "org/m"


def test_a_report_without_a_run_tells_of_the_host(tmp_path: Path) -> None:
    (piece,) = gather(tmp_path, None, {"PATH": "/nowhere", "VLLM_PORT": "8000", "EDITOR": "vi"})
    lines = dict(line.split(maxsplit=1) for line in piece.text.splitlines())
    assert {"autolaunch", "python", "platform", "engine", "memory", "package", "variable"} <= set(lines)
    assert lines["variable"] == "VLLM_PORT='8000'"
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_which_nothing_can_be_read_is_no_error(run: Path) -> None:
    assert gathered(run) == {}
    (run / "run.json").write_bytes(b"\xff{")
    (run / "record.jsonl").write_bytes(b'\xff\n{"event": "failed", "n": 1}\n')
    assert list(gathered(run)) == ["record.jsonl"]


# --- bounds


def test_of_long_logs_beginning_and_end_are_taken_in_whole_lines(run: Path) -> None:
    lines = [f"line {n:010}\n".encode() for n in range(600_000)]
    file = LogFile(log_of(run, 1), Bounds(head_bytes=3 << 20, tail_bytes=3 << 20))
    for n in range(0, len(lines), 1000):
        file.write(b"".join(lines[n : n + 1000]))
    pieces = gathered(run)
    assert list(pieces) == ["attempt-1.head.log", "attempt-1.tail.log"]
    head, tail = pieces["attempt-1.head.log"].encode(), pieces["attempt-1.tail.log"].encode()
    assert LOG_BYTES - 20 < len(head) <= LOG_BYTES
    assert LOG_BYTES - 20 < len(tail) <= LOG_BYTES
    assert b"".join(lines).startswith(head)
    assert b"".join(lines).endswith(tail)
    assert head.endswith(b"\n")


def test_a_log_a_little_longer_than_its_beginning_is_split_without_loss_of_a_line(run: Path) -> None:
    line = b"x" * 99 + b"\n"
    log_of(run, 1).write_bytes(line * (LOG_BYTES // 100 + 500))
    pieces = gathered(run)
    assert pieces["attempt-1.head.log"].encode() == line * (LOG_BYTES // 100)
    assert pieces["attempt-1.tail.log"].encode() == line * 499


def test_of_many_attempts_the_newest_and_the_failed_one_are_taken(run: Path) -> None:
    for n in range(1, 11):
        log_of(run, n).write_bytes(LOG)
    told(run, attempt(2), failed(2))
    assert [name for name in gathered(run) if name.endswith(".log")] == [
        "attempt-2.log",
        "attempt-8.log",
        "attempt-9.log",
        "attempt-10.log",
    ]


# --- secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("api_key='hunter22'", "api_key='***'"),
        ("'api_key': ['hunter22'], 'port': 1", "'api_key': ['***'], 'port': 1"),
        ('{\\"api_key\\": \\"hunter22\\"}', '{\\"api_key\\": \\"***\\"}'),
        ("password: two words", "password: *** words"),
        ("'password': 'two words, three', 'x'", "'password': '***', 'x'"),
        ("VLLM_API_KEY=hunter22 vllm serve", "VLLM_API_KEY=*** vllm serve"),
        ("serve --hf-token hunter22 --port 1", "serve --hf-token *** --port 1"),
        ('["--api-key", "hunter22", "--port"]', '["--api-key", "***", "--port"]'),
        ("--api-key=hunter22", "--api-key=***"),
        ("password=123456 and --api-key 1234", "password=*** and --api-key ***"),
        ("Authorization: hunter22 ***", "Authorization: *** ***"),
        ("Authorization: Basic aHVudGVyMjI=", "Authorization: Basic ***"),
        ("'authorization': 'Bearer hunter22x'", "'authorization': 'Bearer ***'"),
        ("https://me:hunter22@host/x", "https://me:***@host/x"),
        ("hf_abcdefghij1 and sk-abcdefghijk", "*** and ***"),
        ("X-Api-Key: 9f8e7d6c5b4a", "X-Api-Key: ***"),
        ("'x-api-key': '9f8e7d6c5b4a', 'x': 1", "'x-api-key': '***', 'x': 1"),
        ("AccountName=me;AccountKey=abcDEF0123456789+/abc==;End", "AccountName=me;AccountKey=***;End"),
        ("signing_key: 0123456789abcdef0123456789abcdef", "signing_key: ***"),
        ("key=01234567-89ab-cdef-0123-456789abcdef", "key=***"),
        ("X-Amz-Signature=0a1b2c3d4e5f60718293a4b5c6d7e8f9", "X-Amz-Signature=***"),
        ("https://h/x?a=1&X-Amz-Signature=short&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?sv=2024&sig=a%2Bb%3D", "https://h/x?sv=2024&sig=***"),
        ("sessionid=abc123, session_id: 'x y'", "sessionid=***, session_id: '***'"),
        ("Set-Cookie: a=b; Path=/; HttpOnly", "Set-Cookie: ***"),
        ("{'cookie': 'a=b; c=d', 'x': 1}", "{'cookie': '***', 'x': 1}"),
        ("curl -fsS -u admin:pw http://h/x", "curl -fsS -u admin:*** http://h/x"),
        ("curl --user 'admin:p w' x", "curl --user 'admin:***' x"),
        ("said eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "said ***"),
        ("api_key='***'", "api_key='***'"),
        ("api_key=None, max_tokens=8192, token: 1,024", "api_key=None, max_tokens=8192, token: 1,024"),
        ("tokenizer='org/m', tokenizer_mode=auto", "tokenizer='org/m', tokenizer_mode=auto"),
        ("--tokenizer org/m --max-num-batched-tokens 2048", "--tokenizer org/m --max-num-batched-tokens 2048"),
        ("GPU KV cache size: 105,376 tokens", "GPU KV cache size: 105,376 tokens"),
        ("Maximum concurrency for 8,192 tokens per request: 12.86x", None),
        ("To serve at least one request even a single token", None),
        ("key_value=12345678901234567890 num_kv_heads=8 num_key_value_heads=2", None),
        ("cache_key=f4a8be0123456789abcdef0123456789", None),
        ("KeyError: 'model.layers.0.self_attn.qkv_proj.weight'", None),
        ("unexpected key: model_layers_10_self_attn", None),
        ("public_key=0123456789abcdef0123456789abcdef", None),
        ("compile cache hash key: 9f86d081884c7d659a2feaa0c55ad015", None),
        ("curl -s http://h/x | sort -u a:b", None),
        ("signature: (self, x: int = 3) -> Tensor", None),
        ("hf_overrides={}, hf_config_path=None, hf_token=None, hf_transformers", None),
    ],
)
def test_what_stands_behind_a_secrets_name_is_hidden_whatever_it_is(text: str, shown: str | None) -> None:
    assert scrub(text, ()) == (text if shown is None else shown)


def test_what_real_engines_print_stays_readable() -> None:
    """A report that hides what it is made for is of no use."""
    for log in sorted((Path(__file__).parents[1] / "data" / "engine_logs").glob("*.log")):
        text = log.read_text(errors="replace")
        assert scrub(text, ()) == text, log.name


def test_the_secrets_of_this_environment_are_hidden_in_every_piece(run: Path) -> None:
    secret = "Correct-Horse-9-Battery"
    environment = {**EMPTY, "MY_API_KEY": secret, "VLLM_API_KEY": "EMPTY", "HF_ENDPOINT": f"https://u:{secret}@h/"}
    environment["AUTOLAUNCH_ENGINE"] = f"env HF_TOKEN=short {secret} --api-key abc"
    told(run, attempt(1), {"event": "failed", "n": 1, "failure": {"line": f"key {secret}"}})
    (run / "run.json").write_text(json.dumps({"model": f"/{secret}/m", "remembered_as": secret}))
    log_of(run, 1).write_text(f"said {secret}\n{secret}")
    pieces = gather(run.parents[1], run, environment)
    text = "".join(piece.name + piece.text + piece.what for piece in pieces)
    assert secret not in text
    assert "VLLM_API_KEY='***'" in text
    assert "HF_TOKEN=*** *** --api-key ***" in text
    assert "EMPTY" not in text


def test_the_users_own_folder_is_not_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    log_of(run, 1).write_text(
        "in /home/somebody/models and /home/somebodyelse\n"
        "HOME=/home/somebody, VLLM_HOME_X='/home/somebody' /home/somebody.\n"
        "/home/somebody-2 /home/somebody.old /home/somebody:/x\n"
        "/mnt/home/somebody/x\n"
    )
    assert gathered(run) == {
        "attempt-1.log": "in ~/models and /home/somebodyelse\n"
        "HOME=~, VLLM_HOME_X='~' ~.\n"
        "/home/somebody-2 /home/somebody.old ~:/x\n"
        "/mnt/home/somebody/x\n"
    }


def test_a_private_key_in_a_log_of_an_older_release_is_hidden(run: Path) -> None:
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\nAgEAAoIBAQC7+/a=\n"
    log_of(run, 1).write_text(f"a\n-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\nb\n")
    assert gathered(run) == {"attempt-1.log": "a\n-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nb\n"}


# --- the archive


def test_the_archive_holds_the_pieces_for_its_owner_only(tmp_path: Path) -> None:
    output = tmp_path / "r.tar.gz"
    pack((Piece("a.txt", "ä\n", ""), Piece("b.txt", "\udcff", "")), output, folder="report-1")
    with tarfile.open(output) as archive:
        held = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        texts = {name: file.read() for name, file in held.items() if file is not None}
    assert texts == {"report-1/a.txt": "ä\n".encode(), "report-1/b.txt": b"\\udcff"}
    assert output.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "r.tar.gz"
    output.write_text("mine")
    with pytest.raises(WishError, match="is there already"):
        pack((), output, folder="r")
    assert output.read_text() == "mine"


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "r.tar.gz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WishError, match="is there already"):
        pack((), tmp_path / "r.tar.gz", folder="r")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(WishError, match="No such file or directory"):
        pack((), tmp_path / "no" / "r.tar.gz", folder="r")


def test_a_report_of_the_largest_run_is_bounded(run: Path) -> None:
    for n in range(1, report.MOST_LOGS + 3):
        with log_of(run, n).open("wb") as log:
            log.write(b"line of a log that is long\n" * 400_000)
    (run / "record.jsonl").write_bytes(b'{"event": "x"}\n' * 1_000_000)
    size = sum(len(piece.text) for piece in gather(run.parents[1], run, EMPTY))
    assert size < report.MOST_LOGS * 2 * LOG_BYTES + (5 << 20)
