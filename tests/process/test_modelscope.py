"""`--modelscope` reaches the engine: its variable, and the model's id there."""

from __future__ import annotations

import sys

import pytest

from tests.process.stage import Stage

pytestmark = pytest.mark.process

ENGINE = """#!/bin/sh
echo "VLLM_USE_MODELSCOPE=$VLLM_USE_MODELSCOPE" "$@" > "{seen}"
exit 1
"""


@pytest.mark.parametrize("by", ["option", "variable", ""])
def test_the_engine_takes_the_model_from_modelscope_where_that_is_asked_for(stage: Stage, by: str) -> None:
    seen, engine = stage.folder / "seen", stage.folder / "engine"
    engine.write_text(ENGINE.format(seen=seen))
    engine.chmod(0o755)
    stage.environment.pop("VLLM_USE_MODELSCOPE", None)
    stage.environment |= {"HF_HUB_OFFLINE": "1", **({"VLLM_USE_MODELSCOPE": "1"} if by == "variable" else {})}
    words = ["glm-4-9b-0414", "--engine", str(engine), "--engine-version", "0.32.0", "--max-attempts", "1"]
    words += ["--state-dir", str(stage.state), "--port", str(stage.port), *(["--modelscope"] if by == "option" else [])]
    ended = stage.end(stage.start([sys.executable, "-m", "autolaunch", *words, "--try-anyway"]))
    assert ended.code == 4, ended.err
    variable, *given = seen.read_text().split()
    if by:
        assert variable == "VLLM_USE_MODELSCOPE=True"
        assert given[:3] == ["--model", "ZhipuAI/GLM-4-9B-0414", "--served-model-name"]
        assert "on ModelScope glm-4-9b-0414 is ZhipuAI/GLM-4-9B-0414" in ended.err
    else:
        assert (variable, given[1]) == ("VLLM_USE_MODELSCOPE=", "zai-org/GLM-4-9B-0414")
