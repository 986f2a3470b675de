"""Networks for engines that know no newer ops than these."""

import onnx
import pytest
from bench.test_network import PICTURES, TOKENS, draw
from export.onnx_graphs import assert_same, run_dense

from gossamer.bench.engines.older_ops import in_opset
from gossamer.bench.network import build, read


@pytest.mark.parametrize("opset", [18, 11])
@pytest.mark.parametrize(("text", "name", "shape"), [(PICTURES, "image", (1, 3, 10, 9)), (TOKENS, "tokens", (1, 5, 8))])
def test_the_same_network_in_an_older_opset(text: str, name: str, shape: tuple[int, ...], opset: int) -> None:
    model = build(read("network", text), 0.3)
    old = in_opset(model, opset, 7)
    assert [(entry.domain, entry.version) for entry in old.opset_import] == [("", opset)]
    assert old.ir_version == 7
    onnx.checker.check_model(old, full_check=True)
    assert_same(run_dense(old, {name: draw(*shape)}), run_dense(model, {name: draw(*shape)}))
