#!/bin/sh
# Installs this processor's wheel into an environment with numpy and onnxruntime only, and runs a sparse model there.
#
#   try_wheel.sh PYTHON BUILD DIST   (PYTHON has the package onnx, to write the model with)
set -eu
python=$1 build=$2 dist=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build"
fresh=$build/fresh
rm -rf "$fresh"
"$python" -m venv "$fresh"
"$fresh/bin/python" -m pip --quiet --disable-pip-version-check install "$dist"/gossamer_runtime-*_"$(uname -m)".whl
PYTHONPATH=$here/src "$python" "$here/tests/small_model.py" "$fresh/model.onnx"
"$fresh/bin/gossamer-run" "$fresh/model.onnx" --repeats 5
if "$fresh/bin/python" -c "import torch" 2> /dev/null; then echo "torch was installed with the wheel" >&2; exit 1; fi
