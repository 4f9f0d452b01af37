"""What clients of GLM-4's openai_api_server.py rely on, asked of a real vLLM by the real client and over raw HTTP.

The model is tiny-glm with GLM-4's own chat template in its folder, by which autolaunch knows it. Its weights are made
up, so that a structured output forces the text of each answer.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import autolaunch
from autolaunch.dialect import FOLDER

from .conftest import Launch, launching

TINY = Path(autolaunch.__file__).with_name("models") / "tiny-glm"
OWN_TEMPLATE = (
    "[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}{% endif %}{% if item['content'] %}"
    "<|{{ item['role'] }}|>{{ item['metadata'] }}\n{{ item['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""GLM-4's own as far as an ordinary chat goes."""

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 6}}, "required": ["city"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "description": "天气", "parameters": CITY}},
    {"type": "function", "function": {"name": "查询时间", "parameters": {"type": "object", "properties": {}}}},
]
USER: list[Any] = [{"role": "user", "content": "北京天气？"}]
CALL = '\nget_weather\n{"city": "北京"}'
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


def forced(text: str) -> Any:
    """Return what makes the model say a text and nothing else.

    As a grammar of xgrammar's, which the calls are held by too: 0.27 serves one backend for the life of an engine.
    """
    return {"structured_outputs": {"grammar": f"root ::= {json.dumps(text, ensure_ascii=False)}"}}


@dataclass(frozen=True)
class Server:
    """A served model: its folder, its launch, a real client of it."""

    folder: Path
    run: Launch
    client: Any

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and JSON of a raw request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.run.port, timeout=60)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, json.loads(answer.read())

    def chat(self, **asked: Any) -> Any:
        """Return a whole answer's choice."""
        return self.client.chat.completions.create(**{"model": "glm-4", "messages": USER, **asked}).choices[0]

    def stream(self, **asked: Any) -> list[Any]:
        """Return a streamed answer's choices."""
        chunks = self.client.chat.completions.create(**{"model": "glm-4", "messages": USER, "stream": True, **asked})
        return [chunk.choices[0] for chunk in chunks]

    def prompt(self, messages: list[Any], **more: Any) -> str:
        """Return what the model is shown."""
        _, _, found = self.post("/tokenize", {"model": "glm-4", "messages": messages, **more})
        return str(self.post("/detokenize", {"model": "glm-4", "tokens": found["tokens"]})[2]["prompt"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A folder with GLM-4's template, served as autolaunch finds right; it is gone when the module is done."""
    from openai import OpenAI

    place = tmp_path_factory.mktemp("glm4")
    folder = place / "glm-4-9b-chat"
    shutil.copytree(TINY, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": OWN_TEMPLATE}))
    with launching(place, str(folder)) as start:
        run = start("--load-format", "dummy", "--max-model-len", "4096", "--kv-cache-memory-bytes", "512M")
        url = run.wait_ready()["url"]
        yield Server(folder, run, OpenAI(base_url=f"{url}/v1", api_key="EMPTY", timeout=60))


def joined(choices: list[Any]) -> tuple[str, list[tuple[str, str, str]], str]:
    """Return what a client puts together of a stream: the text, each call's id, name and arguments, how it ended."""
    text = ""
    calls: list[list[str]] = []
    for choice in choices:
        text += choice.delta.content or ""
        for call in choice.delta.tool_calls or []:
            if call.id:
                assert call.index == len(calls)
                calls.append([call.id, call.function.name, ""])
            calls[call.index][2] += call.function.arguments or ""
    return text, [(one, two, three) for one, two, three in calls], str(choices[-1].finish_reason)


def test_vllms_registry_loads_the_plugin_by_its_path() -> None:
    script = """
import importlib, sys
try: base = importlib.import_module("vllm.tool_parsers.abstract_tool_parser")
except ModuleNotFoundError: base = importlib.import_module("vllm.entrypoints.openai.tool_parsers.abstract_tool_parser")
base.ToolParserManager.import_tool_parser(sys.argv[1])
parser = base.ToolParserManager.get_tool_parser("glm4_9b")
print("loaded", parser.__name__, issubclass(parser, base.ToolParser))
"""
    command = [sys.executable, "-c", script, str(FOLDER / "glm4_tool_parser.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1:] == ["loaded Glm4ToolParser True"], done.stderr[-2000:]


def test_a_chat(server: Server) -> None:
    choice = server.chat(extra_body=forced("\nHello you\n"))
    assert (choice.message.content, choice.finish_reason) == ("Hello you", "stop")
    assert not choice.message.tool_calls


def test_a_streamed_chat(server: Server) -> None:
    choices = server.stream(extra_body=forced("\nHello you\n"))
    assert joined(choices) == ("Hello you", [], "stop")
    assert len(choices) > 3, "it came in pieces"
    assert choices[0].delta.role == "assistant"


def test_a_call(server: Server) -> None:
    choice = server.chat(tools=TOOLS, extra_body=forced(CALL))
    (call,) = choice.message.tool_calls
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert (call.type, call.function.name, call.function.arguments) == ("function", "get_weather", '{"city": "北京"}')
    assert call.id.startswith("call_")
    assert len(call.id) == 29


def test_a_streamed_call(server: Server) -> None:
    choices = server.stream(tools=TOOLS, extra_body=forced(CALL))
    text, ((one, name, arguments),), ended = joined(choices)
    assert (text, name, arguments, ended) == ("", "get_weather", '{"city": "北京"}', "tool_calls")
    assert one.startswith("call_")
    assert sum(bool(choice.delta.tool_calls) for choice in choices) > 3, "the arguments came in pieces"


def test_two_calls_and_text_before_them(server: Server) -> None:
    said = f"I look.{CALL}\n查询时间\n{{}}"
    expected = [("get_weather", '{"city": "北京"}'), ("查询时间", "{}")]
    choice = server.chat(tools=TOOLS, extra_body=forced(said))
    assert choice.message.content == "I look."
    assert [(call.function.name, call.function.arguments) for call in choice.message.tool_calls] == expected
    text, calls, ended = joined(server.stream(tools=TOOLS, extra_body=forced(said)))
    assert (text, [call[1:] for call in calls], ended) == ("I look.", expected, "tool_calls")


@pytest.mark.parametrize(
    "said",
    ["Sunny.", 'other_tool\n{"city": "x"}', "get_weather\n{oops", "get_w"],
    ids=["text", "a name that is no tool", "broken JSON", "the beginning of a name"],
)
def test_what_is_no_call_is_text_although_tools_are_offered(server: Server, said: str) -> None:
    choice = server.chat(tools=TOOLS, extra_body=forced(said))
    assert (choice.message.content, choice.finish_reason) == (said, "stop")
    assert not choice.message.tool_calls
    if "oops" not in said:  # a stream has told the name before the arguments break
        assert joined(server.stream(tools=TOOLS, extra_body=forced(said))) == (said, [], "stop")


def test_an_answer_that_is_cut_off_within_a_name_is_told_whole(server: Server) -> None:
    text, calls, ended = joined(server.stream(tools=TOOLS, max_tokens=3, extra_body=forced("get_weather")))
    assert text
    assert "get_weather".startswith(text)
    assert (calls, ended) == ([], "length")


def test_with_tool_choice_none_nothing_is_called_and_no_tool_is_shown(server: Server) -> None:
    choice = server.chat(tools=TOOLS, tool_choice="none", extra_body=forced(CALL))
    assert (choice.message.content, choice.finish_reason) == (CALL.strip(), "stop")
    assert not choice.message.tool_calls
    usage = [
        server.client.chat.completions.create(model="glm-4", messages=USER, max_tokens=1, **more).usage.prompt_tokens
        for more in ({}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": TOOLS})
    ]
    assert usage[0] == usage[1] < usage[2]


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["a named function", "required"])
def test_a_demanded_call_is_made_in_the_models_own_format(server: Server, choice: Any) -> None:
    tools = TOOLS[:1]
    ended = "stop" if choice is NAMED else "tool_calls"  # vLLM follows OpenAI's own API here
    answer = server.chat(tools=tools, tool_choice=choice, max_tokens=200)
    (call,) = answer.message.tool_calls
    assert (call.function.name, answer.finish_reason) == ("get_weather", ended)
    assert set(json.loads(call.function.arguments)) == {"city"}
    text, ((_, name, arguments),), end = joined(server.stream(tools=tools, tool_choice=choice, max_tokens=200))
    assert (text, name, end) == ("", "get_weather", ended)
    assert set(json.loads(arguments)) == {"city"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "nonsense"}, 'Unsupported type "nonsense"'),
        ({"type": "object", "properties": 5}, "properties must be an object"),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(["}}}, "Unclosed '['"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, "Cannot find field $defs in #/$defs/none"),
    ],
)
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_demanded_tool_with_a_bad_schema_is_refused_with_its_name(
    server: Server, schema: Any, why: str, choice: Any
) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    body = {"model": "glm-4", "messages": USER, "tools": tools, "tool_choice": choice}
    status, _, told = server.post("/v1/chat/completions", body)
    assert status == 400
    assert "the parameters of the tool get_weather cannot be held to: " in told["error"]["message"]
    assert why in told["error"]["message"]


def test_several_turns_with_a_tools_result(server: Server) -> None:
    first = server.chat(tools=TOOLS, extra_body=forced(CALL)).message
    turns = [*USER, first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "23 度"}]
    second = server.chat(messages=turns, tools=TOOLS, extra_body=forced("\n23 degrees"))
    assert (second.message.content.lstrip("\n"), second.finish_reason) == ("23 degrees", "stop")  # 0.27 keeps it
    plain = [{"role": "assistant", "tool_calls": [one.model_dump() for one in first.tool_calls]}]
    shown = server.prompt([*USER, *plain, turns[-1]], tools=TOOLS)
    assert shown.startswith("[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。")
    assert '\n\n## get_weather\n\n{\n    "name": "get_weather",\n    "description": "天气",' in shown
    assert shown.endswith(
        '调用的参数。<|user|>\n北京天气？<|assistant|>get_weather\n{"city": "北京"}<|observation|>\n23 度<|assistant|>'
    )


def test_an_ordinary_chat_is_shown_as_the_models_own_template_shows_it(server: Server) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi\n"}]},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "?"},
    ]
    assert server.prompt(turns) == (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi\n<|assistant|>\nYes?<|user|>\n?<|assistant|>"
    )


@pytest.mark.parametrize(
    "messages", [[], [*USER, {"role": "assistant", "content": "Sunny."}]], ids=["none", "the assistant's last"]
)
def test_nothing_to_answer_is_refused(server: Server, messages: list[Any]) -> None:
    status, _, told = server.post("/v1/chat/completions", {"model": "glm-4", "messages": messages})
    assert status == 400, told
    assert told["error"]["message"]


@pytest.mark.parametrize("tools", ["no list", [{"type": "function"}], [{"type": "cogview"}]])
def test_tools_that_are_none_are_refused(server: Server, tools: Any) -> None:
    status, _, told = server.post("/v1/chat/completions", {"model": "glm-4", "messages": USER, "tools": tools})
    assert status == 400, told


def test_every_name_that_clients_send_is_served(server: Server) -> None:
    names = [str(server.folder), "glm-4", "glm-4-9b", "glm-4-9b-chat"]
    assert [model.id for model in server.client.models.list().data] == names
    for name in names:
        assert server.chat(model=name, max_tokens=1).finish_reason == "length"
    status, _, _ = server.post("/v1/chat/completions", {"model": "gpt-4", "messages": USER})
    assert status == 404


def test_cors_is_open(server: Server) -> None:
    asked = {"model": "glm-4", "messages": USER, "max_tokens": 1}
    status, headers, _ = server.post("/v1/chat/completions", asked, Origin="http://page.example", Cookie="a=b")
    assert status == 200
    assert headers["access-control-allow-origin"] in ("*", "http://page.example")
    assert headers["access-control-allow-credentials"] == "true"


def test_the_engine_was_given_the_defaults_and_says_so(server: Server) -> None:
    (log,) = (server.run.folder / "state").rglob("attempt-1.log*")
    told = log.read_text(encoding="utf-8", errors="replace")
    (line,) = [line for line in told.splitlines() if "Default vLLM sampling parameters have been overridden" in line][
        :1
    ]
    for said in ("'temperature': 0.8", "'top_p': 0.8", "'repetition_penalty': 1.1"):
        assert said in line
    vllm = find_spec("vllm")
    assert vllm is not None
    assert vllm.origin is not None
    takes = '"presence_penalty"' in (Path(vllm.origin).parent / "config" / "model.py").read_text(encoding="utf-8")
    assert ("'presence_penalty': 1.0" in line) is takes, "0.27 reads no such default"
