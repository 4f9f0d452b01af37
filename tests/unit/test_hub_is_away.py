"""A hub that does not answer is told from a name that is wrong: another start helps against the one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolaunch.advice import advice
from autolaunch.diagnosis import diagnose
from autolaunch.errors import ExitCode
from autolaunch.failure import Kind
from autolaunch.verdict import exit_code_of

LOGS = Path(__file__).resolve().parent.parent / "data" / "hub"
"""Whole outputs of vLLM 0.32.0 (transformers 5, huggingface_hub 1) asked for a model that is not here."""

POOL = "HTTPSConnectionPool(host='huggingface.co', port=443)"
AWAY = (
    "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cache.",
    "OSError: We couldn't connect to 'https://huggingface.co' to load this file, couldn't find it in the cached files",
    f'requests.exceptions.ConnectionError: (MaxRetryError("{POOL}: Max retries exceeded with url: /x/config.json',
    f'requests.exceptions.ReadTimeout: (ReadTimeoutError("{POOL}: Read timed out. (read timeout=10)',
    "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/x/resolve/a",
    "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://huggingface.co/api/models/x",
    "requests.exceptions.HTTPError: 504 Server Error: Gateway Time-out for url: https://hf-mirror.com/x/resolve/main/a",
    "httpx2.HTTPStatusError: Server error '503 Service Unavailable' for url 'http://mirror/x/resolve/main/config.json'",
    "requests.exceptions.ConnectTimeout: (host='www.modelscope.cn', port=443): Max retries exceeded with url: /api/v1",
)
WRONG = (
    "OSError: x/y is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
    "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/x/resolve/main/a",
    "requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: https://huggingface.co/x/resolve/main/a",
    "requests.exceptions.HTTPError: 404 Client Error: Not Found for url: https://huggingface.co/x/resolve/main/a",
    "OSError: You are trying to access a gated repo.",
    "FileNotFoundError: [Errno 2] No such file or directory: '/models/glm/config.json'",
    "OfflineModeIsEnabled: Cannot reach https://huggingface.co/x: offline mode is enabled.",
)


def judged(log: str) -> tuple[Kind, ExitCode, bool]:
    """Return a log's kind, the exit code that follows from it, and whether the advice is to come again later."""
    found = diagnose(log)
    later, name = ("another start may help" in advice(found)[0], "check the name" in advice(found)[0])
    assert later != name, "the advice says which of the two it is"
    return found.kind, exit_code_of(found, ()), later


@pytest.mark.parametrize("line", AWAY)
def test_a_hub_that_does_not_answer_is_nobodys_fault(line: str) -> None:
    """An outage once ended with 2, which systemd never starts again, where every document said 4."""
    assert judged(line) == (Kind.MODEL_NOT_FOUND, ExitCode.ENGINE_FAILED, True)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_name_a_missing_token_and_a_missing_file_are_the_users(line: str) -> None:
    assert judged(line) == (Kind.MODEL_NOT_FOUND, ExitCode.USAGE, False)


@pytest.mark.parametrize("name", ["name_not_resolved", "connection_refused", "http_429", "http_503"])
def test_the_engines_whole_output_is_judged_by_its_end_and_not_by_a_try(name: str) -> None:
    log = (LOGS / f"{name}.log").read_text(encoding="utf-8")
    assert judged(log) == (Kind.MODEL_NOT_FOUND, ExitCode.ENGINE_FAILED, True)
    assert "thrown while requesting" not in diagnose(log).line


def test_offline_mode_is_the_users_wish_and_no_outage() -> None:
    log = (LOGS / "offline_mode.log").read_text(encoding="utf-8")
    assert judged(log) == (Kind.MODEL_NOT_FOUND, ExitCode.USAGE, False)


@pytest.mark.parametrize("status", ["HTTP Error 503", "'[Errno -2] Name or service not known'"])
def test_a_try_that_the_next_made_good_is_not_the_cause_of_what_comes_later(status: str) -> None:
    tried = f"{status} thrown while requesting HEAD https://huggingface.co/x/resolve/main/config.json\n"
    died = "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] KeyError: 'layers.0'\n"
    assert diagnose(tried + "Retrying in 1s [Retry 1/5].\n" + died).kind is Kind.OTHER_CRASH
    assert diagnose(tried).kind is Kind.MODEL_NOT_FOUND
