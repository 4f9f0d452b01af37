"""A real vLLM that came up: it answers a real client, and it leaves nothing behind however it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable

from .conftest import Launch, wait_for


def test_a_real_client_is_answered_and_sigterm_ends_it_in_order(launch: Callable[..., Launch]) -> None:
    from openai import OpenAI

    run = launch("--memory", "3GiB", "--api-key", "sk-of-the-test-0123456789")
    ready = run.wait_ready()
    assert ready["n"] == 1
    client = OpenAI(base_url=f"{ready['url']}/v1", api_key="sk-of-the-test-0123456789", timeout=60)
    assert [model.id for model in client.models.list().data] == ["tiny-glm"]
    answer = client.chat.completions.create(
        model="tiny-glm", messages=[{"role": "user", "content": "Hello"}], max_tokens=8
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= 1
    run.process.send_signal(signal.SIGTERM)
    assert run.wait_exit(within_s=30) == 0, run.talk()
    run.assert_nothing_left()
    assert run.events()[-1]["reason"] == "SIGTERM"
    for file in run.folder.rglob("*"):
        assert file.is_dir() or b"sk-of-the-test-0123456789" not in file.read_bytes(), file


def test_sigkill_of_the_supervisor_in_service_leaves_nothing(launch: Callable[..., Launch]) -> None:
    run = launch("--memory", "3GiB")
    run.wait_ready()
    assert len(run.engine_processes()) >= 3, "API server, engine core and warden at least"
    run.process.send_signal(signal.SIGKILL)
    run.assert_nothing_left(within_s=10)


def test_sigkill_of_the_supervisor_while_the_engine_starts_leaves_nothing(launch: Callable[..., Launch]) -> None:
    run = launch("--memory", "3GiB")
    wait_for("an engine core", lambda: any("VLLM" in name for name in run.engine_processes()), within_s=120)
    run.process.send_signal(signal.SIGKILL)
    run.assert_nothing_left(within_s=10)


def test_sigint_while_the_engine_starts_ends_with_0_and_leaves_nothing(launch: Callable[..., Launch]) -> None:
    run = launch("--memory", "3GiB")
    wait_for("an engine core", lambda: any("VLLM" in name for name in run.engine_processes()), within_s=120)
    run.process.send_signal(signal.SIGINT)
    assert run.wait_exit(within_s=30) == 0, run.talk()
    run.assert_nothing_left()
