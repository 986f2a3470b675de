#!/bin/sh
# Builds the wheels for others: for this machine's processor and, with Debian's cross compiler (apt-get install
# g++-aarch64-linux-gnu), for 64-bit ARM. Nothing in them depends on this system but on its C library's version, which
# the wheel's tag names.
#
#   wheels.sh PYTHON BUILD OUT [x86_64|aarch64 ...]
set -eu
python=$1 build=$2 out=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build" "$out"
build=$(cd "$build" && pwd)
bin=$(cd "$(dirname "$python")" && pwd)
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install "scikit-build-core>=0.10" "cmake>=3.25" "ninja>=1.10" wheel

this=$(uname -m)
[ $# -gt 0 ] || set -- "$this" aarch64
for machine in $(printf '%s\n' "$@" | sort -u); do
  toolchain=
  if [ "$machine" != "$this" ]; then
    command -v "$machine-linux-gnu-g++" > /dev/null || {
      echo "== No wheel for $machine: $machine-linux-gnu-g++ is missing (on Debian: apt-get install g++-$machine-linux-gnu)" >&2
      continue
    }
    toolchain="-C cmake.define.CMAKE_TOOLCHAIN_FILE=$here/cmake/$machine-linux-gnu.cmake"
  fi
  folder=$build/wheel-$machine
  rm -rf "$folder/dist"
  # shellcheck disable=SC2086 # the toolchain is two words or none
  PATH=$bin:$PATH pip wheel --no-build-isolation --no-deps --wheel-dir "$folder/dist" -C build-dir="$folder" $toolchain \
    -C cmake.define.GOSSAMER_BUNDLE=ON -C cmake.define.GOSSAMER_DOWNLOADS="$build/downloads" "$here" \
    > "$build/wheel-$machine.log" 2>&1 || { tail -n 30 "$build/wheel-$machine.log" >&2; exit 1; }
  wheel=$("$python" "$here/tag_wheel.py" "$folder"/dist/*.whl)
  rm -f "$out"/gossamer_runtime-*_"$machine".whl
  cp "$wheel" "$out"
  echo "$out/$(basename "$wheel")"
done
