"""A user's own models: what may stand in the file, what each mistake is told, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autolaunch.catalog import before, catalog, find_model, hides, load_models, shipped
from autolaunch.cli import cli, main
from autolaunch.cli_options import own_options
from autolaunch.entry import Entry, misfit
from autolaunch.errors import WishError
from autolaunch.facts import Basis, Variant, Weights
from autolaunch.models_file import COMMANDS, OWN, parse_models

SHAPE = """
[models-own]
model = "own/model-7b"
also = ["mine", "Mirror/model-7b"]
like = ["own/model-7b-base"]
description = "my model"
engine_args = ["--trust-remote-code", "--tool-call-parser", "hermes"]
since = "0.9"
until = "0.32.1"
before = "qwen3-8b"
weights = { loaded_bytes = 14_000_000_000, linear_bytes = 12_000_000_000, basis = "estimated" }
config = { architectures = ["LlamaForCausalLM"], model_type = "llama", num_hidden_layers = 4, hidden_size = 64,
           num_attention_heads = 4, vocab_size = 1000, max_position_embeddings = 4096 }
variants = [{ model = "own/model-7b-AWQ", quantization = "awq", loaded_bytes = 5_000_000_000, capability = [7, 5] }]
""".replace("\n           num", " num")


def own(tmp_path: Path, text: str) -> Path:
    """Write a models file."""
    file = tmp_path / "models.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_key_of_the_catalogue_may_stand_in_an_own_file(tmp_path: Path) -> None:
    file = own(tmp_path, SHAPE)
    found = find_model("models-own", load_models(file))
    assert replace(found, shape=None) == Entry(
        name="models-own",
        model="own/model-7b",
        description="my model",
        engine_args=(
            "--served-model-name", "models-own", "--trust-remote-code", "--tool-call-parser", "hermes"
        ),
        max_model_len=4096,
        variants=(
            Variant(
                "own/model-7b-AWQ",
                "awq",
                Weights(5_000_000_000, basis=Basis.ESTIMATED, source="catalogue"),
                (7, 5),
                official=True,
            ),
        ),
        weights=Weights(14_000_000_000, 12_000_000_000, basis=Basis.ESTIMATED, source="catalogue"),
        also=("mine", "Mirror/model-7b"),
        like=("own/model-7b-base",),
        since="0.9",
        until="0.32.1",
        before="qwen3-8b",
        model_type="llama",
        alias="models-own",
        file=str(file),
        remote_code=True,
    )  # fmt: skip
    assert found.shape is not None
    assert (found.shape.architecture, found.shape.num_hidden_layers) == ("LlamaForCausalLM", 4)


def test_a_hub_id_is_all_that_an_own_model_needs(tmp_path: Path) -> None:
    file = own(tmp_path, '["my-8b.v2"]\nmodel = "org/m"')
    assert find_model("MY-8b.V2", load_models(file)) == Entry(
        "my-8b.v2", "org/m", engine_args=("--served-model-name", "my-8b.v2"), alias="my-8b.v2", file=str(file)
    )


def test_weights_that_nobody_wrote_follow_from_the_dimensions(tmp_path: Path) -> None:
    text = SHAPE.replace("weights = {", "#")
    found = find_model("models-own", load_models(own(tmp_path, text))).weights
    assert found is not None
    assert found.source == "its dimensions"


def test_names_for_clients_may_be_the_users_own(tmp_path: Path) -> None:
    file = own(tmp_path, '[m]\nmodel = "org/m"\nengine_args = ["--served-model-name", "gpt-4"]')
    assert find_model("m", load_models(file)).engine_args == ("--served-model-name", "gpt-4")


@pytest.mark.parametrize("name", ["mine", "mirror/model-7b", "own/model-7b-base"])
def test_other_names_of_an_own_model_stand_for_it(tmp_path: Path, name: str) -> None:
    found = find_model(name, load_models(own(tmp_path, SHAPE)))
    assert (found.alias, found.max_model_len) == ("models-own", 4096)
    assert found.model == (name if "/" in name else "own/model-7b")
    assert ("--trust-remote-code" in found.engine_args) is ("/" not in name)


HIDING = '[glm-4-9b]\nmodel = "own/glm"\nconfig = {}'


def test_an_own_short_name_hides_the_shipped_one_with_its_other_short_names(tmp_path: Path) -> None:
    file = own(tmp_path, HIDING)
    known = load_models(file)
    for name in ("glm-4-9b", "GLM-4-9B-chat"):
        found = find_model(name, known)
        assert (found.model, found.file, hides(found)) == ("own/glm", str(file), True)
    assert list(known.entries()) == ["glm-4-9b", *(name for name in catalog() if name != "glm-4-9b")]


def test_a_hub_id_keeps_the_facts_that_ship_though_its_short_name_is_the_users(tmp_path: Path) -> None:
    known = load_models(own(tmp_path, HIDING))
    assert find_model("zai-org/glm-4-9b-chat-hf", known) == find_model("zai-org/glm-4-9b-chat-hf")


def test_an_own_name_that_is_new_hides_nothing(tmp_path: Path) -> None:
    known = load_models(own(tmp_path, '[new]\nmodel = "org/m"'))
    assert not hides(find_model("new", known))
    assert find_model("phi-4", known) == catalog()["phi-4"]


def test_a_typo_finds_the_users_own_names_too(tmp_path: Path) -> None:
    with pytest.raises(WishError) as caught:
        find_model("models-onw", load_models(own(tmp_path, SHAPE)))
    assert caught.value.hint.startswith("did you mean 'models-own'? ")


def test_an_own_model_may_be_a_folder_and_speaks_the_dialect_of_its_template(tmp_path: Path) -> None:
    folder = tmp_path / "glm"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text(
        "[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}"
    )
    found = find_model("mine", load_models(own(tmp_path, f'[mine]\nmodel = "{folder}"')))
    assert (found.model, found.dialect) == (str(folder), "glm-4")
    assert found.engine_args == ("--served-model-name", "glm-4", "glm-4-9b", "glm-4-9b-chat", "mine", str(folder))


def test_an_own_folder_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    file = own(tmp_path, '[mine]\nmodel = "/nowhere/glm"')
    with pytest.raises(WishError) as caught:
        find_model("mine", load_models(file))
    assert caught.value.what == f"/nowhere/glm, the model of 'mine' in {file}, is not there"


MISTAKES = {
    "modle = 'a/b'": ("unknown key 'modle' in [m]", "did you mean 'model'?"),
    "": ("'model' of [m] is None; it must be a text", "see docs/models.md for the keys"),
    "model = 'glm'": ("'model' of [m] is 'glm'; it must be a hub id, a full path or a URL", "for example zai-org/"),
    "model = './glm'": ("'model' of [m] is './glm'; it must be a hub id", "for example"),
    "model = 'a/b'\nalso = 'x'": ("'also' of [m] is 'x'; it must be a list of texts", "see docs/models.md"),
    "model = 'a/b'\nalso = ['x y']": ("'x y' in 'also' of [m] is no name of a model", "give a short name or a hub id"),
    "model = 'a/b'\nlike = ['x']": ("'x' in 'like' of [m] is no name of a model", "give a short name or a hub id"),
    "model = 'a/b'\ndescription = 7": ("'description' of [m] is 7; it must be a text", "see docs/models.md"),
    "model = 'a/b'\nengine_args = ['x']": ("'engine_args' of [m] begin with 'x', which is no option", "write --name"),
    "model = 'a/b'\nengine_args = [1]": ("an entry of 'engine_args' of [m] is 1; it must be a text", "see docs"),
    "model = 'a/b'\nengine_args = ['--max-model-len 8192']": (
        "'engine_args' of [m]: '--max-model-len 8192' is one word",
        "write an option and its value as two: ['--max-model-len', '8192']",
    ),
    "model = 'a/b'\nengine_args = ['--seed', '1', '--strategy', 'classic']": (
        "'engine_args' of [m]: --strategy is autolaunch's, not vLLM's", "type it, or set AUTOLAUNCH_STRATEGY"
    ),
    "model = 'a/b'\nengine_args = ['--max_context=8192']": (
        "'engine_args' of [m]: --max-context is autolaunch's, not vLLM's", "type it, or set AUTOLAUNCH_MAX_CONTEXT"
    ),
    "model = 'a/b'\nengine_args = ['--enforce-eager', 'true']": (
        "'engine_args' of [m]: 'true' belongs to no option", "an option's values follow it"
    ),
    "model = 'a/b'\nengine_args = ['--seed', '1', '--', 'x']": (
        "'engine_args' of [m]: a word '--' says nothing there", "leave it out"
    ),
    "model = 'a/b'\nengine_args = ['--model=c/d']": ("'engine_args' of [m] name a model", "that is what the key"),
    "model = 'a/b'\nsince = '0.8.x'": ("'since' of [m] is '0.8.x', which is no release of vLLM", "write one such as"),
    "model = 'a/b'\nuntil = 0.8": ("'until' of [m] is 0.8; it must be a text", "see docs/models.md"),
    "model = 'a/b'\nsince = '0.9'\nuntil = '0.8.5'": ("[m] is served since 0.9 and until 0.8.5: by no release", ""),
    "model = 'a/b'\nbefore = 'a/b'": ("'before' of [m] is 'a/b', which is no short name", "see docs/models.md"),
    "model = 'a/b'\nsince = '0.8.post1'": ("'since' of [m] is '0.8.post1', which is no release of vLLM", "write one"),
    "model = 'a/b'\nbefore = 'phi-4'": ("[m] has 'before' and no 'since'", "'before' is the model for releases before"),
    "model = 'a/b'\nsince = '9'\nbefore = 'ph-4'": (
        "'before' of [m] is 'ph-4', which is no short name of another model", "did you mean 'phi-4'?"
    ),
    "model = 'a/b'\nsince = '9'\nbefore = 'm'": ("'before' of [m] is 'm', which is no short name of another", "give a"),
    "model = 'a/b'\nalso = ['Plan']": (
        "'Plan' in 'also' of [m] cannot be called: autolaunch plan is a command", "give it another short name"
    ),
    "model = 'a/b'\ndialect = 'glm4'": ("'dialect' of [m] is 'glm4'; it must be one of glm-4", "did you mean 'glm-4'?"),
    "model = 'a/b'\ndialect = []": ("'dialect' of [m] is []; it must be one of glm-4", ""),
    "model = 'a/b'\nconfig = 1": ("'config' of [m] is not a table", "see docs/models.md"),
    "model = 'a/b'\nconfig = {hidden_size = 1}": (
        "'config' of [m]: config.json gives no dimensions: ", "copy the keys of the model's config.json"
    ),
    "model = 'a/b'\nweights = {loaded_byte = 1}": ("unknown key 'loaded_byte' in 'weights' of [m]", "did you mean"),
    "model = 'a/b'\nweights = {}": ("'loaded_bytes' in 'weights' of [m] is None; it must be a whole number", "see"),
    "model = 'a/b'\nweights = {loaded_bytes = 5, linear_bytes = 6}": (
        "'weights' of [m]: 0 bytes of experts, 6 of linear layers and 5 in all do not nest", "see docs"
    ),
    "model = 'a/b'\nweights = {loaded_bytes = 2_000_000_000_000_000}": ("which is more than any model has", "see docs"),
    "model = 'a/b'\nweights = {loaded_bytes = 1, basis = 'guess'}": ("'basis' in 'weights' of [m] is 'guess'", ""),
    "model = 'a/b'\nvariants = {}": ("'variants' of [m] is {}; it must be a list of tables", "see docs/models.md"),
    "model = 'a/b'\nvariants = [1]": ("variant 1 of [m] is not a table", "see docs/models.md"),
    "model = 'a/b'\nvariants = [{model = 'x'}]": ("'model' of variant 1 of [m] is 'x'; it must be a hub id", "see"),
    "model = 'a/b'\nvariants = [{model = 'a/c', quantization = 'awq', loaded_bytes = 1, capability = [8]}]": (
        "'capability' of variant 1 of [m] is [8]; it must be two numbers such as [8, 0]", "see docs/models.md"
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", MISTAKES)
def test_a_mistake_names_the_file_the_key_and_the_nearest_known_key(body: str) -> None:
    what, hint = MISTAKES[body]
    with pytest.raises(WishError) as caught:
        parse_models("my.toml", f"[m]\n{body}", shipped=("phi-4",))
    assert caught.value.what.startswith("models file my.toml: ")
    assert what in caught.value.what
    assert caught.value.hint.startswith(hint)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("[m", "is not TOML: Expected ']'", "see docs/models.md"),
        ("a = " + "[" * 5000, "is not TOML: ", "see docs/models.md"),
        ("a = " + "9" * 5000, "is not TOML: ", "see docs/models.md"),
        ("m = 1", "[m] is not a table", "see docs/models.md"),
        ('[Mine]\nmodel = "a/b"', "[Mine] is no short name", "write small letters"),
        ('[serve]\nmodel = "a/b"', "[serve] cannot be called: autolaunch serve is a command", "give it another"),
        ('["a/b"]\nmodel = "a/b"', '["a/b"] is no short name', "write small letters"),
        ('[q2.5-7b]\nmodel = "a/b"', "[q2] is a table of tables", 'a name with a dot stands in quotes: ["q2.5-7b"]'),
        ('[a]\nmodel = "x/y"\n[b]\nmodel = "X/y"', "'X/y' stands for 'a' and for 'b'", "name each model once"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_told(text: str, what: str, hint: str) -> None:
    with pytest.raises(WishError) as caught:
        parse_models("my.toml", text)
    assert caught.value.what.startswith(f"models file my.toml: {what}")
    assert caught.value.hint.startswith(hint)


OLDER = """
[new]
model = "own/new"
since = "0.9.1.post1"
before = "old"
[old]
model = "own/old"
also = ["oldest"]
"""


@pytest.mark.parametrize(
    ("before_", "release", "model"),
    [
        ("old", "0.9.1", "own/old"),
        ("oldest", "0.8.5.post1", "own/old"),
        ("phi-4", "0.9.0", "microsoft/phi-4"),
        ("old", "0.9.1.post1", "own/new"),
        ("old", None, "own/new"),
        ("got-ocr-2.0-hf", "0.9.0", "own/new"),
    ],
)
def test_an_older_engine_gets_the_model_that_the_file_names_for_it(
    tmp_path: Path, before_: str, release: str | None, model: str
) -> None:
    known = load_models(own(tmp_path, OLDER.replace('before = "old"', f'before = "{before_}"')))
    found = before(find_model("new", known), release, known)
    assert found.model == model
    assert "new" in found.engine_args


def test_the_model_for_older_releases_is_not_for_newer_ones(tmp_path: Path) -> None:
    known = load_models(own(tmp_path, OLDER.replace("before", 'until = "0.11"\nbefore')))
    entry = find_model("new", known)
    assert misfit(entry, "0.12.0") == "new needs vLLM 0.11 or older, this is 0.12.0"
    assert before(entry, "0.12.0", known) is entry


def test_a_hidden_models_other_name_is_the_users_own_and_no_older_one(tmp_path: Path) -> None:
    text = '[glm-4-9b]\nmodel = "own/glm"\nsince = "9"\nbefore = "glm-4-9b-chat"'
    known = load_models(own(tmp_path, text))
    entry = find_model("glm-4-9b", known)
    assert before(entry, "0.9.0", known) is entry


def test_what_is_autolaunchs_own_is_known_to_the_file() -> None:
    assert sorted(cli.commands) == list(COMMANDS)
    assert own_options(cli.commands["serve"]) == OWN


def test_a_named_file_that_is_not_there_is_an_error_and_the_usual_one_need_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_models(None) is shipped()
    with pytest.raises(WishError, match=r"there is no models file .*nowhere\.toml"):
        load_models(tmp_path / "nowhere.toml")
    with pytest.raises(WishError, match=r"cannot be read: .*directory"):
        load_models(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(WishError, match=r"cannot be read: .*utf-8"):
        load_models(tmp_path / "latin.toml")


def test_the_usual_file_lies_in_the_users_folder_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "autolaunch").mkdir()
    file = own(tmp_path / "autolaunch", SHAPE)
    assert load_models(None).entries()["models-own"].file == str(file)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_models(own(tmp_path, "# later\n")).entries() == catalog()


def test_a_plan_and_a_listing_on_an_older_release_take_the_files_own_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["new", "--models", str(own(tmp_path, OLDER)), "--gpu", "RTX 4090", "--engine-version", "0.9.0"]
    with pytest.raises(SystemExit, match="0"):
        main(["plan", *words])
    assert "note: new needs vLLM 0.9.1.post1 or newer, this is 0.9.0: own/old is taken" in capsys.readouterr().err
    main(["models", *words])
    assert "vLLM 0.9.1.post1 or newer (old is for older ones)" in capsys.readouterr().out
