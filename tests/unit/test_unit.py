"""A unit says exactly the command line that was typed, gives nothing away, and is refused where it would not run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from autolaunch import unit_install
from autolaunch.cli import cli
from autolaunch.errors import AutolaunchError, ExitCode, HostError, WishError
from autolaunch.unit import Service, quoted, unit, unit_name
from autolaunch.unit_install import install, to_do

SERVICE = Service(
    name="autolaunch-glm-4-9b",
    model="glm-4-9b",
    command=("/opt/autolaunch/bin/autolaunch", "serve", "glm-4-9b", "--max-model-len", "8192"),
    secrets_file="/etc/autolaunch/autolaunch-glm-4-9b.env",
)


def directives(text: str) -> dict[str, list[str]]:
    """Read a unit as systemd.syntax(7) describes it: comments go, a backslash joins lines, a name may come again."""
    found: dict[str, list[str]] = {}
    plain = "\n".join(line for line in text.splitlines() if not line.startswith(("#", ";")))
    for line in plain.replace("\\\n", " ").splitlines():
        name, assigned, value = line.partition("=")
        if assigned:
            found.setdefault(name, []).append(value)
    return found


def words(line: str) -> list[str]:
    """Read a command line as systemd does, as far as we write it: quotes, C escapes, then `%%` and `$$`."""
    read, place = [], re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))', re.DOTALL)
    at = 0
    while found := place.match(line, at):
        at = found.end()
        text = found[2] if found[1] is None else re.sub(r"\\(x..|.)", _unescaped, found[1], flags=re.DOTALL)
        assert re.fullmatch(r"(?:[^$%]|\$\$|%%)*", text, re.DOTALL), "nothing is left to be expanded"
        read.append(text.replace("%%", "%").replace("$$", "$"))
    assert not line[at:].strip()
    return read


def _unescaped(found: re.Match[str]) -> str:
    letter = found[1]
    return chr(int(letter[1:], 16)) if letter[0] == "x" else {"n": "\n", "t": "\t", "r": "\r"}.get(letter, letter)


def run(*args: str, **environment: str) -> str:
    """Give what the command prints; its error is raised."""
    clean = {name: None for name in os.environ if name.startswith("AUTOLAUNCH_")}
    result = CliRunner().invoke(cli, ["systemd", *args], env={**clean, **environment})
    if isinstance(result.exception, AutolaunchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def command_of(*args: str, **environment: str) -> list[str]:
    """Give the command line of the unit that is printed, behind `serve`."""
    (line,) = directives(run(*args, **environment))["ExecStart"]
    read = words(line)
    return read[read.index("serve") + 1 :]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_word_comes_back_from_its_quoting_whole_and_alone(word: str) -> None:
    assert words(f"/bin/x {quoted(word)} y") == ["/bin/x", word, "y"]
    assert "\n" not in quoted(word)


@pytest.mark.parametrize(
    ("word", "as_written"),
    [
        ("--max-model-len=8192", "--max-model-len=8192"),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('{"a": 1}', '"{\\"a\\": 1}"'),
        ("", '""'),
        (";", '";"'),
        ("#x", '"#x"'),
        ("one\ntwo", '"one\\ntwo"'),
        ("\x07", '"\\x07"'),
        ("模型", '"模型"'),
    ],
)
def test_a_word_is_quoted_where_systemd_would_read_it_otherwise(word: str, as_written: str) -> None:
    assert quoted(word) == as_written


def test_the_command_line_is_what_was_typed() -> None:
    typed = ["--concurrency", "2", "glm-4-9b", "--max-model-len", "8192", "--hf-overrides", '{"a": "100% $X"}', "-tp=1"]
    assert command_of(*typed) == [
        *("--concurrency", "2", "--state-dir", "/var/lib/autolaunch", "glm-4-9b"),
        *("--max-model-len", "8192", "--hf-overrides", '{"a": "100% $X"}', "-tp=1"),
    ]


def test_what_stands_behind_two_dashes_stays_the_engines() -> None:
    assert command_of("glm-4-9b", "--user", "--", "--record", "/x") == ["glm-4-9b", "--", "--record", "/x"]


def test_a_folder_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a model").mkdir()
    (tmp_path / "a model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    text = run("./a model")
    assert words(directives(text)["ExecStart"][0])[-1] == str(tmp_path / "a model")
    assert f'"{tmp_path}/a model"' in directives(text)["RequiresMountsFor"][0]
    assert text.startswith("# autolaunch-a-model.service, written by autolaunch ")


def test_a_file_of_own_models_goes_with_a_service_that_has_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "autolaunch" / "models.toml"
    file.parent.mkdir()
    file.write_text('[mine]\nmodel = "org/m"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert command_of("mine", **config)[-3:] == ["--models", str(file), "mine"]
    assert "--models" not in command_of("glm-4-9b", **config)
    assert "--models" not in command_of("mine", "--user", **config)


def test_options_given_by_variable_are_written_down_but_for_those_that_the_command_line_gives() -> None:
    found = directives(run("glm-4-9b", "--user", AUTOLAUNCH_CONCURRENCY="3", AUTOLAUNCH_JSON="1"))
    (secrets,) = found["EnvironmentFile"]
    told = f"AUTOLAUNCH_SECRETS_FILE={secrets.removeprefix('-')}"
    assert found["Environment"] == ["AUTOLAUNCH_CONCURRENCY=3", told]
    found = directives(run("glm-4-9b", "--user", "--concurrency=2", AUTOLAUNCH_CONCURRENCY="3"))
    assert found["Environment"] == [told]


def test_the_ends_that_a_restart_cannot_cure_are_not_restarted() -> None:
    found = directives(unit(SERVICE, version="1"))
    assert found["Restart"] == ["on-failure"]
    assert found["RestartPreventExitStatus"] == ["2 3 5"]
    assert {ExitCode.USAGE, ExitCode.NOTHING_FITS, ExitCode.HOST_AT_FAULT} == {2, 3, 5}


def test_a_system_service_sees_what_it_needs_and_no_more() -> None:
    found = directives(unit(SERVICE, version="1"))
    assert found["Type"] == ["notify"]
    assert found["NotifyAccess"] == ["main"]
    assert found["User"] == ["autolaunch"]
    assert "DynamicUser" not in found
    assert found["ProtectSystem"] == ["strict"]
    assert found["ProtectHome"] == found["PrivateTmp"] == found["NoNewPrivileges"] == ["yes"]
    assert (found["DevicePolicy"], found["DeviceAllow"]) == (["closed"], ["char-nvidia* rw"])
    assert found["StateDirectory"] == found["CacheDirectory"] == ["autolaunch"]
    assert found["EnvironmentFile"] == ["-/etc/autolaunch/autolaunch-glm-4-9b.env"]
    assert found["KillMode"] == ["mixed"]
    assert found["WantedBy"] == ["multi-user.target"]


def test_a_users_service_asks_for_nothing_that_its_manager_may_not_have() -> None:
    found = directives(unit(replace(SERVICE, for_user=True), version="1"))
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["WantedBy"] == ["default.target"]
    namespaces = {"User", "ProtectSystem", "PrivateTmp", "DevicePolicy", "StateDirectory", "CapabilityBoundingSet"}
    assert not namespaces & set(found)


def test_a_service_of_a_home_may_read_it_and_write_where_it_was_told() -> None:
    found = directives(unit(replace(SERVICE, reads=("/home/ann/m",), writes=("/home/ann/my log",)), version="1"))
    assert found["ProtectHome"] == ["read-only"]
    assert found["ReadWritePaths"] == ['"/home/ann/my log"']
    assert found["RequiresMountsFor"] == ["/home/ann/m"]


def test_a_service_whose_socket_lies_in_tmp_shares_it() -> None:
    assert directives(unit(replace(SERVICE, writes=("/tmp",)), version="1"))["PrivateTmp"] == ["no"]


def test_what_is_written_besides_is_found_in_the_options() -> None:
    typed = ["glm-4-9b", "--record", "/srv/r/x.jsonl", "--uds", "/run/al/s.sock", "--download-dir=/srv/hub"]
    typed += ["--status", "unix:/run/status/s"]
    assert directives(run(*typed, "--state-dir", "/srv/s"))["ReadWritePaths"] == [
        "/run/al /run/status /srv/hub /srv/r /srv/s"
    ]


def test_stopping_may_take_what_the_engine_may_take() -> None:
    assert SERVICE.stop_s == 60
    assert replace(SERVICE, drain_s=300.0).stop_s == 360
    assert directives(run("glm-4-9b", "--drain-timeout", "120.5"))["TimeoutStopSec"] == ["181"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("glm-4-9b", "autolaunch-glm-4-9b"),
        ("zai-org/GLM-4.5", "autolaunch-zai-org-GLM-4.5"),
        ("/srv/my models/x y/", "autolaunch-x-y"),
        ("模", "autolaunch-model"),
    ],
)
def test_a_unit_is_named_after_its_model(model: str, name: str) -> None:
    assert unit_name(model) == name


@pytest.mark.parametrize(
    "typed",
    [
        ["--api-key", "sk-very-secret-0123456789"],
        ["--api-key=EMPTY"],
        ["--hf-token", "hf_VerySecretToken0123456789"],
        ["--engine", "env HF_TOKEN=verysecret1 vllm serve"],
        ["--hf-overrides", '{"token": "very-secret-1"}'],
        ["--otlp-traces-endpoint", "https://collector/v1?token=horse"],
        ["--otlp-traces-endpoint=https://collector/v1?a=b&sig=horse"],
        ["--otlp-traces-endpoint", "https://me:horse@collector/v1"],
    ],
)
def test_a_secret_is_never_written_and_told_where_it_belongs(typed: list[str]) -> None:
    with pytest.raises(WishError, match="is a secret") as error:
        run("glm-4-9b", *typed)
    assert "/etc/autolaunch/autolaunch-glm-4-9b.env (mode 0600)" in error.value.hint
    assert all(value not in error.value.what + error.value.hint for value in typed[1:])


def test_the_option_of_a_url_that_holds_a_secret_is_named() -> None:
    with pytest.raises(WishError, match="the value of --otlp-traces-endpoint is a secret"):
        run("glm-4-9b", "--otlp-traces-endpoint", "https://collector/v1?token=horse")


def test_a_secret_in_a_variable_is_never_written() -> None:
    with pytest.raises(WishError, match="AUTOLAUNCH_ENGINE is a secret"):
        run("glm-4-9b", AUTOLAUNCH_ENGINE="env HF_TOKEN=hf_VerySecretToken0123456789 vllm")
    text = run("glm-4-9b", VLLM_API_KEY="sk-very-secret-0123456789")
    assert "very-secret" not in text


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        (["--check"], "--check ends as soon as the engine is up"),
        (["--record", "x.jsonl"], "x.jsonl is found from this folder only"),
        (["--state-dir=state"], "state is found from this folder only"),
        (["--chat-template", "./here.jinja"], "./here.jinja is found from this folder only"),
        (["--chat-template=here.jinja"], "here.jinja is found from this folder only"),
        (["--chat-template", "~/x"], "~/x is found from this folder only"),
        (["--name", "../x"], "no name for a unit"),
        (["--name", ".x"], "no name for a unit"),
        (["--run-as", "a b"], "no name for a unit or an account"),
        (["--chat-template", "\udcff"], "is no UTF-8"),
        (["--max-model-len", "much"], "max-model-len"),
    ],
)
def test_what_would_fail_as_a_service_is_refused(
    typed: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.jinja").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WishError, match=re.escape(what)):
        run("glm-4-9b", *typed)


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)])
def test_a_file_of_secrets_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, refused: bool
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    secrets = tmp_path / "autolaunch" / "autolaunch-glm-4-9b.env"
    secrets.parent.mkdir()
    secrets.write_text("VLLM_API_KEY=x\n")
    secrets.chmod(mode)
    if refused:
        with pytest.raises(HostError, match=f"has mode {mode:04o}") as error:
            run("glm-4-9b", "--user")
        assert error.value.hint == f"chmod 0600 {secrets}: it is there for secrets"
    else:
        assert f"EnvironmentFile=-{secrets}" in run("glm-4-9b", "--user")


def test_what_a_user_can_do_about_a_file_of_secrets_of_somebody_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was `chown root`: systemd reads a user's file as that user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    secrets = tmp_path / "autolaunch" / "autolaunch-glm-4-9b.env"
    secrets.parent.mkdir()
    secrets.write_text("VLLM_API_KEY=x\n")
    secrets.chmod(0o644)
    monkeypatch.setattr(os, "getuid", lambda: secrets.stat().st_uid + 1)
    with pytest.raises(HostError, match="and belongs to uid") as error:
        run("glm-4-9b", "--user")
    assert error.value.hint == "put a file of your own in its place, mode 0600: it is there for secrets"


def test_the_file_of_a_systems_service_is_to_be_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = tmp_path / "x y.env"
    open_file.write_text("VLLM_API_KEY=x\n")
    open_file.chmod(0o644)
    monkeypatch.setattr(unit_install, "_secrets_file", lambda name, for_user: open_file)
    with pytest.raises(HostError) as error:
        run("glm-4-9b")
    quoted = f"'{open_file}'"
    assert error.value.hint == f"chown root {quoted} && chmod 0600 {quoted}: it is there for secrets"


def test_it_is_installed_whole_readable_and_only_over_its_own(tmp_path: Path) -> None:
    text = unit(SERVICE, version="1")
    path = install(text, SERVICE.name, tmp_path / "units")
    assert path == tmp_path / "units" / "autolaunch-glm-4-9b.service"
    assert path.read_text() == text
    assert path.stat().st_mode & 0o7777 == 0o644
    install(unit(SERVICE, version="2"), SERVICE.name, tmp_path / "units")
    assert "autolaunch 2\n" in path.read_text()
    path.write_text("[Unit]\nDescription=by hand\n")
    with pytest.raises(WishError, match="was not written by autolaunch"):
        install(text, SERVICE.name, tmp_path / "units")
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_the_hosts_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be written"):
        install("text", "x", tmp_path / "file")


def test_installing_says_what_is_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_install, "unit_folder", lambda **_: tmp_path)
    assert run("glm-4-9b", "--install", "--run-as", "nobody-knows") == ""
    assert (tmp_path / "autolaunch-glm-4-9b.service").is_file()
    service = replace(SERVICE, account="nobody-knows", secrets_file=str(tmp_path / "x.env"))
    assert to_do(service, environment={"HF_TOKEN": "x"}) == (
        "useradd --system --user-group --home-dir /var/lib/autolaunch --shell /usr/sbin/nologin nobody-knows",
        f"put HF_TOKEN of this shell into {tmp_path}/x.env, mode 0600",
        "systemctl daemon-reload && systemctl enable --now autolaunch-glm-4-9b",
    )
    control = "systemctl --user daemon-reload && systemctl --user enable --now autolaunch-glm-4-9b"
    assert to_do(replace(SERVICE, for_user=True), environment={}) == (control,)


IN_DOCKER = "docker run --rm --gpus all -p 8000:8000 vllm/vllm-openai:v0.32.0"


def test_an_engine_in_docker_gets_the_daemon_and_its_group() -> None:
    found = directives(run("glm-4-9b", "--engine", IN_DOCKER))
    assert found["SupplementaryGroups"] == ["docker"]
    assert found["Wants"] == ["network-online.target docker.service"]
    assert found["After"] == ["network-online.target nvidia-persistenced.service docker.service"]
    assert found["NoNewPrivileges"] == ["yes"]


def test_of_ones_own_docker_ones_own_groups_decide() -> None:
    assert "SupplementaryGroups" not in directives(run("glm-4-9b", "--user", "--engine", IN_DOCKER))


def test_podman_runs_under_ones_own_manager_with_what_it_needs() -> None:
    found = directives(run("glm-4-9b", "--user", "--engine", IN_DOCKER.replace("docker", "podman", 1)))
    assert not {"NoNewPrivileges", "RestrictSUIDSGID", "SystemCallArchitectures", "RestrictRealtime"} & set(found)
    assert found["UMask"] == ["0027"]


@pytest.mark.parametrize(
    ("engine", "what", "hint"),
    [
        (IN_DOCKER.replace("docker", "podman", 1), "podman needs more", "--user"),
        (IN_DOCKER.replace("docker", "nerdctl", 1), "nerdctl needs more", "--user"),
        (f"sudo {IN_DOCKER}", "begins with sudo", "gives its account the group docker"),
        ("sudo -u vllm vllm serve", "begins with sudo", "a service asks nobody"),
    ],
)
def test_an_engine_that_no_such_unit_can_start_is_refused(engine: str, what: str, hint: str) -> None:
    with pytest.raises(WishError, match=what) as error:
        run("glm-4-9b", "--engine", engine)
    assert hint in error.value.hint


def test_an_engine_whose_quotes_do_not_close_is_refused() -> None:
    with pytest.raises(HostError, match="--engine cannot be read: No closing quotation"):
        run("glm-4-9b", "--engine", "vllm serve 'x")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("runtime", ["", "docker", "podman"])
@pytest.mark.parametrize("for_user", [False, True])
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path, for_user: bool, runtime: str) -> None:
    odd = (sys.executable, "serve", "100% $X;", ";", "", 'a "quoted" \\ word', "#x", "--max-model-len", "8192")
    made = replace(SERVICE, command=odd, for_user=for_user, reads=("/a b%",), runtime=runtime)
    path = tmp_path / "autolaunch-glm-4-9b.service"
    path.write_text(unit(made, version="1"))
    words_ = shlex.split(f"systemd-analyze verify {'--user' if for_user else '--system'} {path}")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(words_, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
