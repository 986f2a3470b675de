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
from gossamer.graph.ops import DOMAIN, DOMAIN_VERSION, OPS, TYPES, as_table

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "runtime" / "native" / "ort"
OPTIONS = r'(?:IntegerOr|IntegersOr|FloatOr|StringOr|ReadByte|ReadFactor|RequireScale|Given)\([^;{]*?"(\w+)"'


def registered() -> dict[str, tuple[Path, list[tuple[str, bool]]]]:
    """Op -> the file of its struct, and the type of each input and whether it may be left out."""
    found = {}
    requantisation = (NATIVE / "requantisation_attributes.h").read_text(encoding="utf-8")
    shared = re.findall(r"kRequantisedInputs = (.*?);", requantisation, re.DOTALL)[0]
    for header in NATIVE.glob("*.h"):
        text = header.read_text(encoding="utf-8")
        for name, inputs in re.findall(r'kName = "(\w+)";.*?kInputs = (.*?);', text, re.DOTALL):
            inputs = shared if inputs == "kRequantisedInputs" else inputs
            kinds = re.findall(r"ELEMENT_DATA_TYPE_(\w+), (true|false)", inputs)
            found[name] = header, [(kind.lower(), optional == "true") for kind, optional in kinds]
    return found


def source(header: Path) -> str:
    """What an op's kernel does, with what it shares with other ops (but for what reads attributes for all of them)."""
    text = header.with_suffix(".cc").read_text(encoding="utf-8")
    shared = set(re.findall(r'#include "ort/(\w+\.h)"', text)) - {
        "attributes.h",
        "requantisation_attributes.h",
        header.name,
    }
    return text + "".join((NATIVE / name).read_text(encoding="utf-8") for name in sorted(shared))


def test_the_ops_are_those_that_the_runtime_registers_with_their_inputs() -> None:
    native = {name: inputs for name, (_, inputs) in registered().items() if name != "Peak"}
    table = {op.name: [(TYPES[given.lies], given.optional) for given in op.inputs] for op in OPS.values()}
    assert native == table


def test_the_attributes_are_those_that_the_runtime_reads() -> None:
    common = (NATIVE / "attributes.h").read_text(encoding="utf-8")
    of_function = {
        name: set(re.findall(OPTIONS, body))
        for name, body in re.findall(r"inline \w+ (ReadEpilogue|ReadArithmetic)\(.*?\n(.*?)\n}\n", common, re.DOTALL)
    }
    convolution = re.findall(r"ConvolutionAttributes ReadConvolution\(.*?\n(.*?)\n}\n", common, re.DOTALL)[0]
    of_function["ReadConvolution"] = set(re.findall(OPTIONS, convolution))
    requantisation = (NATIVE / "requantisation_attributes.h").read_text(encoding="utf-8")
    of_function["ReadRequantisation"] = set(re.findall(OPTIONS, requantisation.split("ReadRequantisation")[1]))
    assert len(of_function["ReadEpilogue"]) >= 3
    of_header: dict[Path, list[str]] = {}
    for name, (header, _) in registered().items():
        of_header.setdefault(header, []).extend([name] if name != "Peak" else [])
    for header, names_of_ops in of_header.items():
        text = source(header)
        read = set(re.findall(OPTIONS, text))
        for function, names in of_function.items():
            read |= names if function in text else set()
        # A window is read whole, as that of a convolution; a pooling has no weight, a stem's is not dilated.
        known = {attribute for name in names_of_ops for attribute in OPS[name].attributes}
        assert not names_of_ops or read - known <= {"dilations", "group", "output_channels"}, header
        assert known <= read, header


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
    document = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    assert as_table() in document
    assert as_table(quantised=True) in document
