"""What processes may do besides printing and ending: the closed list of behaviours, each a small Record.

In JSON a behaviour is its name, or one pair of its name and its parameters; a plain value stands for the
first parameter:  "ignore_sigterm"   {"slow_health_s": 2}   {"spam": {"bytes": 1000000, "phase": "serving"}}
A `phase` is where in the start it happens; "serving" is right after readiness.

Must not act: `processes`, `noise`, `life` and `server` do.
"""

from __future__ import annotations

from .record import Record, ScenarioError, plain, refuse_unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

PHASES = ("import", "config", "init", "load", "profile", "kv_cache", "graphs", "warmup", "serving")
"""The phases of a start in their order, spelled as in autolaunch.failure.Phase."""

WAYS = ("not_http", "bad_json", "huge_headers", "endless", "drip", "hang_up")
ROUTES = ("health", "metrics", "models", "completions")
"""What a garbled answer may look like, and where."""

BEHAVIOURS: dict[str, type[Behaviour]] = {}


class Behaviour(Record):
    """The root of the behaviours; `phase`, where there is one, is checked here."""

    _name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        BEHAVIOURS[cls._name] = cls

    def check(self) -> None:
        if getattr(self, "phase", "load") not in PHASES:
            raise ScenarioError(f"{self._name}: phase is not one of {', '.join(PHASES)}")

    @classmethod
    def from_json(cls, value: Any, where: str) -> Behaviour:
        """Read a name, or an object of one name and its parameters."""
        name, given = (value, {}) if isinstance(value, str) else _one_pair(value, where)
        refuse_unknown({name: None}, BEHAVIOURS, where)
        kind = BEHAVIOURS[name]
        if given is True:
            given = {}
        if not isinstance(given, dict):
            first = next(iter(kind._fields), None)
            if first is None:
                raise ScenarioError(f"{where}: {name} takes no parameter, found {given!r}")
            given = {first: given}
        refuse_unknown(given, kind._fields, f"{where}.{name}")
        return kind(**given)

    def to_json(self) -> Any:
        """Give the name alone, or the name with what is not at its default."""
        given = {name: plain(value) for name, value in vars(self).items() if value != self._defaults.get(name)}
        return {self._name: given} if given else self._name


def _one_pair(value: Any, where: str) -> tuple[str, Any]:
    if not isinstance(value, dict) or len(value) != 1:
        raise ScenarioError(f"{where}: expected a name or one name with its parameters, found {value!r}")
    ((name, given),) = value.items()
    return str(name), given


class IgnoreSigterm(Behaviour):
    """The leader and every process it starts ignore SIGTERM; with `sigint`, SIGINT too."""

    _name = "ignore_sigterm"
    sigint: bool = False


class Child(Behaviour):
    """An engine core process below the leader, titled VLLM::EngineCore, in the leader's session."""

    _name = "child"


class Worker(Behaviour):
    """`count` workers below the engine core (which it implies), titled VLLM::Worker_TP<n>."""

    _name = "worker"
    count: int = 1


class Together(Behaviour):
    """Leader, core and workers need each other, as vLLM's do: a phase goes on and a completion is answered only after
    each of them did its part. One that is stopped stops all; a core or a worker that dies takes the rest with it,
    with vLLM's words and, in service, its exit status 0. A leader that dies leaves them."""

    _name = "together"


class DoubleFork(Behaviour):
    """A process that left: reparented, in a session of its own, deaf to SIGTERM.

    `clear_env`: its environment is empty, so that no mark in it betrays where it came from.
    `keep_output`: it also keeps the leader's stdout and stderr open.
    """

    _name = "double_fork"
    clear_env: bool = False
    keep_output: bool = False
    phase: str = "import"


class HoldPipe(Behaviour):
    """A grandchild keeps stdout and stderr open after the leader is gone."""

    _name = "hold_pipe"
    setsid: bool = False
    ignore_sigterm: bool = False


class HoldPort(Behaviour):
    """A grandchild keeps the port listening (and never answers) after the leader is gone."""

    _name = "hold_port"
    setsid: bool = False
    ignore_sigterm: bool = False


class HoldMemory(Behaviour):
    """A grandchild in a session of its own, deaf to SIGTERM and without a mark in its environment, keeps `mib` MiB of
    the host's memory and, with the memory model, `gib` GiB of the first card after the leader is gone."""

    _name = "hold_memory"
    mib: int = 16
    gib: float = 0.0


class ReusePort(Behaviour):
    """The port is bound with SO_REUSEPORT, as vLLM does: a second engine's bind succeeds beside the first."""

    _name = "reuse_port"


class Spam(Behaviour):
    """`bytes` of ordinary log lines of `line_length` characters, as fast as the reader takes them."""

    _name = "spam"
    bytes: int = 1_000_000
    line_length: int = 160
    phase: str = "load"


class LongLine(Behaviour):
    """One line of `bytes` bytes."""

    _name = "long_line"
    bytes: int = 1_000_000
    phase: str = "load"


class Garbage(Behaviour):
    """NULs, bad UTF-8, ANSI colours, half a multi-byte character, progress bars with carriage returns."""

    _name = "garbage"
    phase: str = "load"


class SlowHealth(Behaviour):
    """Every /health answer takes `seconds`."""

    _name = "slow_health_s"
    seconds: float = 1.0


class Health503(Behaviour):
    """/health answers 503 for the first `seconds` of serving."""

    _name = "health_503_s"
    seconds: float = 1.0


class Unavailable(Behaviour):
    """/health answers 503 for `seconds`, from the `after`th completion on; with `everywhere` every route does."""

    _name = "unavailable_s"
    seconds: float = 600.0
    after: int = 1
    everywhere: bool = False


class CoreDies(Behaviour):
    """After `requests` completions the engine core dies of the next: EngineDeadError is printed, completions answer
    500 and /health 503. The API server lives on, as with VLLM_KEEP_ALIVE_ON_ENGINE_DEATH, or `exits` with 0."""

    _name = "core_dies"
    requests: int = 1
    exits: bool = False


class NoHealth(Behaviour):
    """The port accepts and no request is ever answered."""

    _name = "no_health"


class CompletionError(Behaviour):
    """Every completion answers `status` with vLLM's error body."""

    _name = "completion_error"
    status: int = 500


class CompletionHangs(Behaviour):
    """A completion is accepted and never answered."""

    _name = "completion_hangs"


class SlowCompletion(Behaviour):
    """A chat completion takes `seconds`; /metrics counts it as running meanwhile. The proof is answered at once."""

    _name = "slow_completion_s"
    seconds: float = 1.0


class StandsStill(Behaviour):
    """After `requests` completions it answers none any more; /health stays 200, the counters of /metrics stand still.

    `busy` shows a request that runs; with `works` the counters go on, as of an engine that has too much to do.
    """

    _name = "stands_still"
    requests: int = 1
    works: bool = False


class Asleep(Behaviour):
    """/is_sleeping says so, as vLLM's does after POST /sleep where VLLM_SERVER_DEV_MODE is set."""

    _name = "asleep"


class Garbled(Behaviour):
    """Answers that are none, on the route `to`, after the first `after` requests there; `way` is one of WAYS."""

    _name = "garbled"
    way: str = "not_http"
    to: str = "completions"
    after: int = 0

    def check(self) -> None:
        super().check()
        if self.way not in WAYS or self.to not in ROUTES:
            raise ScenarioError(f"garbled: {self.way!r} to {self.to!r} is none of {WAYS} to {ROUTES}")


class Pooling(Behaviour):
    """A pooling model: completions answer 404 with vLLM's text, /v1/embeddings works."""

    _name = "pooling"


class ExitBeforeReady(Behaviour):
    """The start ends at `phase` without a word, with `code`."""

    _name = "exit_before_ready"
    code: int = 0
    phase: str = "warmup"


class NoOutputHang(Behaviour):
    """From `phase` on it prints nothing and uses no CPU, for ever."""

    _name = "no_output_hang"
    phase: str = "import"


class BusySilent(Behaviour):
    """From `phase` on it prints nothing and burns CPU; for `seconds` (then it goes on), 0 is for ever."""

    _name = "busy_silent"
    seconds: float = 0.0
    phase: str = "load"


class PrintSecret(Behaviour):
    """The --api-key value stands in the non-default args line, as with vLLM, and HF_TOKEN in another line."""

    _name = "print_secret"


class DieAfterReady(Behaviour):
    """`seconds` after readiness it dies with the text of `kind` ("" is none) and `code`, or by `signal`.

    `recorded`: the seconds count from the supervisor's line `ready` about this start, in `record.jsonl` in the
    scenario's folder. Whoever dies between its readiness and that line has never come up, on a slow machine.
    """

    _name = "die_after_ready_s"
    seconds: float = 0.2
    kind: str = "runtime_oom"
    code: int = 1
    signal: int | None = None
    recorded: bool = False


class AllocateMib(Behaviour):
    """The leader touches and keeps `mib` MiB of memory."""

    _name = "allocate_mib"
    mib: int = 64
    phase: str = "load"
