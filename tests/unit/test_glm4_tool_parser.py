"""The tool parser plugin, between stand-ins for vLLM's classes of old and of new releases."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from autolaunch import engine_side

FILE = Path(engine_side.__file__).with_name("glm4_tool_parser.py")
WEATHER = SimpleNamespace(function=SimpleNamespace(name="get_weather", parameters={"type": "object"}))
TIME = SimpleNamespace(function=SimpleNamespace(name="get_time", parameters=None))
CALL = 'get_weather\n{"city": "北京"}'
USER_TOKEN = 6


class Sent(dict[str, Any]):
    """One of vLLM's messages: what was set in it, and nothing else, goes over the wire."""

    def __init__(self, **given: Any) -> None:
        super().__init__(given)
        self.__dict__ = self


@dataclass
class Tokenizer:
    """Enough of a tokenizer."""

    eos_token_id: int = 0

    def get_vocab(self) -> dict[str, int]:
        """Return two of GLM-4's tokens."""
        return {"<|endoftext|>": 0, "<|user|>": USER_TOKEN}


@dataclass
class Request:
    """Enough of a chat request."""

    tools: list[Any] | None = field(default_factory=lambda: [WEATHER, TIME])
    tool_choice: Any = "auto"
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = None
    response_format: Any = None
    structured_outputs: Any = None


def vllm_module(name: str) -> ModuleType:
    """Return an empty module, registered under its name."""
    module = ModuleType(name)
    sys.modules[name] = module
    return module


def make_vllm(package: str, *, engine_based: bool) -> ModuleType:
    """Put stand-ins where vLLM has its tool parsers; return the module of the abstract one."""
    parts = package.split(".")
    for end in range(1, len(parts) + 1):
        vllm_module(".".join(parts[:end]))
    protocol = vllm_module("vllm.protocol")
    names = ("DeltaMessage", "DeltaToolCall", "DeltaFunctionCall", "ToolCall", "FunctionCall")
    for name in names:
        setattr(protocol, name, type(name, (Sent,), {"__module__": "vllm.protocol"}))
    base = vllm_module(f"{package}.abstract_tool_parser")

    class ToolParser:
        """What both interfaces have."""

        def __init__(self, tokenizer: Any, tools: Any = None) -> None:
            self.prev_tool_call_arr: list[dict[str, Any]] = []
            self.current_tool_id = -1
            self.streamed_args_for_tool: list[str] = []
            self.model_tokenizer = tokenizer
            self.vocab = tokenizer.get_vocab()

        def adjust_request(self, request: Any) -> Any:
            """Leave a request as it is."""
            return request

    class ToolParserManager:
        """The registry."""

        parsers: dict[str, Any] = {}  # noqa: RUF012 - as vLLM has it

        @classmethod
        def register_module(cls, name: str, force: bool, module: Any) -> None:
            """Take a parser in."""
            assert force
            assert issubclass(module, ToolParser)
            cls.parsers[name] = module

    if engine_based:
        ToolParser.engine_based_streaming = False  # type: ignore[attr-defined] # newer releases have it
    base.__dict__.update(
        ToolParser=ToolParser,
        ToolParserManager=ToolParserManager,
        DeltaMessage=protocol.__dict__["DeltaMessage"],
        ExtractedToolCallInformation=Sent,
        StructuredOutputsParams=Sent,
    )
    return base


@pytest.fixture
def modules() -> Iterator[None]:
    """Give the modules back that a test replaces; a real xgrammar, and numpy with it, must not be loaded twice."""
    before = dict(sys.modules)
    sys.modules["xgrammar"] = None  # type: ignore[assignment]  # as where it is not installed
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        del sys.modules[name]
    yield
    sys.modules.clear()
    sys.modules.update(before)


def load(package: str, *, engine_based: bool) -> Any:
    """Load the plugin as vLLM does, by its path, and return the parser that it registered."""
    base = make_vllm(package, engine_based=engine_based)
    spec = util.spec_from_file_location("glm4_tool_parser", FILE)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(util.module_from_spec(spec))
    return base.ToolParserManager.parsers["glm4_9b"]


@pytest.fixture
def old(modules: None) -> Any:
    """The parser for releases before 0.24."""
    return load("vllm.entrypoints.openai.tool_parsers", engine_based=False)


@pytest.fixture
def new(modules: None) -> Any:
    """The parser for releases since 0.24."""
    return load("vllm.tool_parsers", engine_based=True)


def legacy(parser: Any, pieces: list[str], request: Request, *, end: int = USER_TOKEN) -> list[Any]:
    """Stream as releases before 0.24 do, a token a piece: all text so far with each; the last token ends it."""
    sent, before = [], ""
    tokens: list[int] = []
    for number, piece in enumerate(pieces):
        tokens = [*tokens, end if number == len(pieces) - 1 else 1]
        sent.append(
            parser.extract_tool_calls_streaming(
                previous_text=before, current_text=before + piece, delta_text=piece, previous_token_ids=[],
                current_token_ids=tokens, delta_token_ids=tokens[-1:], request=request,
            )
        )  # fmt: skip
        before += piece
    assert None not in sent, "0.8.5 ends no stream whose last piece is None"
    return [one for one in sent if one]


def engine_based(parser: Any, pieces: list[str], request: Request) -> list[Any]:
    """Stream as releases since 0.24 do: each piece alone, and the end is told."""
    sent = [parser.extract_tool_calls_streaming("", piece, piece, [], [1], [1], request) for piece in pieces]
    return [one for one in [*sent, parser.finish_streaming()] if one is not None]


def without_ids(sent: list[Any]) -> list[Any]:
    """Return messages as JSON has them, the calls' ids checked and left out."""
    plain = json.loads(json.dumps(sent))
    for message in plain:
        for call in message.get("tool_calls", []):
            assert ("id" in call) == ("name" in call["function"])
            if "id" in call:
                assert call.pop("id").startswith("call_")
                assert call.pop("type") == "function"
    return list(plain)


def test_a_whole_answer_becomes_a_call(old: Any) -> None:
    found = old(Tokenizer()).extract_tool_calls(f"\n{CALL}", Request())
    assert found.tools_called
    assert found.content is None
    (call,) = found.tool_calls
    assert call.id.startswith("call_")
    assert len(call.id) == 29
    assert (call.type, call.function) == ("function", {"name": "get_weather", "arguments": '{"city": "北京"}'})


@pytest.mark.parametrize(
    "request_",
    [Request(tools=None), Request(tool_choice="none"), Request(tool_choice=TIME), Request(tools=[TIME])],
    ids=["no tools", "none may be called", "another is demanded", "another is offered"],
)
def test_an_answer_is_content_where_it_may_not_be_a_call(old: Any, request_: Request) -> None:
    assert old(Tokenizer()).extract_tool_calls(CALL, request_) == {
        "tools_called": False,
        "tool_calls": [],
        "content": CALL,
    }


def test_the_tools_of_the_responses_api_are_known_by_their_own_names(new: Any) -> None:
    request = Request(tools=[SimpleNamespace(name="get_weather", parameters={})])
    assert new(Tokenizer(), []).extract_tool_calls(CALL, request).tools_called


PIECES = ["\nget", "_weather", "\n", '{"city', '": "北京"', "}", ""]
STREAMED = [
    {"tool_calls": [{"index": 0, "function": {"name": "get_weather", "arguments": '{"city'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '": "北京"'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
]


def test_a_call_streams(new: Any) -> None:
    parser = new(Tokenizer(), [])
    assert without_ids(engine_based(parser, PIECES, Request())) == STREAMED
    assert parser.get_remaining_unstreamed_args() == ""


def test_a_call_streams_on_old_releases_with_the_books_that_they_keep(old: Any) -> None:
    parser = old(Tokenizer())
    assert without_ids(legacy(parser, PIECES, Request())) == STREAMED
    assert parser.prev_tool_call_arr == [{"name": "get_weather", "arguments": {"city": "北京"}}]
    assert parser.streamed_args_for_tool == ['{"city": "北京"}']
    assert json.dumps(parser.prev_tool_call_arr[0]["arguments"], ensure_ascii=False) == parser.streamed_args_for_tool[0]


def test_a_name_in_the_last_piece_of_all_has_an_entry_of_its_own_on_old_releases(old: Any) -> None:
    assert without_ids(legacy(old(Tokenizer()), ["get_time\n{}"], Request())) == [
        {"tool_calls": [{"index": 0, "function": {"name": "get_time"}}, {"index": 0, "function": {"arguments": "{}"}}]}
    ]


def test_a_call_that_is_cut_off_is_in_the_books_without_arguments(old: Any) -> None:
    parser = old(Tokenizer())
    legacy(parser, ['get_weather\n{"city', ""], Request(), end=9)
    assert parser.prev_tool_call_arr == [{"name": "get_weather", "arguments": {}}]


def test_arguments_that_the_limit_cuts_off_are_not_closed_by_old_releases(old: Any) -> None:
    """Their first entry has none: vLLM would send `{}` in the place of what it takes for the rest."""
    pieces = ['get_weather\n{"city', '": "Par']
    assert without_ids(legacy(old(Tokenizer()), pieces, Request(max_tokens=2), end=9)) == [
        {"tool_calls": [{"index": 0, "function": {"name": "get_weather", "arguments": '{"city'}}]},
        {"tool_calls": [{"index": 0, "function": {}}, {"index": 0, "function": {"arguments": '": "Par'}}]},
    ]


def test_a_whole_call_in_one_piece_is_one_entry_on_new_releases(new: Any) -> None:
    sent = without_ids(engine_based(new(Tokenizer(), []), [f"Look.\n{CALL}\nget_time\n{{}}"], Request()))
    assert sent == [
        {
            "content": "Look.",
            "tool_calls": [
                {"index": 0, "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}},
                {"index": 1, "function": {"name": "get_time", "arguments": "{}"}},
            ],
        }
    ]


def test_what_was_held_back_comes_at_the_end(old: Any, new: Any) -> None:
    assert engine_based(new(Tokenizer(), []), ["get", "_wea"], Request()) == [{"content": "get_wea"}]


def test_what_was_held_back_comes_with_the_token_that_ends_an_answer_on_old_releases(old: Any) -> None:
    assert legacy(old(Tokenizer()), ["get", "_wea", ""], Request()) == [{"content": "get_wea"}]
    assert legacy(old(Tokenizer()), ["get", "_wea"], Request()) == [{"content": "get_wea"}]
    assert legacy(old(Tokenizer()), ["get"], Request(stop_token_ids=[9]), end=9) == [{"content": "get"}]
    assert legacy(old(Tokenizer()), ["get", "_w"], Request(max_tokens=2), end=9) == [{"content": "get_w"}]
    assert legacy(old(Tokenizer()), ["get", "_w"], Request(max_tokens=3), end=9) == []


def test_one_parser_serves_two_choices_in_turn_on_old_releases(old: Any) -> None:
    parser, request = old(Tokenizer()), Request()
    texts = ["", ""]
    sent: list[list[Any]] = [[], []]
    for piece, other in zip(PIECES, ["Hel", "lo", " you", ".", "", "", ""], strict=True):
        for choice, part in enumerate((piece, other)):
            before, texts[choice] = texts[choice], texts[choice] + part
            sent[choice].append(parser.extract_tool_calls_streaming(before, texts[choice], part, [], [1], [1], request))
    calls = [call for message in sent[0] if message for call in message.tool_calls]
    assert "".join(call["function"].get("arguments", "") for call in calls) == '{"city": "北京"}'
    assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["get_weather"]
    assert "".join(message.content for message in sent[1] if message) == "Hello you."


def test_a_demanded_call_is_held_to_the_models_own_format(new: Any) -> None:
    request = Request(tool_choice=SimpleNamespace(function=SimpleNamespace(name="get_weather")), response_format="json")
    assert new.supports_required_and_named is False
    assert new(Tokenizer(), []).adjust_request(request) is request
    assert request.response_format is None
    assert json.loads(request.structured_outputs.structural_tag) == {
        "type": "structural_tag",
        "format": {
            "type": "sequence",
            "elements": [
                {"type": "const_string", "value": "get_weather\n"},
                {"type": "json_schema", "json_schema": {"type": "object"}},
            ],
        },
    }


def test_any_tool_may_be_called_where_one_is_required(new: Any) -> None:
    request = Request(tool_choice="required")
    new(Tokenizer(), []).adjust_request(request)
    form = json.loads(request.structured_outputs.structural_tag)["format"]
    assert form["type"] == "or"
    assert [one["elements"][0]["value"] for one in form["elements"]] == ["get_weather\n", "get_time\n"]


def xgrammar(error: Exception | None) -> list[Any]:
    """Put a stand-in where xgrammar would be; return the forms that it is asked about."""
    asked: list[Any] = []

    def from_structural_tag(tag: str) -> None:
        asked.append(json.loads(tag)["format"])
        if error is not None:
            raise error

    vllm_module("xgrammar").__dict__["Grammar"] = SimpleNamespace(from_structural_tag=from_structural_tag)
    return asked


def tool(parameters: Any, name: str = "get_weather") -> Any:
    return SimpleNamespace(function=SimpleNamespace(name=name, parameters=parameters))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('[19:19:59] /project/cpp/json_schema_converter.cc:4944: Unsupported type "nonsense"\n',
         'Unsupported type "nonsense"'),
        ("Invalid structural tag error: no", "Invalid structural tag error: no"),
    ],
)  # fmt: skip
def test_a_schema_that_is_none_is_refused_with_its_tools_name(new: Any, said: str, why: str) -> None:
    asked = xgrammar(RuntimeError(said))
    request = Request(tools=[tool({"type": "nonsense"}), TIME], tool_choice="required")
    with pytest.raises(ValueError, match=f"^the parameters of the tool get_weather cannot be held to: {why}$"):
        new(Tokenizer(), []).adjust_request(request)
    assert [form["elements"][1]["json_schema"] for form in asked] == [{"type": "nonsense"}]
    assert request.structured_outputs is None


def test_a_schema_that_can_be_held_to_is_asked_about_for_every_tool(new: Any) -> None:
    asked = xgrammar(None)
    request = Request(tool_choice="required")
    new(Tokenizer(), []).adjust_request(request)
    assert [form["elements"][0]["value"] for form in asked] == ["get_weather\n", "get_time\n"]
    assert request.structured_outputs is not None


@pytest.mark.parametrize("error", [AttributeError("from_structural_tag"), TypeError("2 arguments")])
def test_another_xgrammar_is_no_reason_to_refuse(new: Any, error: Exception) -> None:
    xgrammar(error)
    request = Request(tool_choice="required")
    assert new(Tokenizer(), []).adjust_request(request).structured_outputs is not None


@pytest.mark.parametrize(("levels", "said"), [(64, ""), (65, "nested more than 64 deep"), (10_000, "nested more")])
def test_a_schema_as_deep_as_a_well_is_refused(new: Any, levels: int, said: str) -> None:
    """xgrammar recurses, and would take the server down with it."""
    schema: Any = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    asked = xgrammar(None)
    request = Request(tools=[tool(schema)], tool_choice="required")
    if said:
        with pytest.raises(ValueError, match=said):
            new(Tokenizer(), []).adjust_request(request)
    else:
        new(Tokenizer(), []).adjust_request(request)
    assert len(asked) == (0 if said else 1)


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_a_request_that_demands_nothing_stays_as_it_is(new: Any, choice: str | None) -> None:
    request = Request(tool_choice=choice)
    assert new(Tokenizer(), []).adjust_request(request) == Request(tool_choice=choice)


def test_old_releases_hold_a_demanded_call_in_their_own_way(old: Any) -> None:
    request = Request(tool_choice="required")
    assert old.supports_required_and_named is True
    assert old(Tokenizer()).adjust_request(request) == Request(tool_choice="required")


def test_a_release_without_tool_parsers_is_told_so(modules: None) -> None:
    vllm_module("vllm").__path__ = []  # a package, and an empty one
    spec = util.spec_from_file_location("glm4_tool_parser", FILE)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="no tool parsers where"):
        spec.loader.exec_module(util.module_from_spec(spec))
