"""The chat template of GLM-4-9B: what the model is shown, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

jinja2 = pytest.importorskip("jinja2")
from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: E402 - only where Jinja is installed

ROOT = Path(__file__).parents[2]
FILE = ROOT / "autolaunch" / "engine_side" / "glm4_chat.jinja"
FACTS = ROOT.parent / "shared" / "catalog" / "README.md"

ORDINARY = (
    "[gMASK]<sop>{% for item in messages %}{% if item['content'] %}<|{{ item['role'] }}|>{{ item['metadata'] }}\n"
    "{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""What the model's own template writes where no message brings tools."""

PREAMBLE = (
    "<|system|>\n你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
HOW = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
WEATHER = {
    "name": "get_weather",
    "description": "Today's <weather> & 天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
USER = {"role": "user", "content": "北京天气？"}
ANSWER = {"role": "assistant", "content": "Sunny."}


def call(name: str, arguments: Any) -> dict[str, Any]:
    """Return a tool call as vLLM hands it to a template."""
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def render(messages: list[dict[str, Any]], template: str = "", **more: Any) -> str:
    """Render as transformers does: its sandbox, its options, its `tojson` and its `raise_exception`."""

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    def raise_exception(what: str) -> None:
        raise jinja2.TemplateError(what)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    text = template or FILE.read_text(encoding="utf-8")
    given = {"add_generation_prompt": True, "tools": None, **more}
    return str(environment.from_string(text).render(messages=messages, **given))


def test_a_chat_without_tools() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        USER,
        ANSWER,
        {"role": "user", "content": " And\n? "},
    ]
    assert render(messages) == (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\n北京天气？<|assistant|>\nSunny.<|user|>\n And\n? <|assistant|>"
    )


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "observation"]), "content": st.none() | st.text()},
        optional={"metadata": st.text(max_size=8)},
    ),
    max_size=5,
)


@given(MESSAGES, st.booleans())
def test_a_chat_without_tools_is_what_the_models_own_template_writes(
    messages: list[dict[str, Any]], tools: bool
) -> None:
    whole = [*messages, USER]
    assert render(whole, tools=[] if tools else None) == render(whole, ORDINARY)
    assert render(messages, add_generation_prompt=False) == render(messages, ORDINARY, add_generation_prompt=False)


def test_the_requests_tools_come_first_and_the_clients_system_message_stays() -> None:
    tools = [{"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "时间"}}]
    shown = json.dumps(WEATHER, ensure_ascii=False, indent=4)
    assert render([{"role": "system", "content": "Be brief."}, USER], tools=tools) == (
        f"[gMASK]<sop>{PREAMBLE}\n\n## get_weather\n\n{shown}{HOW}"
        f'\n\n## 时间\n\n{{\n    "name": "时间"\n}}{HOW}'
        "<|system|>\nBe brief.<|user|>\n北京天气？<|assistant|>"
    )


def test_what_vllm_adds_to_a_tool_and_nobody_said_is_not_shown() -> None:
    bare = {"type": "function", "function": {"name": "f"}}
    filled = {"type": "function", "function": {"name": "f", "description": None, "parameters": None, "strict": None}}
    assert render([USER], tools=[filled]) == render([USER], tools=[bare])


def test_calls_and_their_results_come_back_as_the_model_wrote_them() -> None:
    messages: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call("get_weather", {"city": "北京"}), call("now", {})]},
        {"role": "tool", "tool_call_id": "call_1", "content": "23 度"},
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
        ANSWER,
        USER,
    ]
    assert render(messages) == (
        '[gMASK]<sop><|user|>\n北京天气？<|assistant|>get_weather\n{"city": "北京"}<|assistant|>now\n{}'
        "<|observation|>\n23 度<|observation|>\n<|assistant|>\nSunny.<|user|>\n北京天气？<|assistant|>"
    )


def test_arguments_that_are_text_stay_as_the_client_wrote_them() -> None:
    asked = {"role": "assistant", "content": "Wait.", "tool_calls": [call("f", '{"a":1}')]}
    assert render([USER, asked, {"role": "tool", "content": "1"}]) == (
        '[gMASK]<sop><|user|>\n北京天气？<|assistant|>\nWait.<|assistant|>f\n{"a":1}<|observation|>\n1<|assistant|>'
    )


@pytest.mark.parametrize("messages", [[], [ANSWER], [USER, ANSWER]])
def test_nothing_to_answer_is_an_invalid_request(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(jinja2.TemplateError, match="Invalid request"):
        render(messages)


def test_an_answer_may_be_continued_where_the_client_asks_for_that() -> None:
    assert render([USER, ANSWER], add_generation_prompt=False).endswith("<|assistant|>\nSunny.")


def test_the_format_is_the_one_that_the_facts_about_the_original_say() -> None:
    if not FACTS.is_file():
        pytest.skip("the facts about GLM-4's own server are not beside this checkout")
    said = FACTS.read_text(encoding="utf-8").split("What the two own files must do")[1].split("2. Parser")[0]
    assert f"per tool `\\n\\n## {{name}}\\n\\n{{json indent 4}}\\n{HOW[1:]}`" in said
    assert "`<|assistant|>{name}\\n{arguments}`" in said
    assert "`tool` → `<|observation|>\\n{content}`; end with `<|assistant|>`" in said
