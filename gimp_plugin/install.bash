# What install.sh does for GIMP: makes the filter's folder, puts it into GIMP's configuration folders, checks it there.
# Sourced by install.sh, which sets the variables and has the functions used here.
# shellcheck shell=bash disable=SC2154

config=${XDG_CONFIG_HOME:-$HOME/.config}/GIMP
flatpak_config=$HOME/.var/app/org.gimp.GIMP/config/GIMP
plugins=() # the filter's folders

# "3.0.4" for the gimp on PATH, or nothing.
gimp_version() {
    local program
    for program in gimp gimp-console; do
        timeout 20 "$program" --version 2>/dev/null | grep -oEm 1 '[0-9]+\.[0-9]+\.[0-9]+' && return
    done
}

# GIMP runs plug-ins by a Python of its own choice: the system's, or the one inside its Flatpak or AppImage.
gimp_python() {
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3; fi
}

# How the filter starts the server; $0 is DFI_HOME. GIMP's Flatpak uses the same folder, but has only its own programs.
# shellcheck disable=SC2016 # expanded where it runs
start_server='if [ -e /.flatpak-info ]; then
echo "GIMP from Flatpak cannot start programs of this computer: run this in a terminal, then try again:" \
"dfi serve --endpoint own-tcp"
exit 1; fi
exec env "DFI_HOME=$0" "$0/venv/bin/dfi" serve "$@"'

# The plug-in's folder, complete, in $1.
make_plugin() {
    mkdir -p "$1/dfi_server/wire"
    cp -r "$here"/gimp_plugin/dfi/{*.py,help.html,locale} "$1"
    chmod 755 "$1/dfi.py"
    cp "$here"/dfi_server/{__init__,errors}.py "$1/dfi_server"
    cp "$here"/dfi_server/wire/{__init__,messages,protocol,place,client}.py "$1/dfi_server/wire"
    "$venv/bin/python" -P -c 'import json, sys; from dfi_server.wire.place import OWN
print(json.dumps({"endpoint": OWN, "home": sys.argv[2], "command": ["sh", "-c", *sys.argv[1:]]}, indent=1))
' "$start_server" "$home" >"$1/server.json"
    make_pyzmq
    cp -r "$venv/pyzmq" "$1/vendor"
}

# pyzmq as the server has it, for GIMP's Python, in $venv/pyzmq. Its cp312-abi3 wheel serves every Python from 3.12 on;
# an older one has a file of its own, which lies beside.
make_pyzmq() {
    local version own wanted wheel
    version=$("$venv/bin/python" -c 'import zmq; print(zmq.__version__)')
    own=$("$(gimp_python)" -c 'import sys; print("3.%d" % min(sys.version_info[1], 12))')
    if [ ! -d "$venv/pyzmq/pyzmq-$version.dist-info" ]; then
        for wanted in 3.12 "$own"; do
            pip download -q --no-deps --only-binary=:all: --python-version "$wanted" -d "$home/tmp" "pyzmq==$version"
        done
        rm -rf -- "$venv/pyzmq"
        for wheel in "$home"/tmp/pyzmq-*.whl; do
            "$venv/bin/python" -m zipfile -e "$wheel" "$home/tmp/pyzmq"
        done
        mv "$home/tmp/pyzmq" "$venv"
    fi
}

install_plugin() {
    local folder target version
    step "Preparing the filter for GIMP" "$check_network" make_plugin "$home/tmp/dfi"
    version=$(gimp_version || true)
    [[ $version != 3.* ]] || make_dir "$config/${version%.*}"
    if ! compgen -G "$config/3.*" >/dev/null && ! compgen -G "$flatpak_config/3.*" >/dev/null; then
        make_dir "$config/3.0"
    fi
    for folder in "$config"/3.* "$flatpak_config"/3.*; do
        [ -d "$folder" ] || continue
        target=$folder/plug-ins/dfi
        if [ -e "$target" ] && ! recorded tree "$target" && ! grep -qs plug-in-dfi "$target/dfi.py"; then
            echo "There is another plug-in in $target, which stays: move it away and run ./install.sh again."
            continue
        fi
        make_dir "$folder/plug-ins"
        record tree "$target"
        rm -rf -- "$target"
        cp -r "$home/tmp/dfi" "$target"
        plugins+=("$target")
    done
}

check_plugin() {
    local found
    found=$(
        cd "$1" && test -x dfi.py && "$(gimp_python)" -c 'import sys
try:
    import zmq
except ImportError:
    sys.path.append("vendor")
    import zmq
from dfi_server.wire import client
print("pyzmq", zmq.__version__, "for Python %d.%d" % sys.version_info[:2])' 2>>"$log"
    ) || failed "The filter in $1 does not load: run ./install.sh --uninstall, then ./install.sh again."
    ok "Filter in $1, $found"
}

# Does GIMP itself find the filter? Asked in a configuration folder of its own.
check_gimp() {
    local version folder=$home/tmp/gimp
    version=$(gimp_version || true)
    if [[ $version != 3.* ]]; then
        if [ -d "${flatpak_config%/config/GIMP}" ]; then
            ok "GIMP from Flatpak; run dfi serve --endpoint own-tcp in a terminal before using the filter: it cannot start programs"
        else
            no "${version:+GIMP $version is too old: }GIMP 3 was not found: install it (https://www.gimp.org/downloads)"
        fi
        return
    fi
    mkdir -p "$folder/plug-ins"
    cp -r "$home/tmp/dfi" "$folder/plug-ins"
    if env HOME="$folder" XDG_CACHE_HOME="$folder" XDG_DATA_HOME="$folder" GIMP3_DIRECTORY="$folder" \
        timeout 120 gimp-console -i -d -f --batch-interpreter=python-fu-eval \
        -b 'assert Gimp.get_pdb().lookup_procedure("plug-in-dfi")' --quit </dev/null >>"$log" 2>&1; then
        ok "GIMP $version has the filter: Filters > Deep Feature Interpolation... (restart GIMP if it is open)"
    else
        no "GIMP $version does not load the filter: its Python lacks gi (sudo apt-get install python3-gi), or see $log"
    fi
}
