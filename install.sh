#!/bin/bash
# Deep Feature Interpolation on Linux and macOS: install, update or remove.
#
#   ./install.sh                        install, or bring an installation up to date; may be run again at any time
#   ./install.sh --uninstall            remove what was installed; the stores of attribute vectors stay
#   ./install.sh --uninstall --purge    remove those as well
#   ./install.sh --help
#
# Installs for the user who runs it, asks nothing, and needs Python 3.11 or newer:
#   DFI_HOME/venv       the program, in a virtual environment; DFI_HOME, where it is not set, is
#                       ${XDG_DATA_HOME:-~/.local/share}/dfi, or ~/Library/Application Support/dfi on macOS
#   ~/.local/bin/dfi    the command
#   the filter          in every GIMP 3: that is done by the command, and can be done again: dfi gimp install
# Only where Debian's package python3-venv is missing is a system package installed, by apt-get or `sudo -n apt-get`.
# Without an NVIDIA GPU, torch is the one for the CPU, from https://download.pytorch.org/whl/cpu or from a mirror of that,
# named by DFI_TORCH_CPU_INDEX; where that cannot be reached, it is the package registry's, with CUDA (2.7 GB).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
constraints=$here/constraints.txt
check_network="Check the connection to https://pypi.org, then run ./install.sh again."
sample=$here/dfi_server/sample/astronaut.jpg
sample_edit=eyeglasses=0.5 # she smiles already

stop() {
    printf '\ninstall.sh: %s\n' "$*" >&2
    exit 1
}

# --- places

: "${HOME:?install.sh: HOME is not set: it names the folder to install into.}"
system=$(uname -s)
if [ "$system" = Darwin ]; then data="$HOME/Library/Application Support"; else data=$HOME/.local/share; fi
home=${DFI_HOME:-${XDG_DATA_HOME:-$data}/dfi}
home=${home/#\~\//$HOME/}
[[ $home == /* ]] || home=$PWD/$home
given_home=${DFI_HOME:-}
venv=$home/venv
link=$HOME/.local/bin/dfi
manifest=$home/installed # lines "tree PATH" and "dir PATH": what to remove, and what to remove if it is empty then.
# `dfi gimp` writes there as well (dfi_server/gimp/record.py).
log=$home/install.log

recorded() { grep -qxF "$1 $2" "$manifest" 2>/dev/null; }

record() { recorded "$1" "$2" || echo "$1 $2" >>"$manifest"; }

# Make a folder, and record those of its parents that were not there before.
make_dir() {
    local folder=$1 missing=()
    while [ ! -d "$folder" ]; do
        missing=("$folder" ${missing[@]+"${missing[@]}"}) # so for macOS' bash, which is of 2007
        folder=$(dirname "$folder")
    done
    mkdir -p "$1" "$home" || stop "$1 could not be made: see the line above."
    for folder in ${missing[@]+"${missing[@]}"}; do record dir "$folder"; done
}

# This user's processes: lines "ID COMMAND LINE".
processes() {
    local folder
    if [ ! -d /proc/self ]; then
        ps -ww -U "$(id -u)" -o pid=,args=
        return
    fi
    for folder in /proc/[0-9]*; do
        [ ! -O "$folder" ] || echo "${folder#/proc/} $(tr '\0' ' ' <"$folder/cmdline")"
    done 2>/dev/null
}

# A server of this installation that is still running would go on with the old program.
stop_servers() {
    local id command
    while read -r id command; do
        case "$command " in
        *"$venv/bin/dfi serve "* | *"$link serve "* | *"$venv/bin/python"*" -m dfi_server serve "*)
            kill "$id" 2>/dev/null && echo "Stopped the running server (process $id)."
            ;;
        esac
    done < <(processes)
}

# --- removal

uninstall() {
    local folders=() line path caches=${XDG_CACHE_HOME:-$HOME/.cache}/dfi
    stop_servers
    if [ -e "$manifest" ]; then
        if grep -qE '^tree .*/dfi\.(service|server\.plist)$' "$manifest"; then # nobody else's is touched
            DFI_HOME=$home "$venv/bin/dfi" service uninstall 2>/dev/null || true
        fi
        # What it does not do, because it is broken, is done here.
        DFI_HOME=$home "$venv/bin/dfi" gimp uninstall 2>/dev/null || true
    else
        echo "Nothing is installed in $home."
    fi
    while read -r line; do # the latest first, so that a folder is empty when its turn comes
        path=${line#* }
        case ${line%% *} in
        tree) [ ! -e "$path" ] || { rm -rf -- "$path" && echo "Removed $path"; } ;;
        link) [ "$(readlink "$path")" != "$venv/bin/dfi" ] || { rm -- "$path" && echo "Removed $path"; } ;;
        dir) folders+=("$path") ;;
        esac
    done < <(awk '{ lines[NR] = $0 } END { for (i = NR; i; i--) print lines[i] }' "$manifest" 2>/dev/null)
    rm -rf -- "$manifest" "$log" "$home/tmp" "$home/own-keys" "$home/galleries" \
        "$home/server.log" "$caches/server.log" # a filter's server writes to the latter
    if [ "$purge" = yes ]; then
        [ ! -d "$home/stores" ] || echo "Removing the stores of attribute vectors in $home/stores"
        [ ! -d "$home/own" ] || echo "Removing your own attributes in $home/own"
        rm -rf -- "$home/stores" "$home/own" "$home/downloads"
    else
        [ ! -d "$home/stores" ] ||
            echo "The stores of attribute vectors stay in $home/stores (--uninstall --purge removes them)."
        [ ! -d "$home/own" ] || echo "Your own attributes stay in $home/own (--uninstall --purge removes them)."
    fi
    for path in "$caches" "$home" ${folders[@]+"${folders[@]}"}; do rmdir -- "$path" 2>/dev/null || true; done
}

# --- steps

job=
# step SENTENCE REMEDY COMMAND...: run it, its output in the log; show how long it takes and, on a terminal, what it is
# doing. Stops with the remedy where it fails; without a remedy, returns its status.
step() {
    local text=$1 remedy=$2 started=$SECONDS status=0 line
    shift 2
    printf '%s ... ' "$text"
    echo "--- $text" >>"$log"
    shopt -s checkwinsize
    (:) # sets COLUMNS
    set -m # a process group of its own, to be ended as one
    "$@" </dev/null >>"$log" 2>&1 &
    job=$!
    set +m
    while [ -t 1 ] && kill -0 "$job" 2>/dev/null; do
        line="$text ... $((SECONDS - started)) s  $(tail -n 1 "$log" | tr -dc '[:print:]')"
        printf '\r\033[K%s' "${line:0:${COLUMNS:-80}-1}"
        sleep 0.5
    done
    wait "$job" || status=$?
    job=
    [ ! -t 1 ] || printf '\r\033[K%s ... ' "$text"
    if [ "$status" = 0 ]; then echo "done ($((SECONDS - started)) s)"; else echo "failed"; fi
    [ "$status" = 0 ] || [ -z "$remedy" ] || failed "$text: failed. $remedy"
    return "$status"
}

failed() {
    tail -n 15 "$log" >&2
    stop "$* (The whole output is in $log.)"
}

leave() {
    [ -z "$job" ] || kill -- "-$job" 2>/dev/null || true
    rm -rf -- "$home/tmp"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_venv_package() {
    as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
            install -y -q --no-install-recommends "$1"
}

find_python() {
    local candidate get="install Python 3.11 or newer (https://www.python.org/downloads)"
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        python=$(command -v "$candidate") || continue
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return
    done
    if command -v python3 >/dev/null; then stop "$(python3 --version) is too old: $get, then run ./install.sh again."; fi
    [ "$system" != Linux ] || get="run 'sudo apt-get install python3'"
    stop "Python is missing: $get, then ./install.sh again."
}

make_venv() {
    local package
    record tree "$venv"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
            stop "Python's venv module is missing: run 'sudo apt-get install $package', then ./install.sh again."
        fi
        step "Installing Debian's $package" "Run 'sudo apt-get install $package', then ./install.sh again." \
            install_venv_package "$package"
    fi
    step "Making a virtual environment" "The lines above say why." "$python" -m venv --clear "$venv"
}

pip() { "$venv/bin/python" -m pip "$@"; }

pip_install() { pip install -c "$constraints" "$@"; } # in the versions that the tests passed with

check_space() {
    local free
    free=$(df -Pk "$home" | awk 'NR == 2 { print int($4 / 1e6) }')
    [ "$free" -ge "$1" ] ||
        stop "$home has $free GB free, and torch needs $1 GB: free some, or set DFI_HOME to a folder on a larger disk."
}

# From a copy: building leaves files in the source folder, and takes up what earlier builds left there. With setuptools
# in the virtual environment, where torch wants it anyway, an update of an unchanged set of packages needs no network.
pip_install_package() {
    mkdir "$home/tmp/source"
    cp -r "$here"/{pyproject.toml,README.md,LICENSE,dfi_server} "$home/tmp/source"
    mkdir "$home/tmp/source/gimp_plugin"
    cp -r "$here/gimp_plugin/dfi" "$home/tmp/source/gimp_plugin"
    pip_install setuptools
    # with HEIC and JPEG XL where the packages that read them have wheels
    pip_install --no-build-isolation --only-binary brotli,pillow-heif,pyjpegxl "$home/tmp/source[heif]" ||
        pip_install --no-build-isolation "$home/tmp/source"
}

try_cpu_torch() {
    if cpu_index_answers "$python"; then
        check_space 3
        step "Installing torch for the CPU from $torch_cpu_index (200 MB)" "" install_cpu_torch pip && return
    fi
    echo "$no_cpu_torch"
    return 1
}

install_package() {
    local text="Installing the program and what it needs"
    # the registry's torch for macOS is without CUDA, and small
    if [ "$system" = Linux ] && ! torch_is_there pip && { has_nvidia_gpu || ! try_cpu_torch; }; then
        check_space 12
        text+=" (2.7 GB with torch)"
    fi
    step "$text" "$check_network" pip_install_package
}

link_command() {
    if [[ (-e $link || -L $link) && $(readlink "$link") != */venv/bin/dfi ]]; then
        dfi=$venv/bin/dfi
        echo "There is another program in $link, which stays: call this one as $dfi"
        return
    fi
    make_dir "$(dirname "$link")"
    record link "$link"
    ln -sfn "$venv/bin/dfi" "$link"
    case :$PATH: in
    *:"$(dirname "$link")":*) dfi=dfi ;;
    *) dfi=$link ;;
    esac
}

# --- self-check

ok() { printf '  ok  %s\n' "$*"; }
no() { printf '  --  %s\n' "$*"; }

check_torch() {
    local found
    found=$(
        "$venv/bin/python" -P 2>>"$log" -c 'import torch; from dfi_server.solver import vgg
device = vgg.choose_device()
print(torch.__version__, "on", device.type, f"({vgg.choose_precision(device)})".replace("torch.", ""))'
    ) || failed "torch does not load: run ./install.sh --uninstall, then ./install.sh again."
    ok "torch $found"
    if has_nvidia_gpu && [[ $found != *cuda* ]]; then
        if [[ $found == *+cpu* ]]; then
            no "This build of torch does not use the NVIDIA GPU: run ./install.sh --uninstall, then ./install.sh again"
        else
            no "torch does not get to the NVIDIA GPU: update its driver ($venv/bin/python -m torch.utils.collect_env)"
        fi
    fi
}

check_store() {
    local names
    if names=$("$venv/bin/dfi" attributes 2>&1); then
        ok "Store of $(wc -l <<<"$names") attribute vectors"
    else
        no "${names#dfi: }"
    fi
}

check_formats() {
    if "$venv/bin/python" -P -c 'import brotli, pillow_heif, pyjpegxl' 2>>"$log"; then
        ok "HEIC and JPEG XL"
    else
        no "HEIC or JPEG XL: there is no package for this machine, and dfi says which is missing"
    fi
}

edit_sample() {
    local result=$home/sample.png
    record tree "$result"
    step "Editing the sample portrait" "Run ./install.sh again." \
        "$venv/bin/dfi" edit "$sample" "$result" --set "$sample_edit"
    echo "The edited portrait: $result (before: $sample)"
}

# shellcheck source=torch.bash
. "$here/torch.bash"

install() {
    local filter=ok
    case $system in
    Linux | Darwin) ;;
    *) stop "This is for Linux and macOS: in Windows, run install.ps1." ;;
    esac
    find_python
    make_dir "$home"
    : >"$log"
    rm -rf -- "$home/tmp"
    mkdir "$home/tmp"
    trap leave EXIT
    trap 'stop "Interrupted: run ./install.sh again to go on."' INT TERM HUP
    # Where /tmp is memory, as on Debian 13, torch does not fit.
    export TMPDIR=$home/tmp DFI_HOME=$home
    export PIP_PROGRESS_BAR=off PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX

    echo "Deep Feature Interpolation, into $home"
    make_venv
    install_package
    stop_servers
    link_command

    echo
    "$venv/bin/dfi" gimp install || filter=failed

    echo
    echo "Self-check"
    ok "$("$venv/bin/python" --version), $("$venv/bin/dfi" --version) in $venv"
    check_torch
    if [ "$dfi" = dfi ]; then
        ok "Command dfi in $link"
    else
        no "Command $dfi: not on PATH; log in again, or run: export PATH=\"\$HOME/.local/bin:\$PATH\""
    fi
    [ -z "$given_home" ] || ok "State in $home: keep DFI_HOME=$given_home set where you run $dfi"
    check_store
    check_formats
    echo
    edit_sample
    [ -d "$home/stores/lfw" ] ||
        printf 'That was the bundled starter model. For better edits: %s setup (downloads 650 MB, 20 min).\n' "$dfi"
    [ "$filter" = ok ] || stop "Everything but the filter for GIMP is installed: what to do is said above (dfi: ...)."
}

remove='' purge=''
for option; do
    case $option in
    --help | -h)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
        exit
        ;;
    --uninstall) remove=yes ;;
    --purge) purge=yes ;;
    *) stop "There is no option $option: see ./install.sh --help." ;;
    esac
done
[ -z "$purge" ] || [ -n "$remove" ] || stop "--purge goes with --uninstall: ./install.sh --uninstall --purge."
if [ -n "$remove" ]; then uninstall; else install; fi
