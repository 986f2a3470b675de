"""What an installation of gossamer-runtime needs, and what it says when its native part is missing."""

import subprocess
import sys
from pathlib import Path

import gossamer_runtime
import pytest

SMALL_MODEL = Path(__file__).with_name("small_model.py")

WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "gossamer"}:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from gossamer_runtime.run import main
raise SystemExit(main([sys.argv[1], "--repeats", "1", "--threads", "1"]))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_a_model_runs_without_torch(tmp_path: Path) -> None:
    try:
        gossamer_runtime.library_path()
    except gossamer_runtime.NativeLibraryMissing as missing:
        pytest.skip(str(missing))
    model = tmp_path / "small.onnx"
    written = run(str(SMALL_MODEL), str(model))
    assert written.returncode == 0, written.stderr
    finished = run("-c", WITHOUT_TORCH, str(model))
    assert finished.returncode == 0, finished.stderr
    assert "y: float32 [1, 8, 14, 14]" in finished.stdout


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOSSAMER_OPS", str(tmp_path / "nothing.so"))
    with pytest.raises(gossamer_runtime.NativeLibraryMissing, match=r"nothing\.so does not exist.*compiler"):
        gossamer_runtime.library_path()
