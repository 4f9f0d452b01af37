"""deploy/: what stands in its files is what autolaunch takes, serves and needs, and the formats' own checkers agree."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from autolaunch.cli import serve
from autolaunch.errors import ExitCode
from autolaunch.options import Options, ask
from autolaunch.phases import Policy
from autolaunch.routes import BEAT_MOST_S, ROUTES
from autolaunch.status_address import StatusAddress, parse_status_address
from autolaunch.unit import Service

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


# --- the files, read


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their words, continued lines joined."""
    bare = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.split(None, 1) for line in bare.splitlines() if line.strip())
    return [(name, re.sub(r"\s+", " ", rest)) for name, rest in lines]


def words_of(instruction: str) -> list[str]:
    return [rest for name, rest in dockerfile() if name == instruction]


IMAGE_ENV = dict(word.split("=", 1) for rest in words_of("ENV") for word in shlex.split(rest))
COMPOSE: dict[str, Any] = yaml.safe_load(text("compose.yaml"))
(SERVICE,) = COMPOSE["services"].values()
MANIFEST: list[dict[str, Any]] = list(yaml.safe_load_all(text("kubernetes.yaml")))
(DEPLOYMENT,) = (one for one in MANIFEST if one["kind"] == "Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]

PROBES = {name: CONTAINER[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
HEALTH = {"Dockerfile": words_of("HEALTHCHECK")[0], "compose.yaml": " ".join(SERVICE["healthcheck"]["test"])}


def asked(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Options:
    """Return a command line's options as `serve` reads them, in the image's environment; no word is left for vLLM."""
    for name, value in IMAGE_ENV.items():
        if name.startswith("AUTOLAUNCH_"):
            monkeypatch.setenv(name, value)
    context = serve.make_context("autolaunch", list(command))
    assert context.meta["engine_args"] == ()
    options = Options(**context.params)
    assert ask(context.meta["model"], (), options).wish.address.port == 8000
    return options


def seconds(duration: str) -> float:
    """Return a duration of Compose or of a Dockerfile."""
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))


# --- options, addresses, routes


@pytest.mark.parametrize(("command", "drain_s"), [(SERVICE["command"], 60.0), (CONTAINER["args"], 60.0)])
def test_every_option_is_one_of_ours(command: list[str], drain_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    options = asked(command, monkeypatch)
    assert options.drain_timeout == drain_s
    assert options.status == StatusAddress("0.0.0.0", 8001)
    assert options.state_dir == Path("/var/lib/autolaunch")


def test_a_word_that_is_no_option_of_ours_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        asked(["glm-4-9b", "--drain-timeouts", "60"], monkeypatch)


def test_every_variable_of_the_image_stands_for_an_option() -> None:
    known = {option.envvar for option in serve.params if isinstance(option, click.Option)}
    ours = {name for name in IMAGE_ENV if name.startswith("AUTOLAUNCH_")}
    assert ours == {"AUTOLAUNCH_STATE_DIR", "AUTOLAUNCH_STATUS"}
    assert ours <= known


@pytest.mark.parametrize("name", PROBES)
def test_kubernetes_asks_for_a_route_at_the_port_of_the_status(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    asks = PROBES[name]["httpGet"]
    assert asks["path"] == {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}[name]
    assert asks["path"] in ROUTES
    assert ports[asks["port"]] == parse_status_address(IMAGE_ENV["AUTOLAUNCH_STATUS"]).port


@pytest.mark.parametrize("name", HEALTH)
def test_docker_asks_for_a_route_at_the_port_of_the_status(name: str) -> None:
    (url,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", HEALTH[name])
    assert url == (str(parse_status_address(IMAGE_ENV["AUTOLAUNCH_STATUS"]).port), "/readyz")
    assert url[1] in ROUTES


def test_prometheus_is_sent_to_a_route() -> None:
    notes = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in ROUTES
    assert notes["prometheus.io/port"] == str(parse_status_address(IMAGE_ENV["AUTOLAUNCH_STATUS"]).port)


def test_ports_are_published_under_the_numbers_they_have_inside() -> None:
    assert words_of("EXPOSE") == ["8000 8001"]
    assert SERVICE["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001"]
    (service,) = (one for one in MANIFEST if one["kind"] == "Service")
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(8000, "http")]
    assert {"name": "http", "containerPort": 8000} in CONTAINER["ports"]


# --- times


def test_a_start_may_take_longer_than_one_attempt_may() -> None:
    start = PROBES["startupProbe"]
    waits_s = start["periodSeconds"] * start["failureThreshold"]
    assert waits_s >= 2 * Policy().start_timeout_s
    assert DEPLOYMENT["spec"]["progressDeadlineSeconds"] > waits_s
    (begins,) = re.findall(r"--start-period=(\S+)", HEALTH["Dockerfile"])
    assert seconds(begins) >= 2 * Policy().start_timeout_s
    assert seconds(SERVICE["healthcheck"]["start_period"]) >= 2 * Policy().start_timeout_s


def test_a_liveness_probe_outwaits_what_the_route_itself_allows() -> None:
    live = PROBES["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] > BEAT_MOST_S


def stop_s(options: Options) -> int:
    """How long a systemd unit gives the same options to stop."""
    return Service("x", "x", ("x",), "x", drain_s=options.drain_timeout).stop_s


def test_a_stop_has_time_for_the_drain_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds(SERVICE["stop_grace_period"]) >= stop_s(asked(SERVICE["command"], monkeypatch))
    waits_s = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= waits_s + stop_s(asked(CONTAINER["args"], monkeypatch))


# --- the image and who uses it


def test_the_image_starts_autolaunch_without_a_shell_and_not_as_root() -> None:
    assert [json.loads(rest) for rest in words_of("ENTRYPOINT")] == [["autolaunch"]]
    assert words_of("CMD") == []
    assert words_of("STOPSIGNAL") == ["SIGTERM"]
    user = words_of("USER")[-1]
    assert int(user) > 0
    assert any(f"--uid {user} " in rest for rest in words_of("RUN"))
    assert POD["securityContext"]["runAsUser"] == int(user)
    assert POD["securityContext"]["fsGroup"] > 0


def test_volumes_lie_where_the_image_writes() -> None:
    made = next(rest for rest in words_of("RUN") if "install -d" in rest).split("install -d", 1)[1].split()
    folders = [word for word in made if word.startswith("/var/")]
    assert sorted(volume.split(":")[1] for volume in SERVICE["volumes"]) == sorted(folders)
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {*folders, "/tmp", "/dev/shm"}
    for name, value in IMAGE_ENV.items():
        if value.startswith("/"):
            assert any(value == folder or value.startswith(folder + "/") for folder in folders), name


def test_every_mount_has_its_volume_and_every_claim_is_made() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == set(volumes)
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes.values()
        if len(volume) == 2 and "persistentVolumeClaim" in volume
    }
    assert claims == {one["metadata"]["name"] for one in MANIFEST if one["kind"] == "PersistentVolumeClaim"}
    assert {volume.split(":")[0] for volume in SERVICE["volumes"]} == set(COMPOSE["volumes"])


def test_labels_select_the_pod() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    selectors = [DEPLOYMENT["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in MANIFEST if one["kind"] == "Service"]
    assert selectors == [labels, labels]


def test_no_file_holds_a_secret() -> None:
    assert [word for word in SERVICE["environment"] if "=" in word] == []
    assert all("valueFrom" in variable for variable in CONTAINER["env"])
    assert [one["kind"] for one in MANIFEST if one["kind"] == "Secret"] == []


def test_the_image_is_given_all_that_the_package_is_built_from() -> None:
    """hatchling reads the readme and the licence; the strategies are put into the wheel."""
    copied = {word.rstrip("/") for rest in words_of("COPY") for word in rest.split()[:-1]}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "autolaunch", "strategies"}
    assert all((ROOT / name).exists() for name in copied)
    allowed = {line[1:] for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    assert allowed == copied


def test_both_builds_start_from_the_same_release() -> None:
    (default,) = words_of("ARG")
    assert SERVICE["build"]["args"] == {"VLLM_IMAGE": default.removeprefix("VLLM_IMAGE=")}
    assert (DEPLOY / SERVICE["build"]["context"] / SERVICE["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_the_readme_says_what_every_exit_code_means_there() -> None:
    readme = text("README.md")
    assert all(f"| {int(code)} |" in readme for code in ExitCode)
    assert [name for name in ("Dockerfile", "compose.yaml", "kubernetes.yaml") if f"`{name}`" not in readme] == []


# --- the formats' own checkers


def checker(name: str) -> str:
    """Return the path of a command of the development tools, skip where it is not installed."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}") or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; scripts/setup-dev installs it")
    return found


def checked(*words: str) -> tuple[int, str]:
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert checked(checker("hadolint"), "--no-color", str(DEPLOY / "Dockerfile")) == (0, "")


def test_the_compose_file_is_one_by_the_specifications_schema() -> None:
    words = (checker("check-jsonschema"), "--builtin-schema", "vendor.compose-spec")
    code, said = checked(*words, str(DEPLOY / "compose.yaml"))
    assert code == 0, said


def test_the_schema_would_find_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text("compose.yaml").replace("stop_grace_period", "stop_grace"))
    words = (checker("check-jsonschema"), "--builtin-schema", "vendor.compose-spec")
    assert checked(*words, str(wrong))[0] == 1


@pytest.mark.parametrize("version", ["1.29", "newest"])
def test_every_object_is_valid_kubernetes(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="scripts/setup-dev installs it")
    wanted = validate.latest_version() if version == "newest" else version
    for one in MANIFEST:
        validate.validate(one, wanted, strict=True)
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 1}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, wanted, strict=True)
