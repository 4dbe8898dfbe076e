#!/bin/sh
# Makes .venv ready: system libraries, pinned packages, tessera itself. Quick when nothing has changed.
set -eu
cd "$(dirname "$0")"
stamp=.venv/.ready
wanted=$(cat pyproject.toml constraints.txt setup.sh | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

# Debian packages that pip cannot bring: Open3D's libraries, and venv where Python came without it.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}
install_debian() {
    command -v apt-get >/dev/null && as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
need() {
    install_debian "$@" || {
        echo "setup: please install as root: apt-get install -y $*" >&2
        exit 1
    }
}

python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv 2>/dev/null || {
    need python3-venv
    "$python" -m venv .venv
}
echo "setup: installing pinned packages into .venv" >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
.venv/bin/python -c 'import open3d' 2>/dev/null || {
    need libusb-1.0-0 libgl1 libegl1 libx11-6 libgomp1
    .venv/bin/python -c 'import open3d'
}
echo "$wanted" >"$stamp"
