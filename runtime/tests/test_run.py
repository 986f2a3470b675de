"""gossamer-run: what it prints and writes, and that a user's mistake is one line on stderr and exit code 2."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnxruntime
import pytest
from gossamer_runtime.run import main, time_runs
from onnx import TensorProto, helper

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

IMAGE = np.random.default_rng(2).standard_normal((1, 8, 14, 14)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, small_model: bytes) -> str:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_model)
    return str(path)


def saved(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


def mistake(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that is written to stderr, by Python or by ONNX Runtime itself."""
    code = main([*arguments, "--repeats", "0"])
    line = capfd.readouterr().err
    assert code == 2
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def test_outputs_are_those_of_onnx_runtime(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = saved(tmp_path / "x.npy", IMAGE)
    arguments = ["--input", image, "--output", str(tmp_path / "out"), "--threads", "1", "--repeats", "2"]
    assert main([model, *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("y: float32 [1, 8, 14, 14]\nready in ")
    assert "2 runs: median" in printed.out
    assert printed.err == ""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(gossamer_runtime.library_path())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "y.npy"), session.run(None, {"x": IMAGE})[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "-1"], "--threads: expected a whole number from 0 to 1024, got '-1'"),
        (["--threads", "9" * 5000], "--threads: expected a whole number from 0 to 1024"),
        (["--threads", "two"], "got 'two'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        ([], "arguments are required: model"),
    ],
)
def test_arguments(arguments: list[str], message: str, model: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert message in mistake(capfd, *([model] if arguments else []), *arguments)


def test_a_missing_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "none.onnx does not exist" in mistake(capfd, str(tmp_path / "none.onnx"))
    assert "is no file" in mistake(capfd, str(tmp_path))


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_damaged_model(kept: int, model: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(model).write_bytes(Path(model).read_bytes()[:kept])
    assert "ONNX Runtime cannot load" in mistake(capfd, model)


def test_without_the_native_part(
    model: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOSSAMER_OPS", "nothing.so")
    assert "nothing.so does not exist: gossamer-runtime was installed without" in mistake(capfd, model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        (b"", "holds no array"),
        (b"PK\x03\x04 what savez writes begins so", "holds no array"),
        (pickle.dumps([1, 2]), "holds no array"),
        (np.array([{"a": 1}], dtype=object), "holds no array that numpy.save wrote without pickling"),
        (IMAGE[0], "input x has the shape [1, 8, 14, 14], got [8, 14, 14] in"),
        (IMAGE[..., 0], "input x has the shape [1, 8, 14, 14], got [1, 8, 14] in"),
        (IMAGE[:, :7], "input x has the shape [1, 8, 14, 14], got [1, 7, 14, 14] in"),
        (IMAGE.astype(np.float64), "input x is of type float32, got float64 in"),
        (IMAGE.astype(">f4"), "input x is of type float32, got >f4 in"),
        (np.array("text"), "input x is of type float32, got <U4 in"),
    ],
)
def test_an_input_that_does_not_fit(
    content: bytes | np.ndarray | None, message: str, model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    assert message in mistake(capfd, model, "--input", str(path))


def test_no_damaged_input_is_a_traceback(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npy"
    whole = bytearray(Path(saved(path, IMAGE)).read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(0, 80, 100):
        damaged = whole.copy()
        damaged[place] ^= rng.integers(1, 256, dtype=np.uint8)
        path.write_bytes(damaged)
        code = main([model, "--input", str(path), "--repeats", "0"])
        captured = capfd.readouterr()
        assert (code, captured.err.count("\n")) in {(0, 0), (2, 1)}


def test_an_input_that_is_no_file(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A named pipe is never written to, and opening it would wait for that."""
    os.mkfifo(tmp_path / "x.npy")
    assert "x.npy is no regular file" in mistake(capfd, model, "--input", str(tmp_path / "x.npy"))


def test_inputs_that_do_not_match_the_models(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = saved(tmp_path / "x.npy", IMAGE)
    twice = ["--input", image, "--input", image]
    assert "the model has inputs: x; got 2 files" in mistake(capfd, model, *twice)
    assert "the model has no input z; its inputs: x" in mistake(capfd, model, "--input", f"z={image}")


def two_inputs(path: Path) -> str:
    """a + b, both of one length that the model leaves open."""
    vectors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two", vectors[:2], vectors[2:])
    imports = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    return str(path)


def test_inputs_by_name_and_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = two_inputs(tmp_path / "two.onnx")
    a, b = (saved(tmp_path / f"{size}.npy", np.arange(size, dtype=np.float32)) for size in (3, 4))
    line = mistake(capfd, model, "--input", a, "--input", b)
    assert "ONNX Runtime cannot run the model on a [3], b [4]: " in line
    assert "input b is given twice" in mistake(capfd, model, "--input", f"b={b}", "--input", a)
    out = tmp_path / "out"
    assert main([model, "--input", f"b={a}", "--input", f"a={a}", "--output", str(out), "--repeats", "0"]) == 0
    np.testing.assert_array_equal(np.load(out / "c.npy"), np.array([0, 2, 4], np.float32))


def test_a_folder_that_cannot_be_written(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert "cannot write output y into" in mistake(capfd, model, "--output", model)


def test_times_are_those_of_the_runs(model: str) -> None:
    session = gossamer_runtime.Session(model, threads=1)
    begin = time.perf_counter()
    seconds = time_runs(session, {"x": IMAGE}, 3)
    assert len(seconds) == 3
    assert seconds == sorted(seconds)
    assert 0 < sum(seconds) <= time.perf_counter() - begin


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "gossamer_runtime.run", "no.onnx", "--threads", "-1"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    # ONNX Runtime itself warns of processors that it does not know, such as qemu's.
    (told,) = (line for line in finished.stderr.splitlines() if not line.startswith("onnxruntime cpuid_info warning"))
    assert told.startswith("error: ")


def of_types(path: Path, inputs: dict[str, tuple[int, list[int | str]]]) -> str:
    """A model that returns its inputs as they are."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    outputs = [helper.make_tensor_value_info(f"{name}.out", kind, shape) for name, (kind, shape) in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"]) for name in inputs]
    graph = helper.make_graph(nodes, "same", values, outputs)
    imports = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    return str(path)


def test_inputs_that_are_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Normal numbers, zeros where they are whole, and 1 where an axis is open."""
    kinds = {"f": (TensorProto.FLOAT, [2, "n"]), "w": (TensorProto.INT64, [3]), "b": (TensorProto.BOOL, [1])}
    model = of_types(tmp_path / "m.onnx", kinds)  # type: ignore[arg-type]
    assert main([model, "--output", str(tmp_path / "out"), "--repeats", "0"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "f.out: float32 [2, 1]",
        "w.out: int64 [3]",
        "b.out: bool [1]",
    ]
    found = {name: np.load(tmp_path / "out" / f"{name}.out.npy") for name in kinds}
    assert found["w"].tolist() == [0, 0, 0]
    assert found["b"].tolist() == [False]
    expected = np.random.default_rng(0).standard_normal((2, 1)).astype(np.float32)
    np.testing.assert_array_equal(found["f"], expected)


def test_inputs_that_cannot_be_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = of_types(tmp_path / "text.onnx", {"s": (TensorProto.STRING, [2])})
    assert "input s is of type tensor(string): give it with --input" in mistake(capfd, text)
    huge = of_types(tmp_path / "huge.onnx", {"x": (TensorProto.FLOAT, [2**40, 2**40])})
    assert f"input x of shape [{2**40}, {2**40}] cannot be made" in mistake(capfd, huge)


def test_outputs_that_no_file_holds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sequence is told by its type; texts are no plain numbers."""
    vector = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    several = helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["x", "x"], ["q"])], "two", [vector], [several])
    imports = [helper.make_opsetid("", 17)]
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    assert main([str(path), "--repeats", "0"]) == 0
    assert capfd.readouterr().out == "q: seq(tensor(float))\n"
    message = "output q is of type seq(tensor(float)), which no .npy file holds: leave out --output"
    assert message in mistake(capfd, str(path), "--output", str(tmp_path / "out"))
    constant = helper.make_node("Constant", [], ["t"], value_strings=[b"a"])
    texts = helper.make_tensor_value_info("t", TensorProto.STRING, [1])
    graph = helper.make_graph([constant], "text", [], [texts])
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    assert "cannot write output t of type object" in mistake(capfd, str(path), "--output", str(tmp_path / "out"))
