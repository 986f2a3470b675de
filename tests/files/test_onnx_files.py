"""ONNX files: weights are known by the graph, external data are streamed, and ONNX Runtime runs what comes out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharded import pruned_in_memory
from torch import nn

from gossamer.errors import ConfigurationError, ExportError
from gossamer.files import prune

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def network(seed: int = 0) -> Any:
    """An embedding, a linear layer as MatMul and one as Gemm, a convolution, and a weight behind a Transpose."""
    draw = np.random.default_rng(seed)

    def constant(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(draw.standard_normal(shape, dtype=np.float32), name)

    initializers = [
        constant("table", 10, 8),
        constant("matmul", 8, 12),
        constant("gemm", 6, 12),
        constant("gemm.bias", 6),
        constant("turned", 8, 6),
        constant("conv", 4, 1, 3),
        constant("added", 3, 8),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "matmul"], ["hidden"], name="/layer/MatMul"),
        helper.make_node("Gemm", ["hidden", "gemm", "gemm.bias"], ["narrow"], transB=1),
        helper.make_node("Transpose", ["turned"], ["straight"]),
        helper.make_node("MatMul", ["narrow", "straight"], ["wide"]),
        helper.make_node("Add", ["wide", "added"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "axis"], ["channels"]),
        helper.make_node("Conv", ["channels", "conv"], ["result"]),
    ]
    initializers.append(numpy_helper.from_array(np.array([1]), "axis"))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [3])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="a test")


def save(model: Any, path: Path, *, external: bool, **options: Any) -> Path:
    path.parent.mkdir()
    if external:
        options = {"save_as_external_data": True, "size_threshold": 100, "location": "weights.data", **options}
    onnx.save(model, path, **(options if external else {}))
    return path


def weights_of(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def outputs_first(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights by name, those of the layers alone, as torch's layers have them."""
    found = {}
    for name in sorted(("matmul", "gemm", "turned", "conv")):
        found[name] = torch.from_numpy(np.array(weights[name]))
        found[name] = found[name].T if name == "matmul" else found[name]
    return found


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_a_network_runs_with_the_zeros_of_memory(tmp_path: Path, external: bool, structure: str) -> None:
    source = save(network(), tmp_path / "source" / "net.onnx", external=external)
    pruned = prune(source, tmp_path / "out", sparsity=0.7, structure=structure)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "net.onnx",
        "gossamer-prune.json",
        *(["weights.data"] if external else []),
    }
    found = onnx.load(tmp_path / "out" / "net.onnx")
    before, after = weights_of(network()), weights_of(found)
    expected = pruned_in_memory(outputs_first(before), 0.7, structure)
    for name, weight in before.items():
        wanted = expected[name].T if name == "matmul" else expected.get(name, weight)
        np.testing.assert_array_equal(after[name], np.asarray(wanted))
    ids = np.array([1, 2, 3])
    for name in expected:
        wanted = expected[name].T if name == "matmul" else expected[name]
        before[name] = np.asarray(wanted)
    in_memory = network()
    for tensor in in_memory.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(before[tensor.name]), tensor.name))
    runs = [
        onnxruntime.InferenceSession(given).run(None, {"ids": ids})
        for given in (str(tmp_path / "out" / "net.onnx"), in_memory.SerializeToString())
    ]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert found.producer_name == "a test"
    assert {one.stored.name: one.reason for one in pruned.left} == {
        "table": "an embedding, of which rows are gathered (--include takes it)",
        "added": "no weight of a layer at the top of the graph (--include takes it)",
        "gemm.bias": "one axis",
        "axis": "holds I64",
    }


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_recurrent_layers_have_their_inputs_last(tmp_path: Path, structure: str) -> None:
    draw = np.random.default_rng(1)
    weights = {"recurrent": draw.standard_normal((2, 16, 4)), "weight": draw.standard_normal((2, 16, 6))}
    tensors = [numpy_helper.from_array(weight.astype(np.float32), name) for name, weight in weights.items()]
    node = helper.make_node("LSTM", ["x", "weight", "recurrent"], ["y"], hidden_size=4, direction="bidirectional")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "network", infos[:1], infos[1:], tensors), ir_version=9)
    source = save(model, tmp_path / "source" / "net.onnx", external=True)
    prune(source, tmp_path / "out", sparsity=0.6, structure=structure)
    after = weights_of(onnx.load(tmp_path / "out" / "net.onnx"))
    rows = {name: torch.from_numpy(weight.astype(np.float32)).flatten(0, 1) for name, weight in weights.items()}
    for name, expected in pruned_in_memory(rows, 0.6, structure).items():
        np.testing.assert_array_equal(after[name].reshape(expected.shape), expected.numpy())


def test_an_exported_network_of_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from gossamer.export.from_torch import to_onnx

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10)).eval()
    exported = to_onnx(model, [torch.zeros(1, 3, 6, 6)]).model
    source = save(exported, tmp_path / "source" / "net.onnx", external=True)
    pruned = prune(source, tmp_path / "out", sparsity=0.9)
    assert pruned.prunable == 8 * 3 * 9 + 8 * 16 * 10
    with torch.no_grad():
        expected = pruned_in_memory({"0.weight": model[0].weight, "3.weight": model[3].weight}, 0.9)
        model[0].weight.copy_(expected["0.weight"])
        model[3].weight.copy_(expected["3.weight"])
    inputs = torch.randn(1, 3, 6, 6)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "net.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(inputs).detach())


def test_constants_of_the_same_bytes_are_one_weight(tmp_path: Path) -> None:
    source = save(network(), tmp_path / "source" / "net.onnx", external=True)
    model = onnx.load(source, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    twin = TensorProto()
    twin.CopyFrom(tensors["matmul"])
    twin.name = "twin"
    model.graph.initializer.append(twin)
    source.write_bytes(model.SerializeToString())
    pruned = prune(source, tmp_path / "out", sparsity=0.7)
    assert pruned.prunable == 8 * 12 + 6 * 12 + 8 * 6 + 4 * 3
    after = weights_of(onnx.load(tmp_path / "out" / "net.onnx"))
    np.testing.assert_array_equal(after["twin"], after["matmul"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "../outside.data", "expected a file of its own beside it"),
        ("location", "/outside.data", "expected a file of its own beside it"),
        ("location", "", "expected a file of its own beside it"),
        ("location", "net.onnx", "expected a file of its own beside it"),
        ("location", "absent.data", "cannot be read from absent.data"),
        ("offset", "-4", "cannot be read from"),
        ("offset", "many", "cannot be read from"),
        ("offset", "1000000", "expected external data as they were written"),
        ("offset", "36", "overlap in"),
        ("length", "4", "expected external data as they were written"),
    ],
)
def test_external_data_that_lie_are_refused(tmp_path: Path, key: str, value: str, message: str) -> None:
    source = save(network(), tmp_path / "source" / "net.onnx", external=True)
    (tmp_path / "outside.data").write_bytes(bytes(10_000))
    model = onnx.load(source, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "matmul")
    for one in tensor.external_data:
        if one.key == key:
            one.value = value
    source.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=message):
        prune(source, tmp_path / "out", sparsity=0.7)
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_not_stored_as_bytes(tmp_path: Path) -> None:
    """bfloat16 in fields of whole numbers, float32 in fields of numbers."""
    weights = [helper.make_tensor("first", TensorProto.BFLOAT16, [2, 4], [1, 2, 3, 4, 5, 6, 7, 8])]
    weights.append(helper.make_tensor("second", TensorProto.FLOAT, [4, 2], [8, 7, 6, 5, 4, 3, 2, 1]))
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["z", "second"], ["w"]),
    ]
    infos = [
        helper.make_tensor_value_info(n, k, None) for n, k in (("x", TensorProto.BFLOAT16), ("w", TensorProto.FLOAT))
    ]
    model = helper.make_model(helper.make_graph(nodes, "network", infos[:1], infos[1:], weights), ir_version=9)
    prune(save(model, tmp_path / "source" / "net.onnx", external=False), tmp_path / "out", sparsity=0.5)
    after = weights_of(onnx.load(tmp_path / "out" / "net.onnx"))
    assert after["first"].astype(np.float32).tolist() == [[0, 0, 0, 0], [5, 6, 7, 8]]
    assert after["second"].tolist() == [[8, 7], [6, 5], [0, 0], [0, 0]]


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="is no valid ONNX file"):
        prune(tmp_path / "net.onnx", tmp_path / "out", sparsity=0.5)
    with pytest.raises(ConfigurationError, match=r"there is no .*absent\.onnx"):
        prune(tmp_path / "absent.onnx", tmp_path / "out", sparsity=0.5)
