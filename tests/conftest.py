"""For every tier: no verdict depends on how fast or busy the machine is, or on who started the tests, and how."""

import contextlib
import os
import re
import resource
import signal
import tempfile

from hypothesis import HealthCheck, settings

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

# A shell's background job has SIGINT ignored, nohup SIGHUP: what is started here would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Whatever tells autolaunch, an engine, a hub or a client something; what tests are told by their own scripts stays.
TELLING = re.compile(
    r"(AUTOLAUNCH|FAKE|VLLM|CUDA|NVIDIA|HF|HUGGING_?FACE|TRANSFORMERS|MODELSCOPE|DOCKER|CONTAINER|XDG|WATCHDOG)_"
    r"|(NOTIFY_SOCKET|JOURNAL_STREAM|INVOCATION_ID|CPU_VISIBLE_MEMORY_NODES|PYTHONUNBUFFERED|TORCHINDUCTOR_CACHE_DIR"
    r"|NO_COLOR|FORCE_COLOR|COLUMNS|LINES|(\w+_)?PROXY)$",
    re.IGNORECASE,
)
OUR_OWN = {
    "AUTOLAUNCH_SYSTEMD_BOOT",
    "AUTOLAUNCH_PICTURES",
    "HF_HUB_OFFLINE",
    "VLLM_NO_USAGE_STATS",
    "VLLM_CACHE_ROOT",
    "XDG_CACHE_HOME",
}
for name in [name for name in os.environ if TELLING.match(name) and name not in OUR_OWN]:
    del os.environ[name]

os.umask(0o022)

# A socket's path has at most 107 bytes, and a folder's name is a word in many a command line.
if not re.fullmatch(r"[\w./-]{1,40}", tempfile.gettempdir(), re.ASCII):
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

ENOUGH_FILES = 4096
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if soft != resource.RLIM_INFINITY and soft < ENOUGH_FILES:
    with contextlib.suppress(ValueError, OSError):
        most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
