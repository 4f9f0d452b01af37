"""What must never be shown, and what must not turn a log into stars."""

from __future__ import annotations

import pytest

from autolaunch.arguments import given
from autolaunch.redaction import Secrets, behind_its_name, is_secret_option, redact, redact_argv, secrets_in


@pytest.mark.parametrize(
    ("line", "environment", "found"),
    [
        ("--api-key sk-0123456789", {}, {"sk-0123456789"}),
        ("--api-key one-long-key1 another-key-2", {}, {"one-long-key1", "another-key-2"}),
        ("--hf-token hf_abcdefgh1", {}, {"hf_abcdefgh1"}),
        ("--chat-template hf_abcdefgh1", {}, {"hf_abcdefgh1"}),
        ("", {"HF_TOKEN": "hf_abcdefgh1"}, {"hf_abcdefgh1"}),
        ("", {"VLLM_API_KEY": "c0rrect-horse"}, {"c0rrect-horse"}),
        ("", {"AUTOLAUNCH_API_KEY": "c0rrect-horse"}, {"c0rrect-horse"}),
        ("", {"AUTOLAUNCH_ENGINE": "env HF_TOKEN=secret-99 vllm serve"}, {"secret-99"}),
        ("", {"AWS_SECRET_ACCESS_KEY": "/ab+0123456789"}, {"/ab+0123456789"}),
        ("", {"AWS_ACCESS_KEY_ID": "AKIA0123456789AB"}, {"AKIA0123456789AB"}),
        ("", {"HTTPS_PROXY": "http://me:pa55w0rd!@proxy:3128"}, {"pa55w0rd!"}),
        ("--otlp-traces-endpoint http://me:pa55w0rd!@host", {}, {"pa55w0rd!"}),
        ('--kv-transfer-config {"auth_token":"abc-123-xyz"}', {}, {"abc-123-xyz"}),
        ("--github-token foosecret1234", {}, {"foosecret1234"}),
        ("--kv-transfer-config.kv_connector_extra_config.api_key s3cr3tvalue99", {}, {"s3cr3tvalue99"}),
        ("--kv-transfer-config.api_key=s3cr3tvalue99", {}, {"s3cr3tvalue99"}),
        ("--image-token-id 123456789-a", {}, set()),
        ("--max-prompt-adapter-token 123456789-a", {}, set()),
        ("--return-tokens-as-token-ids --seed 1", {}, set()),
        ("--api-key EMPTY", {}, set()),
        ("--api-key token", {}, set()),
        ("--api-key 1234", {}, set()),
        ("--api-key lm-studio", {}, set()),
        ("--max-num-batched-tokens 8192", {}, set()),
        ("--tokenizer org/name-of-it", {}, set()),
        ("", {"TOKENIZERS_PARALLELISM": "false"}, set()),
        ("", {"MAX_TOKENS": "81920000"}, set()),
        ("", {"HF_TOKEN_PATH": "/home/user/.cache/token"}, set()),
        ("", {"API_KEY_FILE": "/run/secrets/key"}, set()),
        ("", {"HF_TOKEN": ""}, set()),
        ("", {"PATH": "/usr/bin:/usr/local/bin", "KEYBOARD": "qwertz-layout-1"}, set()),
    ],
)
def test_only_what_nobody_would_guess_is_hidden_everywhere(
    line: str, environment: dict[str, str], found: set[str]
) -> None:
    assert set(secrets_in(given(line.split()), environment).anywhere) == found


def test_the_longest_secret_is_hidden_first_so_that_no_tail_is_left() -> None:
    hidden = secrets_in((), {"A_TOKEN": "abcdef-12", "B_TOKEN": "abcdef-123456"}).anywhere
    assert hidden == ("abcdef-123456", "abcdef-12")
    assert redact("x abcdef-123456 y abcdef-12 z", hidden) == "x *** y *** z"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("even a single token", "even a single token"),
        ("loading with hf_abcdefgh123", "loading with ***"),
        ("http://me:secret@host/x", "http://me:***@host/x"),
        ("key sk-proj-abcdefgh", "key ***"),
        ("task-oriented risk-averse", "task-oriented risk-averse"),
        ("ghp_0123456789abcdef0", "***"),
        ("Authorization: Bearer abcdefghijkl123", "Authorization: Bearer ***"),
        ("Bearer authentication failed", "Bearer authentication failed"),
    ],
)
def test_known_shapes_are_hidden_without_being_told(text: str, shown: str) -> None:
    assert redact(text, ()) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("vllm serve m --api-key EMPTY", "vllm serve m --api-key ***"),
        ("vllm serve m --api_key a b --port 1", "vllm serve m --api_key *** *** --port 1"),
        ("vllm serve m --api-key=EMPTY", "vllm serve m --api-key=***"),
        (
            "env MY_API_KEY=zzz MAX_TOKENS=9 HF_TOKEN_PATH=/t vllm serve",
            "env MY_API_KEY=*** MAX_TOKENS=9 HF_TOKEN_PATH=/t vllm serve",
        ),
        ("vllm serve m --x.api_key abc --github-token=abc", "vllm serve m --x.api_key *** --github-token=***"),
        ("vllm serve m --hf-token --port 1", "vllm serve m --hf-token --port 1"),
        ("vllm serve EMPTY --max-num-batched-tokens 8192", "vllm serve EMPTY --max-num-batched-tokens 8192"),
        ("vllm serve m --served-model-name longsecret-1", "vllm serve m --served-model-name ***"),
    ],
)
def test_a_shown_command_line_hides_the_values_of_secret_options_however_short(line: str, shown: str) -> None:
    assert redact_argv(line.split(), ("longsecret-1",)) == tuple(shown.split())


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("api-key", True),
        ("hf-token", True),
        ("github-token", True),
        ("auth-header", True),
        ("image-token-id", False),
        ("max-prompt-adapter-token", False),
        ("return-tokens-as-token-ids", False),
        ("tokenizer", False),
        ("max-num-batched-tokens", False),
        ("num-speculative-tokens", False),
        ("ssl-keyfile", False),
    ],
)
def test_options_are_secret_by_their_whole_name(name: str, secret: bool) -> None:
    assert is_secret_option(name) is secret


def test_an_engine_command_holds_secrets_too() -> None:
    command = ("env", "HF_TOKEN=myownsecret99x", "MY_API_KEY=zzz", "sh", "-c", "API_KEY='inner-secret-1' vllm serve")
    assert secrets_in((), {}, command) == Secrets(("inner-secret-1", "myownsecret99x"), ("zzz",))


def test_a_secret_of_several_lines_is_hidden_line_by_line() -> None:
    found = secrets_in((), {"SIGNING_PRIVATE_KEY": "first-line-1\nsecond-line-2\nab\n"})
    assert found == Secrets(("first-line-1\nsecond-line-2\nab\n", "second-line-2", "first-line-1"))


def test_what_an_engine_answers_is_hidden_by_all_that_is_known() -> None:
    secrets = Secrets(("correctHorse9battery",), ("EMPTY",))
    said = (
        "bad header Bearer correctHorse9battery, Bearer EMPTY, api_key: 'EMPTY', an EMPTY word, hf_FileStored99, \ud800"
    )
    assert secrets.hide(said) == "bad header Bearer ***, Bearer ***, api_key: '***', an EMPTY word, ***, \ud800"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'api_key': ['a', 'tok1'], 'hf_token': 'tok1'", "'api_key': ['a', '***'], 'hf_token': '***'"),
        ("Namespace(hf_token='tok1', seed=1)", "Namespace(hf_token='***', seed=1)"),
        ("VLLM_API_KEY=tok1", "VLLM_API_KEY=***"),
        ("tok1 tokens, hf_token: tok12", "tok1 tokens, hf_token: tok12"),
        ("max_num_batched_tokens is tok1", "max_num_batched_tokens is tok1"),
    ],
)
def test_a_plain_secret_is_hidden_behind_its_name_only(text: str, shown: str) -> None:
    assert behind_its_name("tok1").sub(r"\1***", text) == shown
