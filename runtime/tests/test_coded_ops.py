"""Coded weights inside ONNX Runtime: the native decoder reads what Python wrote, as it reads the same of version 1."""

import gossamer_runtime
import numpy as np
import pytest
from gossamer_runtime import coding, weights
from gossamer_runtime.coding.coded import GAPS, GRID_MIXING, MIXING, SWAPPED_MIXING
from onnx import TensorProto, helper, numpy_helper

try:
    gossamer_runtime.library_path()
except gossamer_runtime.NativeLibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

CODERS = [MIXING, SWAPPED_MIXING, GAPS]


def drawn(shape: tuple[int, ...], density: float, largest: int) -> np.ndarray:
    rng = np.random.default_rng(len(shape))
    levels = rng.integers(1, largest + 1, shape) * rng.choice([-1, 1], shape)
    return np.where(rng.random(shape) < density, levels, 0).astype(np.int32)


def result(nodes: list, x: np.ndarray, constants: dict[str, np.ndarray], threads: int = 1) -> np.ndarray:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("gossamer", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    found: np.ndarray = gossamer_runtime.Session(model, threads=threads).run(None, {"x": x})[0]
    return found


def node(name: str, inputs: list[str], output: str, **attributes: object) -> object:
    return helper.make_node(name, inputs, [output], domain="gossamer", **attributes)


def bytes_of(packed: bytes) -> np.ndarray:
    return np.frombuffer(packed, np.uint8)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("shape", "density", "largest"), [((1, 1), 1.0, 1), ((40, 30), 0.1, 8), ((13, 70), 0.6, 32767)]
)
def test_products(coder: int, half: bool, shape: tuple[int, int], density: float, largest: int) -> None:
    packed = coding.encode(drawn(shape, density, largest), 0.37, half=half, coder=coder)
    plain = weights.encode(weights.decode(packed), half=half)
    x = np.random.default_rng(1).standard_normal((3, shape[1])).astype(np.float32)
    nodes = [node("SparseMatMul", ["x", "w"], "y", output_features=shape[0])]
    # The identity reads the decoder alone, the other the kernel too.
    for values in (np.eye(shape[1], dtype=np.float32), x):
        expected = result(nodes, values, {"w": bytes_of(plain)})
        np.testing.assert_array_equal(result(nodes, values, {"w": bytes_of(packed)}), expected)


@pytest.mark.parametrize("coder", CODERS)
def test_convolutions(coder: int) -> None:
    levels = drawn((12, 10, 3, 3), 0.2, 15)
    packed = coding.encode(levels, 0.02, coder=coder, grid=0)
    plain = weights.encode(levels.astype(np.float32) * np.float32(0.02))
    x = np.random.default_rng(1).standard_normal((1, 10, 9, 9)).astype(np.float32)
    nodes = [
        node("ToPanel", ["x"], "p"),
        node("SparseConv", ["p", "w"], "q", output_channels=12, kernel_shape=[3, 3]),
        node("FromPanel", ["q"], "y", channels=12),
    ]
    expected = result(nodes, x, {"w": bytes_of(plain)})
    np.testing.assert_array_equal(result(nodes, x, {"w": bytes_of(packed)}), expected)


@pytest.mark.parametrize("coder", [*CODERS, GRID_MIXING])
def test_a_weight_that_holds_its_bias(coder: int) -> None:
    """As the same bias beside the weight; both at once are refused."""
    grid = 5 if coder == GRID_MIXING else 0
    held = coding.Bias(drawn((12,), 0.8, 20), 0.3)
    x = np.random.default_rng(1).standard_normal((3, 30)).astype(np.float32)
    levels = drawn((12, 30), 0.2, 15)
    constants = {
        "held": bytes_of(coding.encode(levels, 0.02, coder=coder, grid=grid, bias=held)),
        "bare": bytes_of(coding.encode(levels, 0.02, coder=coder, grid=grid)),
        "bias": held.dense(),
    }

    def product(*inputs: str) -> np.ndarray:
        return result([node("SparseMatMul", ["x", *inputs], "y", output_features=12)], x, constants)

    np.testing.assert_array_equal(product("held"), product("bare", "bias"))
    with pytest.raises(Exception, match="holds a bias, and another one is given"):
        product("held", "bias")


@pytest.mark.parametrize("group", [1, 10])
def test_a_convolution_that_holds_its_bias(group: int) -> None:
    held = coding.Bias(drawn((10,), 0.8, 20), 0.3)
    levels = drawn((10, 10 // group, 3, 3), 0.4, 15)
    x = np.random.default_rng(1).standard_normal((1, 10, 9, 9)).astype(np.float32)
    constants = {
        "held": bytes_of(coding.encode(levels, 0.02, bias=held)),
        "bare": bytes_of(coding.encode(levels, 0.02)),
        "bias": held.dense(),
    }

    def convolved(*inputs: str) -> np.ndarray:
        nodes = [
            node("ToPanel", ["x"], "p"),
            node("SparseConv", ["p", *inputs], "q", output_channels=10, kernel_shape=[3, 3], group=group),
            node("FromPanel", ["q"], "y", channels=10),
        ]
        return result(nodes, x, constants)

    np.testing.assert_array_equal(convolved("held"), convolved("bare", "bias"))
    with pytest.raises(Exception, match="holds a bias, and another one is given"):
        convolved("held", "bias")


@pytest.mark.parametrize("coder", CODERS)
def test_int8(coder: int) -> None:
    levels = drawn((21, 50), 0.3, 127).astype(np.int8)
    x = np.random.default_rng(1).standard_normal((4, 50)).astype(np.float32)
    nodes = [node("DynamicMatMul", ["x", "w", "s"], "y", output_features=21)]
    scales = np.full(21, 0.01, np.float32)
    expected = result(nodes, x, {"w": bytes_of(weights.encode(levels)), "s": scales})
    coded = bytes_of(coding.encode(levels, None, coder=coder))
    np.testing.assert_array_equal(result(nodes, x, {"w": coded, "s": scales}), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_groups_of_rows_by_several_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding.coded, "KEPT_OF_GROUP", 50)
    levels = drawn((40, 30), 0.4, 9)
    nodes = [node("SparseMatMul", ["x", "w"], "y", output_features=40)]
    packed = bytes_of(coding.encode(levels, 0.5, coder=GAPS))
    got = result(nodes, np.eye(30, dtype=np.float32), {"w": packed}, threads)
    np.testing.assert_array_equal(got, 0.5 * levels.T)


def test_a_damaged_weight_is_an_error() -> None:
    packed = bytearray(coding.encode(drawn((5, 6), 0.5, 9), 0.5))
    packed[-6] ^= 1
    nodes = [node("SparseMatMul", ["x", "w"], "y", output_features=5)]
    with pytest.raises(Exception, match="coded weight: the checksum does not match"):
        result(nodes, np.zeros((1, 6), np.float32), {"w": bytes_of(bytes(packed))})
