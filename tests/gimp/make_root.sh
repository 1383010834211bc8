#!/bin/bash
# make_root.sh SUITE DIR: unpack a Debian root with a real GIMP 3 and what drives its window into DIR.
# SUITE: trixie has GIMP 3.0, forky 3.2. With trixie comes chromium, which opens the pages of `dfi report`.
# Needs root and apt. The first build (1-2 minutes, 250 MB; with chromium 400) is kept in
# ${XDG_CACHE_HOME:-~/.cache}/dfi-tests/, so that later calls only unpack it (seconds). An unpacked DIR is left alone.
set -euo pipefail
suite=${1:?Usage: make_root.sh SUITE DIR} dir=${2:?Usage: make_root.sh SUITE DIR}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dfi-tests
packages=gimp,python3-zmq,python3-gi-cairo,xvfb,xdotool,openbox,imagemagick,fonts-dejavu-core,fonts-ipafont-gothic,adwaita-icon-theme
[ "$suite" != trixie ] || packages+=,chromium
# A change to this script is another root.
archive=$cache/gimp-$suite-$(dpkg --print-architecture)-$(sha256sum "$0" | cut -c1-12).tar.zst

[ -e "$dir/.dfi-gimp" ] && [ "$(cat "$dir/.dfi-gimp")" = "$(basename "$archive")" ] && exit 0
if [ -n "$(ls -A "$dir" 2>/dev/null)" ] && [ ! -e "$dir/.dfi-gimp" ]; then
    echo "make_root.sh: $dir holds something else; name another folder." >&2
    exit 1
fi
[ "$(id -u)" = 0 ] || { echo "make_root.sh: unpacking a Debian root needs root; install GIMP >= 3 instead." >&2; exit 1; }

if ! command -v mmdebstrap >/dev/null || ! command -v zstd >/dev/null; then
    apt-get update -q >&2
    apt-get install -y -q --no-install-recommends mmdebstrap zstd >&2
fi

# Both steps work beside their target and rename at the end: a killed run leaves nothing that looks finished.
if [ ! -e "$archive" ]; then
    mkdir -p "$cache"
    part=$(mktemp "$cache/part-XXXXXX.tar.zst")
    trap 'rm -f "$part" "$part.log"' EXIT
    # Valid-Until: mirrors of a fixed day are as good; signatures are still checked.
    mmdebstrap --mode=root --variant=apt --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm -rf "$1"/var/cache/apt/archives "$1"/var/lib/apt/lists' \
        "$suite" "$part" >"$part.log" 2>&1 || { tail -n 20 "$part.log" >&2; exit 1; }
    rm "$part.log"
    mv "$part" "$archive"
fi

mkdir -p "$(dirname "$dir")"
fresh=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
tar --zstd -xf "$archive" -C "$fresh" --numeric-owner
basename "$archive" >"$fresh/.dfi-gimp"
rm -rf "$dir"
mv "$fresh" "$dir"
chmod 755 "$dir"
trap - EXIT
