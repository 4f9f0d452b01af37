"""`autolaunch.launch` on a real vLLM, with the arguments that everybody copied, answered by the real client."""

from __future__ import annotations

from pathlib import Path

import psutil

import autolaunch
from tests.ports import free_port

from .conftest import quiet_environment, wait_for


def test_old_engine_args_serve_a_real_client_and_nothing_is_left(tmp_path: Path) -> None:
    from openai import OpenAI

    port = free_port()
    engine_args = {
        "model": "tiny-glm",
        "tensor_parallel_size": 1,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "worker_use_ray": False,
        "engine_use_ray": False,
        "disable_log_requests": True,
        "max_model_len": 4096,
        "enable_chunked_prefill": True,
        "swap_space": 4,
    }
    lines: list[str] = []
    environment = quiet_environment(tmp_path)
    with autolaunch.launch(
        **engine_args, port=port, state_dir=tmp_path, memory="3GiB", environment=environment, progress=lines.append
    ) as server:
        family = psutil.Process(server.pid).children(recursive=True)
        client = OpenAI(base_url=server.base_url, api_key="EMPTY", timeout=60)
        answer = client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
        assert server.effective["max_model_len"] == 4096
        assert [attempt.came_up for attempt in server.attempts] == [True]
    assert server.exit_code == 0
    assert len(family) >= 2, "API server and engine core at least"
    wait_for("the engine's processes are gone", lambda: not any(one.is_running() for one in family), within_s=10)
    assert sum("is left out" in line for line in lines) == 2, lines
