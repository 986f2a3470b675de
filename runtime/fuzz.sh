#!/bin/sh
# Fuzzes decoder, packers and kernels for a while, then the coders of coded weights. New inputs are kept in
# BUILD/fuzz-corpus and BUILD/fuzz-coded-corpus and used the next time.
#
#   fuzz.sh PYTHON BUILD SECONDS   (make fuzz SECONDS=60)
set -eu
python=$1 build=$2 seconds=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build"
build=$(cd "$build" && pwd)
bin=$(cd "$(dirname "$python")" && pwd)
"$here/can_fuzz.sh" || {
  echo "== Fuzzing SKIPPED: clang++ with libFuzzer is missing (on Debian: apt-get install clang libclang-rt-dev)"
  exit 0
}
CC=clang CXX=clang++ "$bin/cmake" -S "$here" -B "$build/fuzz" -G Ninja -DCMAKE_MAKE_PROGRAM="$bin/ninja" \
  -DGOSSAMER_BUILD_FUZZ=ON -DGOSSAMER_SANITIZE=address,undefined,fuzzer-no-link \
  -DGOSSAMER_DOWNLOADS="$build/downloads" > "$build/fuzz.log"
"$bin/cmake" --build "$build/fuzz" >> "$build/fuzz.log" || { tail -n 30 "$build/fuzz.log" >&2; exit 1; }
mkdir -p "$build/fuzz-corpus" "$build/fuzz-coded-corpus" "$build/fuzz-findings"
PYTHONPATH=$here/src "$python" "$here/native/fuzz/make_seeds.py" "$build/fuzz-seeds"
# An input takes milliseconds; the limit is for machines that are busy or stopped for a while.
fuzz() {
  "$build/fuzz/native/fuzz/$1" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="$build/fuzz-findings/" -max_len="$2" "$build/$3" ${4:+"$4"} \
    > "$build/fuzz-run.log" 2>&1 || { tail -n 60 "$build/fuzz-run.log"; exit 1; }
  grep -E "DONE|stat::number_of_executed|stat::average_exec|stat::peak_rss" "$build/fuzz-run.log"
}
fuzz packer_fuzz 8192 fuzz-corpus "$build/fuzz-seeds"
fuzz coded_fuzz 256 fuzz-coded-corpus ""
