#!/bin/sh
# Builds gossamer-runtime's wheel in a CMake folder that is kept, and installs it. Where the native part cannot be built,
# says why and installs the Python files alone: everything but running sparse ops works with them.
#
#   install.sh PYTHON BUILD
#
# PYTHON is an environment's interpreter, BUILD a folder for what is built. Exit status 3: installed without native part.
set -eu
python=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build"
build=$(cd "$build" && pwd)
bin=$(cd "$(dirname "$python")" && pwd)
log=$build/runtime-build.log
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }

# One folder for wheel and tests: what one has compiled, the other need not. The environment's own cmake and ninja, at
# paths that last, and not those of pip's passing build environment: CMake would begin anew each time.
wheel() {
  pip wheel --no-build-isolation --no-deps --wheel-dir "$build/wheels" -C build-dir="$build/native" "$@" "$here"
}

native() {
  command -v "${CXX:-c++}" > /dev/null || command -v g++ > /dev/null || command -v clang++ > /dev/null || {
    echo "there is no C++ compiler (on Debian: apt-get install g++)" > "$log"
    return 1
  }
  pip install "scikit-build-core>=0.10" "cmake>=3.25" "ninja>=1.10" > "$log" 2>&1 || return 1
  PATH=$bin:$PATH wheel -C cmake.define.GOSSAMER_BUILD_TESTS=ON \
    -C cmake.define.GOSSAMER_DOWNLOADS="$build/downloads" > "$log" 2>&1
}

rm -rf "$build/wheels"
status=0
if ! native; then
  status=3
  echo "== gossamer-runtime: the native part could not be built (all of it: $log):" >&2
  { grep -E -A 4 'there is no|not from Debian|CMake Error|error:|FAILED' "$log" || tail -n 10 "$log"; } |
    head -n 20 | cut -c 1-200 | sed 's/^/   /' >&2
  echo "== Installing its Python files alone: sparse models cannot be run here, all else works" >&2
  pip install "scikit-build-core>=0.10"
  wheel -C wheel.cmake=false
fi
pip install "$build"/wheels/gossamer_runtime-*.whl
# The version may be that of what is installed, and the contents not.
pip install --force-reinstall --no-deps "$build"/wheels/gossamer_runtime-*.whl
exit $status
