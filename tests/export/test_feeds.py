"""Inputs that an ONNX file is compared on: of files, of sizes that are said, and random ones."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from export.onnx_graphs import assert_same, run_dense, run_sparse, sparse_weight
from onnx import TensorProto, helper, numpy_helper
from small_run import printed, refused

node = helper.make_node
RNG = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("native_library")


def saved(
    path: Path, nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], **constants: np.ndarray
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "test", inputs, [helper.make_tensor_value_info("y", 1, None)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return model


def sampled(folder: Path) -> onnx.ModelProto:
    """A network of sound that takes one sample rate only, and whose state has the batch on its second axis."""
    nodes = [
        node("Sub", ["rate", "accepted"], ["off"]),
        node("Gather", ["factors", "off"], ["factor"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "state"], ["i"]),
        node("Mul", ["i", "factor"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "samples"]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, "batch", 512]),
        helper.make_tensor_value_info("rate", TensorProto.INT64, []),
    ]
    weight = sparse_weight(RNG, 96, 512, density=0.02)
    constants = {"accepted": np.int64(16000), "factors": np.float32([3.0]), "w": weight}
    return saved(folder / "sampled.onnx", nodes, inputs, **constants)


def test_values_and_sizes_that_a_network_accepts(tmp_path: Path) -> None:
    dense = sampled(tmp_path)
    np.save(tmp_path / "rate.npy", np.asarray(16000))
    np.save(tmp_path / "x.npy", RNG.standard_normal((3, 96)))
    np.save(tmp_path / "state.npy", RNG.standard_normal((1, 3, 512)).astype(np.float16))
    source, rate = tmp_path / "sampled.onnx", f"rate={tmp_path}/rate.npy"
    output = printed("export", source, "-o", tmp_path / "1.onnx", "--input", rate, "--size", "samples=96")
    assert "compared on the given inputs and 4 random batches of inputs (seed 0) for the others" in output
    given = ["--input", rate, "--input", f"x={tmp_path}/x.npy"]
    # The batch is that of x.
    assert "for the others" in printed("export", source, "-o", tmp_path / "2.onnx", *given)
    given += ["--input", f"state={tmp_path}/state.npy"]
    assert "compared on the given inputs:" in printed("export", source, "-o", tmp_path / "3.onnx", *given)
    feed = {"x": np.load(tmp_path / "x.npy"), "state": np.load(tmp_path / "state.npy"), "rate": np.asarray(16000)}
    feed = {name: values if name == "rate" else values.astype(np.float32) for name, values in feed.items()}
    for number in (1, 2, 3):
        written = onnx.load(tmp_path / f"{number}.onnx")
        assert_same(run_sparse(written, feed), run_dense(dense, feed))


def test_the_runtimes_own_words_are_quoted(tmp_path: Path) -> None:
    sampled(tmp_path)
    out = tmp_path / "m.onnx"
    message = refused("export", tmp_path / "sampled.onnx", "-o", out, "--size", "samples=96")
    assert "\n" not in message
    assert "while running Gather node" in message
    assert "--input NAME=FILE.npy" in message
    assert "rate (int64 [])" in message
    np.save(tmp_path / "rate.npy", np.int64(8000))
    rate = ["--input", f"rate={tmp_path}/rate.npy"]
    assert "--size samples=NUMBER" in refused("export", tmp_path / "sampled.onnx", "-o", out, *rate)
    np.save(tmp_path / "x.npy", np.float32(RNG.standard_normal((3, 96))))
    np.save(tmp_path / "state.npy", np.zeros((1, 3, 512), np.float32))
    rest = ["--input", f"x={tmp_path}/x.npy", "--input", f"state={tmp_path}/state.npy"]
    message = refused("export", tmp_path / "sampled.onnx", "-o", out, *rate, *rest)
    assert "does not run the network on the given inputs (" in message
    assert "x [3, 96]" in message
    assert "state [1, 3, 512]" in message
    assert "while running Gather node" in message
    assert not out.exists()


def mistakes() -> Sequence[tuple[list[str], str]]:
    return [
        (["--input", "rate"], "expected a name and a file such as image=image.npy"),
        (["--input", "rate=rate.npy", "--input", "rate=x.npy"], "says rate twice: rate.npy and x.npy"),
        (["--input", "rates=rate.npy"], "no input 'rates'; it has x (float [batch, samples])"),
        (["--input", "rate=none.npy"], "there is no file none.npy"),
        (["--input", "rate=text.npy"], "text.npy cannot be read"),
        (["--input", "rate=objects.npy"], "objects.npy cannot be read"),
        (["--input", "rate=several.npz"], "several.npz holds several arrays"),
        (["--input", "rate=x.npy"], "x.npy has the shape [3, 96]; expected that of rate (int64 [])"),
        (["--input", "state=flat.npy"], "expected that of state (float [1, batch, 512])"),
        (["--input", "rate=half.npy"], "half.npy is of type float64; expected values of rate (int64 [])"),
        (
            ["--input", "x=x.npy", "--input", "state=state.npy"],
            "the size batch is 4 in the input state, and 3",
        ),
        (["--input", "x=x.npy", "--size", "samples=95"], "the size samples is 96 in the input x, and 95"),
        (["--size", "sample=96"], "no open size 'sample'; open are batch, samples"),
        (["--input", "x=huge.npy"], "huge.npy cannot be read (Unable to allocate"),
        (["--input", "x=beyond.npy"], "beyond.npy holds numbers beyond the range of float32"),
        (["--size", "batch=16777216", "--size", "samples=96"], "would be 1,610,612,736 numbers, more than"),
        (["--size", "samples=0"], "got 0 for the size samples"),
        (["--size", "samples"], "expected a name and a whole number such as height=224"),
    ]


@pytest.mark.parametrize(("arguments", "message"), mistakes())
def test_mistakes(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sampled(tmp_path)
    Path("text.npy").write_text("16000")
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("several.npz", a=np.zeros(1), b=np.zeros(1))
    np.save("rate.npy", np.asarray(16000))
    np.save("half.npy", np.asarray(0.5))
    np.save("beyond.npy", np.full((3, 96), 1e300))
    # A few bytes that say there are many.
    with Path("huge.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**45, 96)}
        np.lib.format.write_array_header_1_0(file, header)
    np.save("x.npy", np.zeros((3, 96)))
    np.save("state.npy", np.zeros((1, 4, 512)))
    np.save("flat.npy", np.zeros((2, 4, 512)))
    assert message in refused("export", "sampled.onnx", *arguments)
    assert not Path("model.onnx").exists()


def test_one_name_for_axes_of_several_sizes(tmp_path: Path) -> None:
    """Paddle's exporter calls every open axis by one name; ONNX Runtime runs such networks, so they are exported."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["?", 16, "?", "?"])]
    weight = sparse_weight(RNG, 64, 16, 3, 3, density=0.1)
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["y"])]
    dense = saved(tmp_path / "m.onnx", nodes, inputs, w=weight)
    np.save(tmp_path / "x.npy", RNG.standard_normal((1, 16, 12, 20)).astype(np.float32))
    written = tmp_path / "o.onnx"
    assert "1 of 1 layers run sparse" in printed(
        "export", tmp_path / "m.onnx", "-o", written, "--input", f"x={tmp_path}/x.npy"
    )
    for shape in ((1, 16, 12, 20), (2, 16, 31, 7)):
        feed = {"x": RNG.standard_normal(shape).astype(np.float32)}
        assert_same(run_sparse(onnx.load(written), feed), run_dense(dense, feed))


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.INT32, ["n"])]
    saved(tmp_path / "m.onnx", [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], inputs)
    np.save(tmp_path / "x.npy", np.asarray([2**40]))
    message = refused("export", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--input", f"x={tmp_path}/x.npy")
    assert "is of type int64; expected values of x (int32 [n])" in message


def test_what_is_no_onnx_file_comes_with_inputs_of_its_own(tmp_path: Path) -> None:
    for option in ("--input", "--size"):
        value = f"x={tmp_path}/x.npy" if option == "--input" else "x=3"
        assert f"{option} says what an ONNX file is compared on" in refused("export", "digits", option, value)


def test_a_network_that_takes_one_example_only(tmp_path: Path) -> None:
    """Although the file leaves the number open."""
    nodes = [node("Reshape", ["x", "shape"], ["flat"]), node("MatMul", ["flat", "w"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 4])]
    constants = {"shape": np.int64([1, 32]), "w": sparse_weight(RNG, 32, 16)}
    saved(tmp_path / "m.onnx", nodes, inputs, **constants)
    printed("export", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx")
