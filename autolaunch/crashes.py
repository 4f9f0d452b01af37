"""What the engine's lines mean when memory is not the cause: the other half of the table of texts.

Owns the rules for arguments, model files, ports, devices, compilers, communication and crashes. Must not hold
the algorithm. The order is part of the table: the first rule that matches a line names its kind.
"""

from __future__ import annotations

from autolaunch.causes import MEMORY_RULES, Rule, Weight, rule, sure
from autolaunch.failure import Kind

HARDWARE_RULES: tuple[Rule, ...] = (
    rule(
        Kind.HARDWARE_UNSUPPORTED,
        "no kernel image is available | not supported for the current gpu | the current gpu. min capability"
        " | minimum capability | min capability: | bfloat16 is only supported on gpus"  # 0.1 to now
        " | driver on your system is too old | driver too old | driver version is insufficient"
        " | found no nvidia driver | no cuda gpus are available | no hip gpus are available"
        " | no xpu devices are available | no cuda-capable device | failed to infer device type"  # 0.6+
        " | torch not compiled with cuda enabled | too old to be supported by the triton | unsupported toolchain"
        " | forward compatibility was attempted | unsupported display driver | system not yet initialized"
        " | cuda unknown error | is not compatible with the current pytorch | only supports ampere | requires ampere"
        " | invalid device function | libcuda.so | libcuda not found | nvml shared library not found | nvmlerror"
        " | not supported in this architecture | only supported on cuda devices with | unsupported hardware"
        " | cpu does not support | requires avx | does not support avx | no compatible gpu | cannot find any gpu"
        " | no gpu is found | no accelerator | unsupported device type | is not supported on this device"
        " | is not supported on this gpu | not supported on the current | ' is not defined for option 'gpu-name'"
        " | driver initialization failed | could not select device driver | nvidia-container-cli"
        " | no compatible code objects found | hiperrornobinaryforgpu | hiperrorinvalidimage | unsupported gpu"
        " | device kernel image is invalid | no operator found for `memory_efficient | driver is a stub library"
        " | are busy or unavailable | is/are busy or unavailable | requires x86 with",
    ),
    rule(
        Kind.HARDWARE_UNSUPPORTED,
        "compute capability | min_capability | device capability"
        " | cuda capability | gpu capability |  sm_ |  sm1 |  sm9 | (sm",
        also="at least | only supported | requires | require  | below | less than | not supported | unsupported"
        " | not support | too low | minimum | or higher | or newer | need  | only support | must be"
        " | no valid attention backend | does not have",
    ),
    rule(
        Kind.HARDWARE_UNSUPPORTED,
        "hopper | blackwell | ampere | turing | volta | gfx",
        also="only | requires | not supported | unsupported | or newer",
        pattern=r"^[\w.]{0,80}(?:error|exception)\b",
    ),
)

COMPILE_RULES: tuple[Rule, ...] = (
    rule(
        Kind.COMPILE_ERROR,
        "inductorerror | backendcompilerfailed | failed to find c compiler | fatal error: python.h | cppcompileerror"
        " | could not find nvcc | nvcc fatal | ninja: build stopped | ninja build failed | ninja exited | ninja -v"
        " | directory: 'ninja' | directory: 'nvcc' | nvcc: not found | nvcc not found | triton.compiler.errors"
        " | compilationerror | ptxas | cuda_home environment variable is not set | error building extension"
        " | loweringexception | passmanager::run failed | pipeline failed while executing | torch._dynamo.exc"
        " | torch._inductor.exc | internaltorchdynamoerror | torchruntimeerror | nvrtc | outofresources"
        " | out of resource: shared memory | llvm error | cc1plus | nvcc compilation failed | failed to compile"
        " | compilation failed | cannot find -lcuda | cannot find -lcudart | could not find compiler"
        " | /bin/nvcc' | /bin/gcc' | /gcc' | g++' | torch.utils.cpp_extension | assertion nvcc"
        " | guard_on_data_dependent | constraintviolationerror | stddef.h: no such file | ninja is required"
        " | toolkit headers are incompatible | hash of the compiled graph",
        pattern=r"error|exception|fail|fatal|outofresources|not find|not found|cannot find|violation|non-zero"
        r"|incompatible",
    ),
    rule(Kind.COMPILE_ERROR, "no such file or directory", also=".triton/cache | torchinductor"),
)

HUB_IS_AWAY: tuple[Rule, ...] = (
    rule(  # huggingface_hub 1.x of every try, also of one that the next makes good
        Kind.MODEL_NOT_FOUND, "thrown while requesting", weight=Weight.STRAY, also="http"
    ),
    rule(
        Kind.MODEL_NOT_FOUND,
        "couldn't connect to | couldn’t connect to | cannot reach https://"
        " | error happened while trying to locate the file | please check your internet connection and try again",
        never="offline mode is | outgoing traffic has been disabled | lora | adapter",
    ),
    rule(
        Kind.MODEL_NOT_FOUND,
        "max retries exceeded with url | name resolution | name or service not known | connecterror"
        " | connection refused | network is unreachable | connection error | connecttimeout | readtimeout"
        " | read timed out | connection timed out | connection reset | connection aborted",
        also="huggingface | hf.co | hf-mirror | modelscope | /resolve/ | httpsconnectionpool | httpx. | httpcore."
        " | httpx2. | httpcore2.",
    ),
    rule(
        Kind.MODEL_NOT_FOUND,
        "429 client error | client error '429 | 429 too many requests | 500 server error | 502 server error"
        " | 503 server error | 504 server error | server error '5",
        also="huggingface | hf.co | hf-mirror | modelscope | /resolve/ | /api/models",
    ),
)
"""The hub, or the way to it, does not answer now: nothing is wrong with the name, and a later start may help."""

MODEL_RULES: tuple[Rule, ...] = (
    *HUB_IS_AWAY,
    rule(
        Kind.MODEL_NOT_FOUND,
        "is not a local folder and is not a valid model | not a valid model identifier | repositorynotfounderror"
        " | gatedrepoerror | gated repo | is restricted. you must | is restricted and you are not"
        " | localentrynotfounderror | entrynotfounderror | revisionnotfounderror"
        " | can't load the configuration of | can't load tokenizer for"
        " | can't load the model for | unable to load vocabulary from file | does not appear to have a file named"
        " | invalid repository id or local directory | repo id must | repo_id must | hfvalidationerror"
        " | cannot find any model weights | no safetensors | offlinemodeisenabled | offline mode is enabled"
        " | outgoing traffic has been disabled | cannot reach https:// | is not a valid git identifier"
        " | localtokennotfounderror | invalid user token | invalid credentials in authorization header"
        " | model path does not exist | local model path does not exist | could not find any model weights"
        " | the request model:  | please check the model id | error no file named | failed to load the tokenizer"
        " | no local weights found | no tokenizer file found | could not find model | model directory does not exist"
        " | incorrect path_or_model_id | no supported config format found | could not detect config format"
        " | can't load image processor | can't load feature extractor | is not a valid json file",
        never="lora | adapter",
    ),
    rule(
        Kind.MODEL_NOT_FOUND,
        "401 client error | 403 client error | 404 client error | repository not found | unauthorized for url"
        " | client error '401 | client error '403 | client error '404",
        also="huggingface | hf-mirror | modelscope | /resolve/ | /api/models | http",
    ),
    rule(
        Kind.MODEL_NOT_FOUND,
        "no such file or directory | filenotfounderror | notadirectoryerror",
        also=".safetensors | config.json | tokenizer | .gguf | /models/ | model. | pytorch_model | /model'",
        never=".so | cuda | nvcc | ninja | triton | template | .jinja | gcc | .cpp | inductor | cache/vllm",
    ),
)

DISTRIBUTED_RULES: tuple[Rule, ...] = (
    rule(
        Kind.DISTRIBUTED_ERROR,
        "nccl error | nccl failure | rccl error | ncclinvalidusage | ncclsystemerror | ncclunhandledcudaerror"
        " | ncclinternalerror | ncclremoteerror | ncclinvalidargument | distbackenderror | distnetworkerror"
        " | diststoreerror | connectfullmesh failed | clients joined | client socket has timed out"
        " | client socket has failed to connect | wait timeout | ccl_error | oneccl | world size ("
        " | required gpus exceeds | invalid device ordinal | current node has no gpu available"
        " | no available node types can fulfill | collective operation timeout | watchdog caught | gloo/transport"
        " | enforce fail at  | process group | init_process_group | tcpstore | raysystemerror | rayerror"
        " | ray cluster | placement group | custom_all_reduce.cuh | hccl | nvshmem | ncclcomminitrank"
        " | failed to connect to ray | could not connect to ray | ray version mismatch | peer access | rendezvous"
        " | shared memory segment /dev/shm/nccl | larger than the number of available | gcs server"
        " | raychanneltimeout | raylet | max local gpu count | unique ip address | unable to find address for"
        " | number of visible | not enough total available nodes",
        never="destroy_process_group | warning: | using nccl | divisible by | evenly divide | no module named"
        " | illegal memory access | device-side assert | unspecified launch failure",
        pattern=r"error|exception|fail|time[ds]? ?out|exceeds|larger|mismatch|no gpu|invalid|refused|watchdog",
    ),
    rule(
        Kind.DISTRIBUTED_ERROR,
        "ray does not allocate any | current node has no | not enough resources to allocate",
        also="gpu | tpu | npu | xpu | device | ranks | placement",
    ),
)

ARGUMENT_RULES: tuple[Rule, ...] = (
    sure(  # argparse, also quoted in somebody's notes
        Kind.CONFIG_ERROR,
        "error: ",
        pattern=r"(?:^|[\s`'\"(])(?:[\w-]{1,40}\.py|vllm|api_server)(?: \w{1,20})?: error: ",
    ),
    sure(Kind.CONFIG_ERROR, "unrecognized arguments | invalid choice:"),
    sure(Kind.CONFIG_ERROR, "greater than the derived max_model_len"),  # 0.2 to now
    sure(Kind.CONFIG_ERROR, "is smaller than max_model_len | is smaller than max_num_seqs"),  # V0, V1
    sure(Kind.CONFIG_ERROR, "value error, ", never="world size | failed to be inspected"),  # pydantic, 0.9+
    rule(  # pydantic's heading: the line below it says what is wrong, and may name another kind (0.11)
        Kind.CONFIG_ERROR,
        "validation error for  | validation errors for ",
        weight=Weight.STRAY,
    ),
    rule(Kind.CONFIG_ERROR, "assertion failed, ", also="type=assertion_error"),
    rule(Kind.CONFIG_ERROR, "input should be ", also="type="),
    rule(
        Kind.CONFIG_ERROR,
        "divisible by | not a multiple of | divided evenly",
        also="tensor | head | tp | parallel | block | group | vocab | hidden | size | num_ | partition",
    ),
    rule(Kind.CONFIG_ERROR, "trust_remote_code | trust-remote-code", also="set  | execute | option | requires"),
    rule(
        Kind.CONFIG_ERROR,
        "model architectures  | model architecture ",
        also="not supported | not support | no vllm implementation | has no",
    ),
    rule(
        Kind.CONFIG_ERROR,
        "does not recognize this architecture | has no vllm implementation | unrecognized model in"
        " | unknown quantization method"
        " | does not match the quantization method | unsupported quantization | invalid quantization method"
        " | cannot find the config file for | quantization config | is not supported for quantization method"
        " | compatible scheme | is not aligned with the quantized weight",
        never="current gpu | compute capability",
    ),
    rule(Kind.CONFIG_ERROR, "chat template | chat_template", also="not | must | required", never="format"),
    rule(
        Kind.CONFIG_ERROR,
        "block size | block_size | head size | head_size | head dimension",
        also="not supported | unsupported | must be | invalid | only supports | not support",
    ),
    rule(
        Kind.CONFIG_ERROR,
        "rope_scaling | max_lora_rank | lora rank | kv_cache_dtype | kv-cache-dtype",
        also="must | unsupported | unrecognized | greater | not supported | requires | unknown | failed to get",
    ),
    rule(
        Kind.CONFIG_ERROR,
        "is not supported with | is not supported by | cannot be used with | not compatible with"
        " | is incompatible with | are not supported with | not supported in v1 | not supported on v1"
        " | is not valid for this configuration | is only supported with | mutually exclusive"
        " | is not supported when | cannot be specified | requires -- | is not supported yet"
        " | is not yet supported | not currently supported | currently not supported | does not support ",
        never="gpu | cuda | compute capability | device | hardware | sm_ | sm1 | dynamo | triton | rocm | cpu",
        pattern=r"^(?:\w+\.)?(?:value|notimplemented|assertion|runtime|type|validation)\w{0,30}error?\b",
    ),
    rule(Kind.CONFIG_ERROR, "invalid tool call parser | reasoning parser | tool parser", also="invalid | not found"),
    rule(Kind.CONFIG_ERROR, "got an unexpected keyword argument", also="engineargs | config.__init__ | asyncengine"),
    rule(Kind.CONFIG_ERROR, "invalid attention backend | unknown attention backend"),
)

CRASH_RULES: tuple[Rule, ...] = (
    rule(
        Kind.OTHER_CRASH,
        "illegal memory access | device-side assert | segmentation fault | illegal instruction | terminate called after"
        " | unspecified launch failure | misaligned address | bus error | core dumped | sigsegv | sigabrt"
        " | exit code 136 | exit code 139 | exit code 134 | exit code 132 | cannot open shared object file"
        " | undefined symbol | insufficient shared memory (shm) | no space left on device | disk quota exceeded"
        " | no module named | floating point exception | uncorrectable ecc | gpu is lost | fallen off the bus"
        " | fatal python error | memory access fault by gpu",
        never="potential root causes",
    ),
)

RULES: tuple[Rule, ...] = (
    *MEMORY_RULES,
    sure(Kind.PORT_IN_USE, "address already in use | eaddrinuse | only one usage of each socket address"),  # Windows
    rule(Kind.PORT_IN_USE, "is already allocated | is already in use", also="port ", never="trying "),  # docker
    *HARDWARE_RULES,
    rule(
        Kind.CONFIG_ERROR,  # docker and podman, of the container that was to be run
        "error response from daemon | the container name | pull access denied | container id file found"
        " | invalid reference format | error during connect | cannot connect to the docker daemon",
    ),
    *COMPILE_RULES,
    *MODEL_RULES,
    *DISTRIBUTED_RULES,
    *ARGUMENT_RULES,
    *CRASH_RULES,
)
"""The whole table, in the order in which a line is held against it."""


def hub_is_away(line: str) -> bool:
    """Whether the line of a model that cannot be had tells of a hub that did not answer, not of a wrong name."""
    return any(rule.matches(line.lower()) for rule in HUB_IS_AWAY)
