#!/bin/sh
# The kernels' tests and the ops inside ONNX Runtime, cross-built for 64-bit ARM and run under qemu's user mode.
#
#   test_aarch64.sh PYTHON BUILD   (make test-aarch64)
set -eu
python=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build"
build=$(cd "$build" && pwd)
bin=$(cd "$(dirname "$python")" && pwd)
# qemu 7.2 of Debian 12 crashes when it loads ONNX Runtime 1.30 or newer; the ops need 1.24.
onnxruntime=1.27.0

for need in aarch64-linux-gnu-g++:g++-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static; do
  command -v "${need%%:*}" > /dev/null || {
    echo "${need%%:*} is missing (on Debian: apt-get install ${need##*:})" >&2
    exit 1
  }
done

echo "== Cross-building"
"$here/wheels.sh" "$python" "$build" "$build/dist" aarch64
# The wheel's own folder: its objects are compiled once.
tests=$build/wheel-aarch64
{ "$bin/cmake" -DGOSSAMER_BUILD_TESTS=ON -DGOSSAMER_BUILD_BENCH=ON "$tests" && "$bin/cmake" --build "$tests"; } \
  > "$build/aarch64.log" 2>&1 || { tail -n 30 "$build/aarch64.log" >&2; exit 1; }
echo "== The kernels' tests under qemu"
"$bin/ctest" --test-dir "$tests" --parallel 2 --output-on-failure --no-tests=error --quiet \
  --output-log "$build/aarch64-tests.log" || { cat "$build/aarch64-tests.log"; exit 1; }
tail -n 4 "$build/aarch64-tests.log"

echo "== Python, ONNX Runtime $onnxruntime and the wheel for aarch64"
"$here/aarch64_root.sh" "$build/aarch64-root"
site=$build/aarch64-site
fetch() {
  "$python" -m pip --quiet --disable-pip-version-check install --target "$site" --upgrade --only-binary :all: \
    --python-version 3.11 --implementation cp "$@"
}
if [ ! -e "$site/onnxruntime-$onnxruntime.dist-info" ]; then
  fetch --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
    --platform manylinux2014_aarch64 "onnxruntime==$onnxruntime" numpy onnx pytest
fi
wheel=$(ls "$build"/dist/gossamer_runtime-*_aarch64.whl)
tag=${wheel##*none-}
fetch --no-deps --platform "${tag%.whl}" "$wheel"

# A script, so that tests that start an interpreter of their own get this one.
cat > "$build/python-aarch64" << END
#!/bin/sh
exec qemu-aarch64-static -L "$build/aarch64-root/root" "$build/aarch64-root/root/usr/bin/python3" "\$@"
END
chmod +x "$build/python-aarch64"
cd "$here"
PYTHONPATH=$site PYTHONDONTWRITEBYTECODE=1 "$build/python-aarch64" -c "
import sys, pytest
sys.executable = '$build/python-aarch64'
raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests']))"
