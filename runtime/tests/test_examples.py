"""The C++ example, compiled against ONNX Runtime's headers and the library inside its wheel, against Python."""

import platform
import shutil
import subprocess
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnxruntime
import pytest

try:
    LIBRARY = gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

RUNTIME = Path(__file__).parents[1]
# Where cmake/OnnxRuntimeHeaders.cmake finds or puts them.
HEADERS = ("/usr/include", "/usr/local/include", RUNTIME.parent / "build/downloads")


def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("g++ is missing (on Debian: apt-get install g++)")
    machine = subprocess.run([found, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    if not machine.startswith(platform.machine()):
        pytest.skip(f"g++ compiles for {machine.strip()}, this Python is for {platform.machine()}")
    return found


def headers() -> Path:
    found = [file for folder in HEADERS for file in Path(folder).rglob("onnxruntime_cxx_api.h")]
    if not found:
        pytest.skip("ONNX Runtime's C++ headers are missing: make setup builds the native part and fetches them")
    return found[0].parent


def shared_library() -> Path:
    found = list(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    if not found:
        pytest.skip(f"the onnxruntime {onnxruntime.__version__} that is installed has no libonnxruntime.so")
    return found[0]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, which finds ONNX Runtime beside it, under the name that the linker wrote into it."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "libonnxruntime.so.1").symlink_to(shared_library())
    command = [
        compiler(),
        *("-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", headers(), RUNTIME / "examples/run.cc"),
        *(folder / "libonnxruntime.so.1", f"-Wl,-rpath,{folder}", "-o", folder / "run"),
    ]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    return str(folder / "run")


@pytest.mark.parametrize("threads", ["0", "1", "2"])
def test_cpp_prints_the_numbers_of_python(threads: str, example: str, small_model: bytes, tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(small_model)
    finished = subprocess.run([example, model, LIBRARY, threads], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    name, _, printed = finished.stdout.partition(":")
    image = (np.arange(8 * 14 * 14, dtype=np.float32) % 7 - 3) / 4
    session = gossamer_runtime.Session(small_model, threads=int(threads))
    expected = session.run(["y"], {"x": image.reshape(1, 8, 14, 14)})[0].ravel()[:8]
    assert name == "y"
    assert expected.any()
    np.testing.assert_array_equal(np.array(printed.split(), np.float32), expected)


def test_cpp_says_what_is_wrong_in_one_line(example: str, tmp_path: Path) -> None:
    for model, library in [(tmp_path / "none.onnx", LIBRARY), (tmp_path / "none.onnx", tmp_path / "none.so")]:
        finished = subprocess.run([example, model, library], capture_output=True, text=True)
        assert finished.returncode == 2
        assert finished.stderr.startswith("error: ")
        assert finished.stderr.count("\n") == 1
