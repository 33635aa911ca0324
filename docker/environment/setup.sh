#!/usr/bin/env bash
# Makes the virtual environment with everything in it, Detectron2 included.
# The Dockerfile calls the same script, so that container and checkout cannot drift apart.
#
#   docker/environment/setup.sh [everything | dependencies | project]
#
# `dependencies` reads docker/environment/ alone, so that the image's large layer outlives a change of
# code; `project` adds sar_experiments to an environment that has them. Both are `everything`.
#
#   VENV=.venv                      where the environment is made
#   PYTHON=python3                  which Python makes it (3.11 to 3.13)
#   DETECTRON2=/path/to/source      compile this Detectron2 instead of the pure-Python wheel
set -euo pipefail
cd "$(dirname "$0")/../.."
here=docker/environment
part=${1:-everything}
venv=${VENV:-.venv}
python=${PYTHON:-python3}
source=${DETECTRON2:-}
uv_version=0.13.9

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

make_venv() {
    command -v "$python" >/dev/null || fail "$python is not found; name one with PYTHON=/path/to/python3"
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
        fail "$("$python" --version) is not supported, 3.11 to 3.13 are; name one with PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments; on Debian: apt install python3-venv"
    say "new environment in $venv"
    "$python" -m venv "$venv"
}

check_source() {
    [ -z "$source" ] || [ -f "$source/setup.py" ] ||
        fail "DETECTRON2=$source holds no setup.py; give the root of Detectron2's source"
}

install_dependencies() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
    use_pip_index
    say "packages of $here/requirements.txt"
    uv_install --compile-bytecode --require-hashes --requirements "$here/requirements.txt"
    install_detectron2
    check || exit 1
}

install_project() {
    use_pip_index
    say "sar_experiments itself, editable"
    uv_install --no-deps --editable .
}

uv_install() { "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "$@"; }

# uv does not read pip's configuration; a mirror named there is the user's wish all the same.
use_pip_index() {
    local index
    index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}" ]; then export UV_DEFAULT_INDEX="$index"; fi
}

install_detectron2() {
    if [ -n "$source" ]; then
        say "Detectron2, compiled from $source"
        uv_install wheel  # upstream's setup.py builds beside the installed torch, not in isolation
        uv_install --no-deps --no-build-isolation --reinstall-package detectron2 "$source"
    elif detectron2_version >/dev/null 2>&1; then
        say "Detectron2 $(detectron2_version) is there and kept"
    else
        say "Detectron2, pure Python (no compiled operators: rotated boxes, deformable convolution)"
        uv_install --no-deps "$("$venv/bin/python" "$here/detectron2_wheel.py" "$venv/wheels")"
    fi
}

detectron2_version() { "$venv/bin/python" -c 'import importlib.metadata as m, importlib.util as u; assert u.find_spec("detectron2"); print(m.version("detectron2"))'; }

check() { "$venv/bin/python" -W ignore "$here/check.py"; }

# Nothing is installed twice for the same pins.
install_what_changed() {
    local wanted stamp=$venv/setup.stamp
    wanted=$(cat "$here"/* pyproject.toml <(pwd; echo "$source") | sha256sum)
    if [ -z "$source" ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then
        check || fail "the environment in $venv is broken; remove it and run again"
        return
    fi
    [ -w "$venv" ] || fail "$venv cannot be written; in a container it is finished, and its image is made anew by make docker-build"
    rm -f "$stamp"
    install_dependencies
    install_project
    echo "$wanted" >"$stamp"
}

case $part in everything | dependencies | project) ;; *) fail "'$part' is none of everything, dependencies, project" ;; esac
check_source
if [ "$part" = project ]; then
    [ -x "$venv/bin/uv" ] || fail "$venv holds no dependencies yet; run: $0 dependencies"
else
    [ -x "$venv/bin/python" ] || make_venv
fi
venv=$(cd "$venv" && pwd)
case $part in
    everything) install_what_changed ;;
    dependencies) install_dependencies ;;
    project) install_project ;;
esac
say "ready: source $venv/bin/activate"
