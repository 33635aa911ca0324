#!/usr/bin/env bash
# Writes requirements.txt anew: the newest versions that pyproject.toml and constraints.txt allow,
# for every supported Python, with hashes and without the name of any package index.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${VENV:-.venv}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$venv/bin/python" docker/environment/detectron2_wheel.py "$folder" >/dev/null
"$venv/bin/uv" pip compile pyproject.toml --extra dev --extra export --extra optuna --extra serve --extra slurm \
    --constraints docker/environment/constraints.txt \
    --universal --python-version 3.11 --generate-hashes \
    --find-links "$folder" --no-emit-package detectron2 \
    --no-header --no-annotate --quiet --upgrade --output-file "$folder/requirements.txt"
{
    echo "# Exact versions of everything but Detectron2, for Python 3.11 to 3.13. Written by \`make lock\`."
    cat "$folder/requirements.txt"
} >docker/environment/requirements.txt
