#!/usr/bin/env bash
# Puts the CUDA compiler and headers that fit the locked torch into FOLDER/nvidia/cu13: the package index
# has them as wheels, so that no CUDA image and no system-wide toolkit is needed.
#
#   docker/environment/cuda_compiler.sh FOLDER     then compile with CUDA_HOME=FOLDER/nvidia/cu13
set -euo pipefail
folder=${1:?usage: $0 FOLDER}
here=$(dirname "$0")
# torch's own pin, so that compiler and runtime are of one CUDA.
toolkit=$(sed -nE 's/^cuda-toolkit==([0-9.]+).*/\1/p' "$here/requirements.txt")
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$folder" \
    "cuda-toolkit[cccl,crt,cublas,cudart,curand,cusolver,cusparse,nvcc,nvvm,profiler]==$toolkit"
rm -rf "$folder/venv"
# The wheels hold libcudart.so.13 alone; a linker looks for libcudart.so.
for library in "$folder"/nvidia/cu13/lib/*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
done
"$folder/nvidia/cu13/bin/nvcc" --version | tail -1
