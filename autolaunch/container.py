"""An engine command that runs a container (`docker run ...`), in its parts; and which of them cannot work.

Pure. Owns the reading of docker's, podman's and nerdctl's command line. What has to cross a container's boundary is
`crossing`'s; containers are listed and ended by `containment`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autolaunch.errors import WishError

RUNTIMES = frozenset({"docker", "podman", "nerdctl"})
BEFORE = frozenset({"sudo", "doas", "env"})
"""Commands that may stand in front of the client."""

LABEL = "autolaunch.engine"

BARE = frozenset(
    (
        "d", "detach", "i", "interactive", "t", "tty", "rm", "init", "privileged", "read-only", "P", "publish-all",
        "no-healthcheck", "oom-kill-disable", "sig-proxy", "disable-content-trust", "q", "quiet", "use-api-socket",
        "help", "replace", "no-hosts", "no-hostname", "tls-verify", "env-host", "http-proxy", "rmi", "rootfs",
        "read-only-tmpfs", "passwd",
    )
)  # fmt: skip
"""Options of `run` that take no word after them, as `--help` of docker 28 and podman 5 has them; all others do."""

BARE_BEFORE = frozenset(
    ("D", "debug", "tls", "tlsverify", "r", "remote", "syslog", "transient-store", "insecure-registry")
)
"""Options of the client itself, before `run`, that take no word after them."""

ELSEWHERE = frozenset(["H", "host", "c", "context", "connection", "url", "r", "remote", "a", "address"])
"""Options of the client that name another daemon than this host's."""

LONG = {"e": "env", "v": "volume", "p": "publish", "l": "label", "d": "detach", "t": "tty", "net": "network"}


@dataclass(frozen=True, slots=True)
class Container:
    """A command in its parts: `client` and `verb` call the runtime's `run`, `rest` is all that the user wrote behind.

    `options` are the pairs of long name and value before the `image`, `arguments` what stands behind it. `in_files` are
    the lines of its `--env-file`s, where somebody has read them.
    """

    client: tuple[str, ...]
    verb: tuple[str, ...]
    rest: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    image: str
    arguments: tuple[str, ...]
    in_files: tuple[str, ...] = ()

    def values(self, *names: str) -> tuple[str, ...]:
        """Return the values of options by their long names, in order."""
        return tuple(value for name, value in self.options if name in names)

    def with_options(self, more: Iterable[str]) -> tuple[str, ...]:
        """Return the command with more options in front of the user's."""
        return (*self.client, *self.verb, *more, *self.rest)

    @property
    def version(self) -> str | None:
        """The release of vLLM that the image's tag names; None for `latest` and for images not called vllm."""
        repository, _, tag = self.image.partition("@")[0].rpartition(":")
        found = re.match(r"v?(\d+\.\d+(?:\.\d+)*(?:\.post\d+)?(?:rc\d+)?)(?=$|[-_+])", tag)
        return found[1] if found and "vllm" in repository.lower() else None

    @property
    def is_cpu(self) -> bool:
        """Whether the image's name says that its vLLM is built for processors."""
        return re.search(r"(?<![a-z])cpu(?![a-z])", self.image.rpartition("/")[2].lower()) is not None

    @property
    def serves(self) -> bool:
        """Whether its words end in `vllm serve`, which takes the model as a word."""
        return "serve" in (*self.arguments, *" ".join(self.values("entrypoint")).split())

    def set_variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that the command gives the container; `-e` beats a file, `-e NAME` has our value."""
        lines = (line.lstrip() for line in self.in_files)
        given = (*(line for line in lines if line and not line.startswith("#")), *self.values("env"))
        pairs = (word.partition("=") for word in given)
        return {name: value if equals else environment.get(name, "") for name, equals, value in pairs}

    def is_remote(self, environment: Mapping[str, str]) -> bool:
        """Whether the daemon is, or may be, on another host, where our folders are not."""
        host = environment.get("CONTAINER_HOST" if self.runtime == "podman" else "DOCKER_HOST") or "unix://"
        context = (self.runtime == "docker" and environment.get("DOCKER_CONTEXT")) or "default"
        named = ELSEWHERE & {name for name, _ in _options(self.client[1:], BARE_BEFORE)}
        return bool(named) or not host.startswith("unix://") or context != "default"

    @property
    def runtime(self) -> str:
        """What runs it: docker, podman or nerdctl."""
        return next(_base(word) for word in self.client if _base(word) in RUNTIMES)

    @property
    def destinations(self) -> tuple[str, ...]:
        """The places in the container where something is mounted."""
        volumes = (value.split(":")[1:2] for value in self.values("volume"))
        mounts = (re.findall(r"(?:^|,)(?:target|dst|destination)=([^,]*)", value) for value in self.values("mount"))
        return tuple(place.rstrip("/") or "/" for places in (*volumes, *mounts) for place in places)

    def sees(self, path: str) -> bool:
        """Whether an absolute path lies in a mount."""
        return any(f"{path}/".startswith(place.rstrip("/") + "/") for place in self.destinations)


def container_in(command: Sequence[str]) -> Container | None:
    """Return the parts of a command that runs a container, None for any other."""
    start = next((at for at, word in enumerate(command) if _base(word) in RUNTIMES), None)
    if start is None or (start and _base(command[0]) not in BEFORE):
        return None
    at = _end_of_options(command, start + 1, BARE_BEFORE)
    verb = next((verb for verb in (("run",), ("container", "run")) if tuple(command[at : at + len(verb)]) == verb), ())
    if not verb:
        return None
    begin = at + len(verb)
    image = _end_of_options(command, begin, BARE)
    return Container(
        client=tuple(command[:at]),
        verb=verb,
        rest=tuple(command[begin:]),
        options=tuple(_options(command[begin:image], BARE)),
        image="".join(command[image : image + 1]),
        arguments=tuple(command[image + 1 :]),
    )


def _base(word: str) -> str:
    return word.rpartition("/")[2]


def _end_of_options(words: Sequence[str], at: int, bare: frozenset[str]) -> int:
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        at += 1 + _takes_word(words[at], bare)
    return at + (at < len(words) and words[at] == "--")


def _takes_word(word: str, bare: frozenset[str]) -> bool:
    """Whether an option's value is the next word: neither `--x=1`, nor a flag, nor glued to a letter (`-p80:80`)."""
    if word.startswith("--"):
        return "=" not in word and word[2:] not in bare
    letters = word[1:].lstrip("".join(name for name in bare if len(name) == 1))
    return len(letters) == 1


def _options(words: Sequence[str], bare: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield long name and value of each option; a flag's value is "true"."""
    at = 0
    while at < len(words):
        word, takes = words[at], _takes_word(words[at], bare)
        following = words[at + 1] if takes and at + 1 < len(words) else ""
        at += 1 + takes
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            yield LONG.get(name, name), value if equals else following if takes else "true"
            continue
        letters = word[1:]
        while letters[:1] in bare and letters:
            yield LONG.get(letters[0], letters[0]), "true"
            letters = letters[1:]
        if letters:
            yield LONG.get(letters[0], letters[0]), letters[1:].removeprefix("=") or following


# --- what cannot work


def refuse_unwatchable(container: Container) -> None:
    """Raise `WishError` for options with which an engine could not be watched, or would not stay ended."""
    flags = {name for name, value in container.options if value.lower() not in ("false", "0")}
    if not container.image:
        raise WishError("the command of --engine runs a container and names no image", hint="end it with the image")
    if "detach" in flags:
        raise WishError(
            "--engine runs its container with --detach: its output and its end could not be seen",
            hint="leave out -d: autolaunch itself may run in the background",
        )
    if "tty" in flags:
        raise WishError(
            "--engine asks for a terminal (--tty), and an engine has none", hint="leave out -t, also of -it"
        )
    restart = "".join(container.values("restart")[-1:])
    if restart not in ("", "no"):
        raise WishError(
            f"--engine runs its container with --restart {restart}: two would start it again, one with old settings",
            hint="leave out --restart: autolaunch starts an engine that crashed again",
        )
