"""The table of ops against the runtime's own code and library, and against the document that shows it."""

import re
from pathlib import Path

import gossamer_runtime
import numpy as np
import pytest
from export.onnx_graphs import network
from onnx import TensorProto, helper

from gossamer.graph.activations import FUNCTIONS, activation_node
from gossamer.graph.graph import Graph
from gossamer.graph.ops import DOMAIN, DOMAIN_VERSION, OPS, as_table

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "runtime" / "native" / "ort"
OPTIONS = r'(?:IntegerOr|IntegersOr|FloatOr|StringOr)\([^;{]*?"(\w+)"'


def registered() -> dict[str, tuple[Path, list[tuple[str, bool]]]]:
    """Op -> the file of its struct, and the type of each input and whether it may be left out.

    Ops of bytes are not in the table: no exporter writes them.
    """
    found = {}
    for header in set(NATIVE.glob("*.h")) - set(NATIVE.glob("quantised_*.h")):
        text = header.read_text(encoding="utf-8")
        for name, inputs in re.findall(r'kName = "(\w+)";.*?kInputs = (.*?);', text, re.DOTALL):
            kinds = re.findall(r"ELEMENT_DATA_TYPE_(\w+), (true|false)", inputs)
            found[name] = header, [(kind.lower(), optional == "true") for kind, optional in kinds]
    return found


def source(header: Path) -> str:
    """What an op's kernel does, with what it shares with other ops (but for attributes.h)."""
    text = header.with_suffix(".cc").read_text(encoding="utf-8")
    shared = set(re.findall(r'#include "ort/(\w+\.h)"', text)) - {"attributes.h", header.name}
    return text + "".join((NATIVE / name).read_text(encoding="utf-8") for name in sorted(shared))


def test_the_ops_are_those_that_the_runtime_registers_with_their_inputs() -> None:
    native = {name: inputs for name, (_, inputs) in registered().items() if name != "Peak"}
    table = {
        op.name: [("uint8" if given.lies == "packed" else "float", given.optional) for given in op.inputs]
        for op in OPS.values()
    }
    assert native == table


def test_the_attributes_are_those_that_the_runtime_reads() -> None:
    common = (NATIVE / "attributes.h").read_text(encoding="utf-8")
    of_function = {
        name: set(re.findall(OPTIONS, body))
        for name, body in re.findall(r"inline \w+ (ReadEpilogue)\(.*?\n(.*?)\n}\n", common, re.DOTALL)
    }
    convolution = re.findall(r"ConvolutionAttributes ReadConvolution\(.*?\n(.*?)\n}\n", common, re.DOTALL)[0]
    of_function["ReadConvolution"] = set(re.findall(OPTIONS, convolution))
    assert len(of_function["ReadEpilogue"]) >= 3
    for name, (header, _) in registered().items():
        if name == "Peak":
            continue
        text = source(header)
        read = set(re.findall(OPTIONS, text))
        for function, names in of_function.items():
            read |= names if function in text else set()
        # A window is read whole, as that of a convolution; a pooling has no weight, a stem's is not dilated.
        missing = read - set(OPS[name].attributes) if name != "ToPanel" else set()
        assert missing <= {"dilations", "group", "output_channels"}, name
        assert set(OPS[name].attributes) <= read, name


@pytest.mark.usefixtures("native_library")
def test_the_activation_functions_are_those_that_the_library_knows() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 1, 1], np.ones(12))
    nodes = [
        helper.make_node("StemConv", ["x", "w"], ["p"], domain=DOMAIN, output_channels=4, activation="none at all"),
        helper.make_node("FromPanel", ["p"], ["y"], domain=DOMAIN, channels=4),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    values[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])
    graph = helper.make_graph(nodes, "activation", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    with pytest.raises(Exception, match="known: ") as refused:
        gossamer_runtime.Session(model.SerializeToString())
    known = re.search(r"known: ([\w, ]+)", str(refused.value))
    assert known is not None
    assert known[1].split(", ") == list(FUNCTIONS)


def test_a_slope_that_is_no_number_is_no_activation_function() -> None:
    for alpha, expected in ((0.2, "leakyrelu"), (np.inf, None), (np.nan, None)):
        leaky = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=alpha)
        found = activation_node(Graph(network([leaky], {"x": ["n"]}, {}, ["y"])), leaky)
        assert (None if found is None else found.name) == expected


def test_the_document_shows_the_table() -> None:
    assert as_table() in (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
