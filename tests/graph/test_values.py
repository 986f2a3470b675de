"""Networks that take or return more than tensors of numbers: texts, sequences, maps, optional values."""

from collections.abc import Sequence
from pathlib import Path

import gossamer_runtime
import numpy as np
import onnx
import pytest
from export.onnx_graphs import assert_same, normal, sparse_weight
from onnx import TensorProto, helper, numpy_helper
from small_run import printed, refused

from gossamer.export.agreement import Agreement, compare, running
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.source import open_source
from gossamer.graph.sessions import dense_session
from gossamer.graph.values import arrays_in, draw, tensor_of, type_text

node, tensor = helper.make_node, helper.make_tensor_value_info
F, S, B = TensorProto.FLOAT, TensorProto.STRING, TensorProto.BOOL
WIDTH = 128

pytestmark = pytest.mark.usefixtures("native_library")


def sequence(name: str, kind: onnx.TypeProto) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, helper.make_sequence_type_proto(kind))


def optional(name: str) -> onnx.ValueInfoProto:
    kind = helper.make_tensor_type_proto(F, ["n", 64])
    return helper.make_value_info(name, helper.make_optional_type_proto(kind))


def a_map(key: int) -> onnx.TypeProto:
    return helper.make_map_type_proto(key, helper.make_tensor_type_proto(F, []))


FLOATS = helper.make_tensor_type_proto(F, ["n", 64])
LAYER = node("Gemm", ["x", "w"], ["y"], name="layer", transB=1)
X, Y = tensor("x", F, ["n", 64]), tensor("y", F, ["n", WIDTH])
LEARNED = "ai.onnx.ml"
NUMBERS = list(range(WIDTH))

Border = tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]
BORDERS: dict[str, Border] = {
    "texts that pass through": (
        [LAYER, node("Identity", ["s"], ["t"])],
        [X, tensor("s", S, ["n"])],
        [Y, tensor("t", S, ["n"])],
    ),
    "texts of names": (
        [LAYER, node("ArgMax", ["y"], ["k"], axis=1), node("Gather", ["names", "k"], ["t"])],
        [X],
        [tensor("t", S, None)],
    ),
    "a sequence that passes through": (
        [LAYER, node("Identity", ["q"], ["r"])],
        [X, sequence("q", FLOATS)],
        [Y, sequence("r", FLOATS)],
    ),
    "a sequence to compute with": (
        [node("ConcatFromSequence", ["q"], ["x"], axis=0), LAYER],
        [sequence("q", FLOATS)],
        [Y],
    ),
    "a sequence that is returned": (
        [LAYER, node("SplitToSequence", ["y"], ["q"], axis=0)],
        [X],
        [sequence("q", helper.make_tensor_type_proto(F, None))],
    ),
    "an optional value that passes through": (
        [LAYER, node("Identity", ["o"], ["p"])],
        [X, optional("o")],
        [Y, optional("p")],
    ),
    "an optional value that is asked for": (
        [LAYER, node("OptionalHasElement", ["o"], ["p"])],
        [X, optional("o")],
        [Y, tensor("p", B, [])],
    ),
    "an optional value to compute with": ([node("OptionalGetElement", ["o"], ["x"]), LAYER], [optional("o")], [Y]),
    "maps of numbers that are returned": (
        [LAYER, node("ZipMap", ["y"], ["m"], domain=LEARNED, classlabels_int64s=NUMBERS)],
        [X],
        [sequence("m", a_map(TensorProto.INT64))],
    ),
    "maps of texts that are returned": (
        [LAYER, node("ZipMap", ["y"], ["m"], domain=LEARNED, classlabels_strings=[f"c{n}" for n in NUMBERS])],
        [X],
        [sequence("m", a_map(S))],
    ),
    "a map": (
        [node("DictVectorizer", ["m"], ["x"], domain=LEARNED, int64_vocabulary=NUMBERS[:64]), LAYER],
        [helper.make_value_info("m", a_map(TensorProto.INT64))],
        [tensor("y", F, [1, WIDTH])],
    ),
    "an axis of -1": ([LAYER], [tensor("x", F, [-1, 64])], [tensor("y", F, [-1, WIDTH])]),
    "one name for two axes": (
        [LAYER, node("MatMul", ["z", "y"], ["p"])],
        [X, tensor("z", F, [64, "n"])],
        [tensor("p", F, [64, WIDTH])],
    ),
}


def written(path: Path, border: Border) -> Path:
    nodes, inputs, outputs = border
    rng = np.random.default_rng(0)
    constants = {
        "w": sparse_weight(rng, WIDTH, 64, density=0.05),
        "names": np.asarray([f"class {place}" for place in range(WIDTH)], object),
    }
    read = {name for made in nodes for name in made.input}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(LEARNED, 3)]
    graph = helper.make_graph(nodes, "border", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


@pytest.mark.parametrize("name", BORDERS)
def test_what_is_no_tensor_of_numbers(name: str, tmp_path: Path) -> None:
    """The file is written, and computes what the network does on inputs of these types."""
    path = written(tmp_path / "given.onnx", BORDERS[name])
    source = open_source(str(path))
    exported = export(source, tmp_path / "written.onnx", costs=EverythingSparse())
    assert [layer.form for layer in exported.layers if layer.name == "layer"] == ["sparse"]
    given = dense_session(onnx.load(path))
    ours = gossamer_runtime.Session(tmp_path / "written.onnx", threads=1)
    for feed in source.feeds:
        for expected, got in zip(given.run(None, dict(feed)), ours.run(None, dict(feed)), strict=True):
            assert_alike(got, expected)


def test_numbers_of_maps_are_compared_in_the_order_of_their_keys() -> None:
    given = [{2: 0.5, 1: 0.25}, [{"b": 3.0, "a": 4.0}], None]
    found = [np.asarray(array).tolist() for array in arrays_in(given)]
    letters = [[ord("a")], [ord("b")]]
    assert found == [[1, 2], [0.25, 0.5], 1, letters, [4.0, 3.0], []]


def assert_alike(got: object, expected: object) -> None:
    if isinstance(expected, list):
        assert isinstance(got, list)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, dict):
        assert isinstance(got, dict)
        assert got.keys() == expected.keys()
        assert_alike(np.asarray(list(got.values())), np.asarray(list(expected.values())))
    elif np.asarray(expected).dtype == object:
        assert np.array_equal(np.asarray(got), np.asarray(expected))
    else:
        assert_same([np.asarray(got)], [np.asarray(expected)])


def agreement(one: Sequence[object], other: Sequence[object], tmp_path: Path) -> Agreement:
    """Of two networks that return these sequences of texts or numbers."""

    def returning(values: Sequence[object], name: str) -> Path:
        kind = S if isinstance(np.asarray(values[0]).flat[0], str) else F
        dtype = object if kind == S else np.float32
        tensors = [numpy_helper.from_array(np.asarray(value, dtype), f"v{place}") for place, value in enumerate(values)]
        made = [node("SequenceConstruct", [tensor.name for tensor in tensors], ["q"])]
        outputs = [sequence("q", helper.make_tensor_type_proto(kind, None))]
        graph = helper.make_graph(made, "constant", [], outputs, tensors)
        path = tmp_path / name
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
        return path

    sessions = [
        dense_session(onnx.load(returning(values, f"{place}.onnx"))) for place, values in enumerate((one, other))
    ]
    return compare(*map(running, sessions), [{}])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([[1, 2], [3]], [[1, 2], [3]], True),
        ([[1, 2], [3]], [[1, 2], [3.5]], False),
        ([[1, 2], [3]], [[1, 2]], False),
        ([[1, 2], [3]], [[1], [2, 3]], False),
        ([["yes"], ["no"]], [["yes"], ["no"]], True),
        ([["yes"], ["no"]], [["yes"], ["nu"]], False),
        ([["yes"]], [["yes!"]], False),
    ],
)
def test_sequences_are_compared_with_their_structure(
    one: Sequence[object], other: Sequence[object], same: bool, tmp_path: Path
) -> None:
    assert agreement(one, other, tmp_path).within == same


def test_a_file_of_numbers_is_no_sequence(tmp_path: Path) -> None:
    path = written(tmp_path / "given.onnx", BORDERS["a sequence to compute with"])
    np.save(tmp_path / "q.npy", normal(np.random.default_rng(0), 2, 64))
    message = refused("export", path, "-o", tmp_path / "m.onnx", "--input", f"q={tmp_path / 'q.npy'}")
    assert "which is no value of q (a sequence of float [n, 64])" in message


def test_an_input_without_a_shape_is_given(tmp_path: Path) -> None:
    path = written(tmp_path / "given.onnx", ([LAYER], [tensor("x", F, None)], [tensor("y", F, None)]))
    assert "--input NAME=FILE.npy" in refused("export", path, "-o", tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", normal(np.random.default_rng(0), 3, 64))
    printed("export", path, "-o", tmp_path / "m.onnx", "--input", f"x={tmp_path / 'x.npy'}")


# --- types by themselves ---


def test_types_for_people() -> None:
    floats = helper.make_tensor_type_proto(F, ["n", 2])
    assert type_text(floats, ["n", "2"]) == "float [n, 2]"
    assert type_text(helper.make_tensor_type_proto(F, None), []) == "float of any shape"
    assert type_text(helper.make_sequence_type_proto(floats), ["n", "2"]) == "a sequence of float [n, 2]"
    assert type_text(helper.make_optional_type_proto(floats), ["n", "2"]) == "optional float [n, 2]"
    assert type_text(helper.make_map_type_proto(S, floats), ["n", "2"]) == "a map from string to float [n, 2]"
    for nested in (
        floats,
        helper.make_sequence_type_proto(floats),
        helper.make_optional_type_proto(helper.make_sequence_type_proto(floats)),
        helper.make_map_type_proto(S, floats),
    ):
        assert tensor_of(nested) == floats.tensor_type


def test_values_are_drawn_of_every_type() -> None:
    rng = np.random.default_rng(0)
    floats = helper.make_tensor_type_proto(F, None)
    assert draw(floats, (3, 2), rng).shape == (3, 2)
    assert draw(floats, (3, 2), rng).dtype == np.float32
    assert set(np.unique(draw(helper.make_tensor_type_proto(S, None), (50,), rng))) == {"0", "1"}
    whole = draw(helper.make_tensor_type_proto(onnx.TensorProto.INT64, None), (50,), rng)
    assert (whole.dtype, set(whole.tolist())) == (np.dtype(np.int64), {0, 1})
    assert [one.shape for one in draw(helper.make_sequence_type_proto(floats), (4,), rng)] == [(4,), (4,)]
    assert list(draw(helper.make_map_type_proto(S, floats), (4,), rng)) == ["0", "1"]
    assert list(draw(helper.make_map_type_proto(onnx.TensorProto.INT64, floats), (4,), rng)) == [0, 1]
    assert draw(helper.make_optional_type_proto(floats), (4,), rng).shape == (4,)
