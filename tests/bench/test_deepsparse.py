"""The network that DeepSparse is given; that it runs needs an environment of its own, which no test makes."""

import onnx
import pytest
from bench.test_network import PICTURES, TOKENS, draw
from export.onnx_graphs import assert_same, run_dense

from gossamer.bench.engines.deepsparse import for_deepsparse
from gossamer.bench.network import build, read


@pytest.mark.parametrize(("text", "name", "shape"), [(PICTURES, "image", (1, 3, 10, 9)), (TOKENS, "tokens", (1, 5, 8))])
def test_the_same_network_in_an_opset_that_it_has_every_op_of(text: str, name: str, shape: tuple[int, ...]) -> None:
    model = build(read("network", text), 0.3)
    old = for_deepsparse(model)
    # Of opset 19 it has no Reshape outside of what it compiles.
    assert [(entry.domain, entry.version) for entry in old.opset_import] == [("", 18)]
    onnx.checker.check_model(old)
    assert_same(run_dense(old, {name: draw(*shape)}), run_dense(model, {name: draw(*shape)}))
