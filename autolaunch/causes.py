"""What vLLM's lines mean: the table of texts per kind, as data.

Owns every text that names a cause, a phase, a wrapper or a new start, each with the versions it is known
from. Must not hold the algorithm: which of several causes wins is decided in `diagnose`. Texts are compared
in lower case against a line without its log prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from autolaunch.failure import Kind, Phase


class Weight(IntEnum):
    """How sure a text is; a heavier one displaces a lighter one, among equals the first stands."""

    WRAPPER = 0  # says that something failed, not what
    STRAY = 1  # an exception that may have been caught: hub retries, optional imports
    ROOT = 2  # names a cause; conclusive once the engine is gone
    DECISIVE = 3  # names a cause that nothing survives: worth reacting to at once


@dataclass(frozen=True, slots=True)
class Rule:
    """One family of texts: any of `texts` in the line, and `also` if given, and none of `never`."""

    kind: Kind
    texts: tuple[str, ...]
    weight: Weight = Weight.ROOT
    also: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None

    def matches(self, low: str) -> bool:
        """Whether the line, in lower case and without its prefix, is of this family."""
        if not any(text in low for text in self.texts):
            return False
        if self.also and not any(text in low for text in self.also):
            return False
        if self.never and any(text in low for text in self.never):
            return False
        return self.pattern is None or self.pattern.search(low) is not None


_D = Weight.DECISIVE

MEMORY_RULES: tuple[Rule, ...] = (
    # --- host memory: before the GPU's texts, several of which it contains
    Rule(Kind.HOST_OOM, ("node running low on memory",), _D),  # ray's memory monitor, vLLM 0.2 to now
    Rule(
        Kind.HOST_OOM,
        ("oom-kill", "out of memory: killed", "oomkilled", "oom killer", "cgroup out of memory"),
        _D,  # kernel, kubelet, docker
    ),
    Rule(Kind.HOST_OOM, ("defaultcpuallocator",), _D, also=("allocate", "enough memory")),  # torch, all
    Rule(Kind.HOST_OOM, ("cannot allocate memory", "std::bad_alloc"), _D),  # ENOMEM
    Rule(Kind.HOST_OOM, ("unable to allocate",), _D, also=("array with shape", "arraymemoryerror")),  # numpy
    Rule(Kind.HOST_OOM, ("too large swap space",), _D),  # V0: the swap space is host memory
    Rule(Kind.HOST_OOM, ("memoryerror",), pattern=re.compile(r"^memoryerror\b")),
    Rule(
        Kind.HOST_OOM,
        (
            "exit code: -9",
            "exit code -9",
            "exitcode: -9",
            "exited with code 137",
            "exit code 137",
            "exit code: 137",
        ),
    ),
    Rule(Kind.HOST_OOM, ("killed",), pattern=re.compile(r"^(?:\S+: line \d+: +)?(?:\d+ +)?killed(?: |$)")),
    # --- texts that name their phase themselves
    Rule(
        Kind.FREE_MEMORY_LOW, ("less than desired gpu memory", "less than desired cpu memory"), _D
    ),  # 0.8.3+
    Rule(Kind.FREE_MEMORY_LOW, ("less than the engine's budget",), _D),  # external weights, 0.3x
    Rule(Kind.KV_TOO_SMALL, ("to serve at least one request with the model",), _D),  # V1, all
    Rule(Kind.KV_TOO_SMALL, ("kv cache is needed, which is larger than",), _D),  # V1, all; wrapped lines
    Rule(Kind.KV_TOO_SMALL, ("maximum number of tokens that can be stored in",), _D),  # V0 0.2 to 0.10
    Rule(Kind.KV_NONE, ("no available memory for the cache blocks",), _D),  # V0 0.2.6+, V1, all
    Rule(Kind.KV_NONE, ("cannot auto-fit max_model_len",), _D),  # 0.12+
    Rule(Kind.KV_NONE, ("on kv cache allocation is less than",), _D),  # CPU, 0.2x+
    Rule(Kind.SEQS_TOO_MANY, ("mamba cache blocks",), _D, also=("exceeds",)),  # hybrid models, 0.14+
    Rule(Kind.PROFILING_RACE, ("error in memory profiling",), _D),  # 0.6.5+
    Rule(
        Kind.SAMPLER_OOM, ("occurred when warming up sampler", "occurred when warming up pooler"), _D
    ),  # 0.8.5+
    Rule(Kind.WEIGHTS_OOM, ("failed to load model - not enough gpu memory",), _D),  # 0.10+
    # --- an allocation failed somewhere: frames and phase say where
    Rule(
        Kind.OOM,
        (
            "cuda out of memory",
            "hip out of memory",
            "xpu out of memory",
            "npu out of memory",
            "cuda error: out of memory",
            "hip error: out of memory",
            "driver error: out of memory",
            "cudaerrormemoryallocation",
            "cuda_error_out_of_memory",
            "hiperroroutofmemory",
            "cublas_status_alloc_failed",
            "hipblas_status_alloc_failed",
            "cudnn_status_alloc_failed",
            "out_of_device_memory",
            "nv_err_no_memory",
            "'out of memory'",
        ),
        _D,
    ),  # fmt: skip
    Rule(
        Kind.OOM, ("outofmemoryerror",), _D, pattern=re.compile(r"outofmemoryerror\b(?!['\"]?\s*(?:as|\)|,))")
    ),
    Rule(Kind.OOM, ("out of memory",), _D, pattern=re.compile(r"^[\w.]{0,80}error: .{0,200}out of memory")),
    Rule(Kind.OOM, ("resource_exhausted",), _D, also=("memory", "hbm")),  # XLA
)

ARGUMENT_RULES: tuple[Rule, ...] = (
    Rule(
        Kind.CONFIG_ERROR, ("error: ",), _D, pattern=re.compile(r"^[\w.-]{1,40}(?: \w{1,20})?: error: ")
    ),  # argparse
    Rule(Kind.CONFIG_ERROR, ("unrecognized arguments", "invalid choice:"), _D),
    Rule(Kind.CONFIG_ERROR, ("greater than the derived max_model_len", "does not support long context"), _D),
    Rule(Kind.CONFIG_ERROR, ("is smaller than max_model_len", "is smaller than max_num_seqs"), _D),
    Rule(Kind.CONFIG_ERROR, ("must be greater than or equal to max_",), also=("max_num_batched_tokens",)),
    Rule(
        Kind.CONFIG_ERROR,
        ("divisible by", "not a multiple of", "divided evenly"),
        also=(
            "tensor",
            "head",
            "tp",
            "parallel",
            "block",
            "group",
            "vocab",
            "hidden",
            "size",
            "num_",
            "partition",
        ),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        ("trust_remote_code", "trust-remote-code"),
        also=("set ", "execute", "option", "requires"),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        ("model architectures ", "model architecture "),
        also=("not supported", "not support", "no vllm implementation", "has no"),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        (
            "does not recognize this architecture",
            "unrecognized model in",
            "unknown quantization method",
            "does not match the quantization method",
            "unsupported quantization",
            "invalid quantization method",
            "cannot find the config file for",
            "quantization config",
            "is not supported for quantization method",
        ),
        never=("current gpu", "compute capability"),
    ),  # fmt: skip
    Rule(
        Kind.CONFIG_ERROR,
        ("chat template", "chat_template"),
        also=("not", "must", "required"),
        never=("format",),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        ("block size", "block_size", "head size", "head_size", "head dimension"),
        also=("not supported", "unsupported", "must be", "invalid", "only supports", "not support"),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        ("rope_scaling", "max_lora_rank", "lora rank", "kv_cache_dtype", "kv-cache-dtype"),
        also=(
            "must",
            "unsupported",
            "unrecognized",
            "greater",
            "not supported",
            "requires",
            "unknown",
            "failed to get",
        ),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        (
            "is not supported with",
            "is not supported by",
            "cannot be used with",
            "not compatible with",
            "is incompatible with",
            "are not supported with",
            "not supported in v1",
            "not supported on v1",
            "is not valid for this configuration",
            "is only supported with",
            "mutually exclusive",
            "is not supported when",
            "cannot be specified",
            "requires --",
            "is not supported yet",
            "is not yet supported",
            "not currently supported",
            "does not support lora",
            "does not support speculative",
            "currently not supported",
            "does not support ",
        ),
        pattern=re.compile(
            r"^(?:\w+\.)?(?:value|notimplemented|assertion|runtime|type|validation)\w{0,30}error?\b"
        ),
        never=(
            "gpu",
            "cuda",
            "compute capability",
            "device",
            "hardware",
            "sm_",
            "sm1",
            "dynamo",
            "triton",
            "rocm",
            "cpu",
        ),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        ("value error, ", "validation error for ", "validation errors for "),
        _D,
        never=("world size",),
    ),
    Rule(Kind.CONFIG_ERROR, ("assertion failed, ",), also=("type=assertion_error",)),
    Rule(Kind.CONFIG_ERROR, ("input should be ",), also=("type=",)),
    Rule(
        Kind.CONFIG_ERROR,
        ("invalid tool call parser", "reasoning parser", "tool parser"),
        also=("invalid", "not found"),
    ),
    Rule(
        Kind.CONFIG_ERROR,
        ("got an unexpected keyword argument",),
        also=("engineargs", "config.__init__", "asyncengine"),
    ),
    Rule(Kind.CONFIG_ERROR, ("invalid attention backend", "unknown attention backend", "invalid value")),
)

HARDWARE_RULES: tuple[Rule, ...] = (
    Rule(
        Kind.HARDWARE_UNSUPPORTED,
        (
            "no kernel image is available",
            "not supported for the current gpu",
            "is not supported for ', 'the current",
            "the current gpu. min capability",
            "minimum capability",
            "min capability:",
            "bfloat16 is only supported on gpus",
            "driver on your system is too old",
            "driver version is insufficient",
            "found no nvidia driver",
            "no cuda gpus are available",
            "no hip gpus are available",
            "no xpu devices are available",
            "failed to infer device type",
            "torch not compiled with cuda enabled",
            "too old to be supported by the triton",
            "unsupported toolchain",
            "forward compatibility was attempted",
            "unsupported display driver",
            "system not yet initialized",
            "cuda unknown error",
            "is not compatible with the current pytorch",
            "only supports ampere",
            "requires ampere",
            "invalid device function",
            "libcuda.so",
            "libcuda not found",
            "nvml shared library not found",
            "nvmlerror",
            "no cuda-capable device",
            "unsupported gpu",
            "not supported in this architecture",
            "only supported on cuda devices with",
            "unsupported hardware",
            "cpu does not support",
            "requires avx",
            "does not support avx",
            "no compatible gpu",
            "cannot find any gpu",
            "no gpu is found",
            "no accelerator",
            "unsupported device type",
            "is not supported on this device",
            "is not supported on this gpu",
            "not supported on the current",
            "sm_121a' is not defined",
            "' is not defined for option 'gpu-name'",
            "to use cuda with multiprocessing",
        ),
        never=("to use cuda with multiprocessing",),
    ),  # fmt: skip
    Rule(
        Kind.HARDWARE_UNSUPPORTED,
        (
            "compute capability",
            "device capability",
            "cuda capability",
            "gpu capability",
            "sm_",
            "sm1",
            "sm9",
            "sm8",
        ),
        also=(
            "at least",
            "only supported",
            "requires",
            "require ",
            "below",
            "less than",
            "not supported",
            "unsupported",
            "not support",
            "too low",
            "minimum",
            "or higher",
            "or newer",
            "need ",
            "only support",
            "must be",
            "no valid attention backend",
            "does not have",
        ),
    ),  # fmt: skip
    Rule(
        Kind.HARDWARE_UNSUPPORTED,
        ("hopper", "blackwell", "ampere", "turing", "volta", "gfx"),
        also=("only", "requires", "not supported", "unsupported", "or newer"),
        pattern=re.compile(r"^[\w.]{0,80}(?:error|exception)\b"),
    ),
)

MODEL_RULES: tuple[Rule, ...] = (
    Rule(
        Kind.MODEL_NOT_FOUND,
        (
            "is not a local folder and is not a valid model",
            "not a valid model identifier",
            "repositorynotfounderror",
            "gatedrepoerror",
            "gated repo",
            "is restricted. you must",
            "is restricted and you are not",
            "localentrynotfounderror",
            "entrynotfounderror",
            "revisionnotfounderror",
            "couldn't connect to",
            "couldn’t connect to",
            "can't load the configuration of",
            "can't load tokenizer for",
            "can't load the model for",
            "unable to load vocabulary from file",
            "does not appear to have a file named",
            "invalid repository id or local directory",
            "repo id must",
            "repo_id must",
            "hfvalidationerror",
            "cannot find any model weights",
            "no safetensors",
            "offlinemodeisenabled",
            "offline mode is enabled",
            "outgoing traffic has been disabled",
            "cannot reach https://",
            "failed to reach",
            "is not a valid git identifier",
            "hf_hub_offline",
            "transformers_offline",
            "localtokennotfounderror",
            "invalid user token",
            "invalid credentials in authorization header",
            "model not found",
            "model does not exist",
            "model path does not exist",
            "no such model",
            "no model weights found",
            "could not find any model weights",
            "the request model: ",
            "could not locate",
            "please check the model id",
            "error no file named",
        ),
        never=("lora", "adapter", "could not locate cudnn", "could not locate cuda"),
    ),  # fmt: skip
    Rule(
        Kind.MODEL_NOT_FOUND,
        (
            "401 client error",
            "403 client error",
            "404 client error",
            "repository not found",
            "unauthorized for url",
            "client error '401",
            "client error '403",
            "client error '404",
        ),
        also=("huggingface", "hf-mirror", "modelscope", "/resolve/", "/api/models", "http"),
    ),  # fmt: skip
    Rule(
        Kind.MODEL_NOT_FOUND,
        (
            "max retries exceeded with url",
            "name resolution",
            "name or service not known",
            "connecterror",
            "connection refused",
            "network is unreachable",
            "connection error",
            "connecttimeout",
            "readtimeout",
        ),
        also=(
            "huggingface",
            "hf.co",
            "hf-mirror",
            "modelscope",
            "/resolve/",
            "httpsconnectionpool",
            "httpx.",
            "httpcore.",
        ),
    ),  # fmt: skip
    Rule(
        Kind.MODEL_NOT_FOUND,
        ("no such file or directory", "filenotfounderror", "notadirectoryerror"),
        also=(
            ".safetensors",
            "config.json",
            "tokenizer",
            ".gguf",
            "/models/",
            "model.",
            "pytorch_model",
            "/model'",
        ),
        never=(
            ".so",
            "cuda",
            "nvcc",
            "ninja",
            "triton",
            "template",
            ".jinja",
            "gcc",
            ".cpp",
            "inductor",
            "cache/vllm",
        ),
    ),
)

COMPILE_RULES: tuple[Rule, ...] = (
    Rule(
        Kind.COMPILE_ERROR,
        (
            "inductorerror",
            "backendcompilerfailed",
            "failed to find c compiler",
            "fatal error: python.h",
            "cppcompileerror",
            "could not find nvcc",
            "nvcc fatal",
            "ninja: build stopped",
            "ninja exited",
            "ninja -v",
            "directory: 'ninja'",
            "directory: 'nvcc'",
            "triton.compiler.errors",
            "compilationerror",
            "ptxas",
            "cuda_home environment variable is not set",
            "error building extension",
            "loweringexception",
            "passmanager::run failed",
            "pipeline failed while executing",
            "torch._dynamo.exc",
            "torch._inductor.exc",
            "internaltorchdynamoerror",
            "torchruntimeerror",
            "nvrtc",
            "outofresources",
            "out of resource: shared memory",
            "llvm error",
            "cc1plus",
            "nvcc compilation failed",
            "failed to compile",
            "compilation failed",
            "cannot find -lcuda",
            "cannot find -lcudart",
            "could not find compiler",
            "jit compilation failed",
            "/bin/nvcc'",
            "/usr/bin/gcc'",
            "/bin/gcc'",
            "g++'",
            "tvm_ffi",
            "ninja'",
            "nvcc not found",
            "no nvcc",
            "torch.utils.cpp_extension",
            "assertion nvcc",
            "guard_on_data_dependent",
            "constraintviolationerror",
        ),
        pattern=re.compile(
            r"error|exception|failed|fatal|failure|outofresources|not find|not found|cannot find|violation"
        ),
    ),  # fmt: skip
)

DISTRIBUTED_RULES: tuple[Rule, ...] = (
    Rule(
        Kind.DISTRIBUTED_ERROR,
        (
            "nccl error",
            "nccl failure",
            "rccl error",
            "ncclinvalidusage",
            "ncclsystemerror",
            "ncclunhandledcudaerror",
            "ncclinternalerror",
            "ncclremoteerror",
            "ncclinvalidargument",
            "distbackenderror",
            "distnetworkerror",
            "diststoreerror",
            "connectfullmesh failed",
            "clients joined",
            "client socket has timed out",
            "client socket has failed to connect",
            "wait timeout",
            "ccl_error",
            "oneccl",
            "world size (",
            "required gpus exceeds",
            "invalid device ordinal",
            "current node has no gpu available",
            "no available node types can fulfill",
            "current placement group",
            "collective operation timeout",
            "watchdog caught",
            "gloo/transport",
            "enforce fail at ",
            "process group",
            "init_process_group",
            "tcpstore",
            "raysystemerror",
            "raytaskerror",
            "rayerror",
            "ray cluster",
            "placement group",
            "custom_all_reduce.cuh",
            "hccl",
            "nvshmem",
            "ncclcomminitrank",
            "failed to connect to ray",
            "could not connect to ray",
            "ray version mismatch",
            "worldsize",
            "error while creating shared memory segment /dev/shm/nccl",
            "peer access",
            "rendezvous",
            "number of gpus",
            "number of available gpus",
            "larger than the number of available",
            "gcs server",
        ),
        never=("destroy_process_group", "[w", "warning:", "using nccl"),
        pattern=re.compile(
            r"error|exception|fail|time[d]? ?out|exceeds|larger|mismatch|no gpu|invalid|refused|watchdog"
        ),
    ),  # fmt: skip
)

CRASH_RULES: tuple[Rule, ...] = (
    Rule(
        Kind.OTHER_CRASH,
        (
            "illegal memory access",
            "device-side assert",
            "segmentation fault",
            "illegal instruction",
            "unspecified launch failure",
            "misaligned address",
            "bus error",
            "core dumped",
            "sigsegv",
            "sigabrt",
            "exit code 136",
            "exit code 139",
            "exit code 134",
            "exit code 132",
            "cannot open shared object file",
            "undefined symbol",
            "insufficient shared memory (shm)",
            "no space left on device",
            "disk quota exceeded",
            "no module named",
            "floating point exception",
            "uncorrectable ecc",
            "gpu is lost",
            "has fallen off the bus",
        ),
    ),  # fmt: skip
)

RULES: tuple[Rule, ...] = (
    *MEMORY_RULES,
    Rule(Kind.PORT_IN_USE, ("address already in use", "eaddrinuse"), _D),
    *HARDWARE_RULES,
    *COMPILE_RULES,
    *MODEL_RULES,
    *DISTRIBUTED_RULES,
    *ARGUMENT_RULES,
    *CRASH_RULES,
)

WRAPPERS: tuple[str, ...] = (
    # never the cause, whatever else the line says
    "engine core initialization failed", "workerproc initialization failed", "enginecore failed to start",
    "enginedeaderror", "asyncenginedeaderror", "engine process failed to start", "background loop has errored",
    "background task has terminated", "background task failed", "engine loop is not running", "rayactorerror",
    "actordiederror", "the actor died", "workerproc failed to start", "workerproc hit an exception",
    "encountered a fatal error", "encountered an issue. see stack trace", "application startup failed",
    "engine core proc", "died unexpectedly", "destroy_process_group", "resource_tracker", "output_handler failed",
    "error executing method", "exception in worker", "process enginecore", "leaked semaphore", "mqengineclient",
    "deadlock in distributed execution", "childfailederror", "worker failed with error none",
)  # fmt: skip
TELLS_OF_A_CRASH: tuple[str, ...] = (
    # wrappers that prove that a start failed: with no cause anywhere this is all the log has
    "engine core initialization failed", "workerproc initialization failed", "enginecore failed to start",
    "enginedeaderror", "engine process failed to start", "workerproc failed to start", "application startup failed",
    "background loop has errored", "rayactorerror", "actordiederror", "encountered a fatal error",
)  # fmt: skip
FATAL_AFTER_READY: tuple[str, ...] = (
    # after ready an exception counts only when one of these says that the engine is gone
    "enginedeaderror", "asyncenginedeaderror", "background loop has errored", "background task failed",
    "engine loop is not running", "encountered a fatal error", "died unexpectedly", "engine core proc",
    "background task has terminated", "rayactorerror", "actordiederror", "segmentation fault", "core dumped",
)  # fmt: skip

SHUTDOWN: tuple[str, ...] = (
    "[shutdown] enginecore: trigger received signal", "[shutdown] api server: shutdown triggered",
    "info:     shutting down", "received signal", "sigterm", "sigint", "keyboardinterrupt", "enginecore.shutdown()",
    "gracefully stopping", "application shutdown complete",
)  # fmt: skip

PHASES: tuple[tuple[Phase, tuple[str, ...]], ...] = (
    # furthest first; a line belongs to the first phase that has a text in it
    (Phase.SERVING, ("application startup complete", "uvicorn running on", "avg prompt throughput")),
    (
        Phase.WARMUP,
        ("graph capturing finished", "init engine (profile", "starting vllm server on", "starting vllm api server"),
    ),
    (Phase.GRAPHS, ("capturing cuda graph", "capturing cudagraph", "capturing the model for cuda graphs")),
    (
        Phase.KV_CACHE,
        (
            "available kv cache memory", "kv cache size:", "# gpu blocks", "# cuda blocks", "maximum concurrency for",
            "auto-fit max_model_len", "reserved for kv cache is", "memory for kv cache as specified",
            "gib for kv cache on node",
        ),
    ),
    (
        Phase.PROFILE,
        (
            "model loading took", "model weights took", "dynamo bytecode transform", "torch.compile takes",
            "torch.compile took", "initial profiling/warmup run", "profiling cuda graph memory", "memory profiling takes",
            "encoder cache will be initialized", "estimated cuda graph memory",
        ),
    ),
    (
        Phase.LOAD,
        (
            "starting to load model", "loading safetensors checkpoint", "loading pt checkpoint",
            "loading weights took", "loading model weights", "failed to load model - not enough", "loading weights with",
            "time spent downloading weights",
        ),
    ),
    (
        Phase.INIT,
        ("llm engine (v", "initializing an llm engine", "distributed_init_method=", "is assigned as dp rank", "using flash"),
    ),
    (
        Phase.CONFIG,
        (
            "non-default args", "resolved architecture", "using max model len", "args: namespace", "multiple tasks",
            "chunked prefill is enabled", "vllm api server version",
        ),
    ),
)  # fmt: skip

READY = ("application startup complete", "uvicorn running on")

KIND_PHASE = {
    Kind.FREE_MEMORY_LOW: Phase.INIT,
    Kind.WEIGHTS_OOM: Phase.LOAD,
    Kind.PROFILE_OOM: Phase.PROFILE,
    Kind.PROFILING_RACE: Phase.PROFILE,
    Kind.KV_NONE: Phase.KV_CACHE,
    Kind.KV_TOO_SMALL: Phase.KV_CACHE,
    Kind.SEQS_TOO_MANY: Phase.KV_CACHE,
    Kind.KV_ALLOC_OOM: Phase.KV_CACHE,
    Kind.GRAPH_OOM: Phase.GRAPHS,
    Kind.SAMPLER_OOM: Phase.WARMUP,
    Kind.RUNTIME_OOM: Phase.SERVING,
}
"""The least phase a start has come to when it fails with this kind."""

OOM_OF_PHASE = {
    Phase.LOAD: Kind.WEIGHTS_OOM,
    Phase.PROFILE: Kind.PROFILE_OOM,
    Phase.KV_CACHE: Kind.KV_ALLOC_OOM,
    Phase.GRAPHS: Kind.GRAPH_OOM,
    Phase.WARMUP: Kind.GRAPH_OOM,
    Phase.SERVING: Kind.RUNTIME_OOM,
}
"""What an allocation failure without frames is, by the phase reached; earlier phases tell nothing."""

FRAMES: dict[str, Kind] = {
    **dict.fromkeys(
        ("load_model", "create_weights", "process_weights_after_loading", "load_weights", "initialize_model",
         "_initialize_model", "get_model", "weight_loader", "init_model", "create_lora_manager", "_load_model"),
        Kind.WEIGHTS_OOM,
    ),
    **dict.fromkeys(
        ("profile_run", "determine_available_memory", "determine_num_available_blocks", "profile_num_available_blocks",
         "profile_cudagraph_memory", "profile_memory", "_profile_run", "determine_available_memory_for_kv"),
        Kind.PROFILE_OOM,
    ),
    **dict.fromkeys(
        ("_allocate_kv_cache", "_allocate_kv_cache_tensors", "allocate_kv_cache", "initialize_kv_cache",
         "initialize_kv_cache_tensors", "initialize_from_config", "_init_cache_engine", "init_cache_engine",
         "initialize_cache", "_initialize_kv_cache_tensors", "allocate_gpu_cache", "allocate_cpu_cache",
         "_reshape_kv_cache_tensors", "init_kv_cache", "allocate_uniform_kv_caches", "_allocate_kv_caches"),
        Kind.KV_ALLOC_OOM,
    ),
    **dict.fromkeys(
        ("capture_model", "capture_graph", "capture_graphs", "_capture_cudagraphs", "_warmup_and_capture",
         "compile_or_warm_up_model", "warm_up_model", "_warm_up_model", "kernel_warmup", "graph_capture",
         "capture_begin", "_capture_aclgraphs", "capture_cudagraphs"),
        Kind.GRAPH_OOM,
    ),
    **dict.fromkeys(("_dummy_sampler_run", "_dummy_pooler_run"), Kind.SAMPLER_OOM),
    **dict.fromkeys(
        ("run_busy_loop", "_process_engine_step", "run_engine_loop", "engine_step", "execute_dummy_batch",
         "_run_engine", "step_with_batch_queue", "wake_up"),
        Kind.RUNTIME_OOM,
    ),
}  # fmt: skip
"""The function names in a traceback that say where an allocation failed."""

CONFIG_FRAMES = frozenset(
    {"create_engine_config", "create_model_config", "__post_init__", "_verify_args", "from_cli_args", "parse_args",
     "validate_parsed_serve_args", "create_speculative_config", "verify_with_parallel_config", "_verify_quantization",
     "_get_and_verify_max_len", "get_and_verify_max_len", "check_and_update_config", "validate_python"}
)  # fmt: skip
"""Frames between which a refusal concerns the arguments."""

TRIGGERS: tuple[str, ...] = (
    "rror", "emory", "MEMORY", "xception", "Traceback", 'File "', "GiB", "cache size", "took", "oading", "apturing",
    "nitializ", "tartup", "Uvicorn", " blocks", "version ", "max model len", "max_model_len", "rchitecture", "args",
    "illed", "hutdown", "Shutting down", "ailed", "fault", "gated", "estricted", "SIG", "ignal", "exit", "LLM engine",
    "distributed_init_method", "Auto-fit", "oncurrency", "not ", "max seq len", "EngineDead", "EngineCore", "blocks:",
    "Watchdog", "Killed", "core dumped", "Starting", "starting", "max_num_", "throughput", "_model", "_ERROR", "OOM",
    "_ALLOC_", "OutOfResources", "\0", "\x1b",
)  # fmt: skip
"""A line without any of these is never looked at."""
