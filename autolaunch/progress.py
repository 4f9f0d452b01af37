"""What the engine's lines say of its progress: phases, readiness, shutdown, and what is never a cause.

Owns the texts of a healthy start and of a death's aftermath, and the triggers that make a line worth a look.
Must not name causes. Texts are compared in lower case, triggers as they are printed.
"""

from __future__ import annotations

from autolaunch.causes import any_of
from autolaunch.failure import Phase

WRAPPERS = any_of(
    # never the cause, whatever else the line says
    "engine core initialization failed | workerproc initialization failed | enginecore failed to start"
    " | enginedeaderror | engine process failed to start | background loop has errored | is already dead"
    " | background task has terminated | background task failed | engine loop is not running | rayactorerror"
    " | actordiederror | the actor died | workerproc failed to start | workerproc hit an exception"
    " | encountered a fatal error | see stack trace | application startup failed | engine core proc"
    " | died unexpectedly | destroy_process_group | resource_tracker | output_handler failed"
    " | error executing method | exception in worker | process enginecore | leaked semaphore"
    " | deadlock in distributed execution | childfailederror | see root cause above | failed to be inspected"
    " | got fatal signal from worker | engine process (pid | enginecore hit an exception"
    " | stack trace above for the root"
)
TELLS_OF_A_CRASH = any_of(
    # wrappers that prove that a start failed: with no cause anywhere this is all the log has
    "engine core initialization failed | workerproc initialization failed | enginecore failed to start"
    " | enginedeaderror | engine process failed to start | workerproc failed to start"
    " | application startup failed | background loop has errored | rayactorerror | actordiederror"
    " | encountered a fatal error | failed to be inspected | got fatal signal from worker | engine process (pid"
    " | stack trace above for the root"
)
ENGINE_DEAD = "enginedeaderror"
DIED = "died unexpectedly"
"""Of the engine core or a worker: the API server's only words where one is killed in service. At a start a wrapper."""

START_IS_OVER = any_of(
    "engine core initialization failed | engine process failed to start | exited with code"
    " | got fatal signal from worker"
)

FATAL_AFTER_READY = any_of(
    # after ready an exception counts only when one of these says that the engine is gone
    "enginedeaderror | background loop has errored | background task failed | engine loop is not running"
    " | encountered a fatal error | died unexpectedly | engine core proc | background task has terminated"
    " | rayactorerror | actordiederror | segmentation fault | core dumped | is already dead | engine process (pid"
    " | enginecore hit an exception | got fatal signal from worker"
)

SHUTDOWN = any_of(
    "trigger received signal | api server: shutdown triggered | shutting down | received signal | sigterm"
    " | sigint | keyboardinterrupt | enginecore.shutdown() | gracefully stopping | application shutdown complete"
)

READY = any_of("application startup complete | uvicorn running on")
LISTENING = any_of("uvicorn running on | http/1.1")
NOT_LISTENING = "error while attempting to bind"

PHASES: tuple[tuple[Phase, tuple[str, ...]], ...] = tuple(
    # furthest first; a line belongs to the first phase that has a text in it. V0 and V1, 0.2 to 0.32
    (phase, any_of(texts))
    for phase, texts in (
        (
            Phase.SERVING,
            'application startup complete | uvicorn running on | avg prompt throughput | http/1.1" 200 ok'
            " | processed prompts: 100% | received request  | added request ",
        ),
        (
            Phase.WARMUP,
            "graph capturing finished | init engine (profile | starting vllm server on | starting vllm api server",
        ),
        (Phase.GRAPHS, "capturing cuda graph | capturing cudagraph | capturing the model for cuda graphs"),
        (
            Phase.KV_CACHE,
            "available kv cache memory | kv cache size: | gpu blocks:  | cuda blocks:  | cpu blocks: "
            " | maximum concurrency for | auto-fit max_model_len | reserved for kv cache is"
            " | memory for kv cache as specified | gib for kv cache on node",
        ),
        (
            Phase.PROFILE,
            "model loading took | model weights took | dynamo bytecode transform | torch.compile takes"
            " | torch.compile took | initial profiling/warmup run | profiling cuda graph memory"
            " | memory profiling takes | encoder cache will be initialized | estimated cuda graph memory",
        ),
        (
            Phase.LOAD,
            "starting to load model | loading safetensors checkpoint | loading pt checkpoint | loading weights took"
            " | loading model weights | failed to load model - not enough | loading weights with"
            " | time spent downloading weights | using model weights format",
        ),
        (Phase.INIT, "llm engine (v | initializing an llm engine | distributed_init_method="),
        (
            Phase.CONFIG,
            "non-default args | resolved architecture | using max model len | args: namespace | multiple tasks"
            " | chunked prefill is enabled | vllm api server version",
        ),
    )
)

CONFIG_FRAMES = frozenset(
    any_of(
        "create_engine_config | create_model_config | __post_init__ | _verify_args | from_cli_args | parse_args"
        " | validate_parsed_serve_args | create_speculative_config | verify_with_parallel_config"
        " | _verify_quantization | _get_and_verify_max_len | get_and_verify_max_len | check_and_update_config"
        " | validate_python"
    )
)
"""Frames between which a refusal concerns the arguments."""

RUNNING_FRAMES = frozenset(any_of("execute_model | forward | _call_impl | _dummy_run | generate | _run_engine"))
"""Frames of a model that runs: what is raised below them is no refusal of arguments."""

LOOP_FRAMES = frozenset(any_of("run_busy_loop | run_engine_loop"))
"""Frames of the engine's own loop: it does not outlive an exception that comes up through them."""

TRIGGERS = any_of(
    "rror | ERROR | xception | emory | MEMORY | File | Traceback | iB | size: | took | oading"
    " | apturing | nitializ | tart | Uvicorn | blocks | ersion  | odel len | rchitecture | args | led | hut"
    " | fault | gated | estricted | oncurrency | ignal | SIG | bad_alloc | xit | died | fatal"
    " | ninja | collective_rpc | _run_workers | warm_up"
    " | eights format | apability | umped | Watchdog | nterrupt | init_method | uto-fit | max_num | \0 | \x1b"
)
"""A line without any of these is never looked at."""

DULL = ('" 200 OK', " throughput: ", " Received request ", " Added request ")
"""Nor is a line with one of these, which a busy server prints all day."""
