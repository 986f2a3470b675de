"""What belongs to a layer, and what to none, among the times of single nodes."""

from pathlib import Path

import numpy as np
from pooled_network import POOLED

from gossamer.bench.engines import BothForms
from gossamer.bench.layers import layers_of
from gossamer.bench.network import build, read
from gossamer.export.costs import EverythingSparse
from gossamer.export.quantise import quantised_by_minmax
from gossamer.export.rewrite import rewrite
from gossamer.graph.inputs import random_inputs


def test_every_node_is_counted_once_and_conversions_belong_to_no_layer(tmp_path: Path) -> None:
    dense = build(read("pooled", POOLED), 0.2)
    sparse = rewrite(dense, costs=EverythingSparse()).model
    layers = layers_of(BothForms(dense, sparse, random_inputs(dense), 1, tmp_path))
    # A second for the first node, two for the second, four for the third, so that sums tell what is in them.
    seconds = {node.name: float(2**place) for place, node in enumerate(sparse.graph.node)}
    of_kind = {node.op_type: seconds[node.name] for node in sparse.graph.node}
    measured = layers.measured({"sparse": seconds})
    assert [entry.layer.name for entry in measured.layers] == ["stem", "middle", "last"]
    convolutions = [seconds[node.name] for node in sparse.graph.node if node.op_type == "SparseConv"]
    assert [entry.sparse for entry in measured.layers] == [of_kind["StemConv"], *convolutions]
    others = {node.op_type: time for node, time in measured.other_sparse}
    assert others == {kind: of_kind[kind] for kind in ("PanelMaxPool", "FromPanel", "GlobalAveragePool", "Flatten")}
    assert sum(seconds.values()) == sum(entry.sparse for entry in measured.layers) + sum(others.values())


def test_layers_of_bytes_are_listed_with_what_they_took(tmp_path: Path) -> None:
    floats = build(read("pooled", POOLED), 0.2)
    dense = quantised_by_minmax(floats, [{name: np.asarray(value) for name, value in random_inputs(floats).items()}])
    sparse = rewrite(dense, costs=EverythingSparse()).model
    layers = layers_of(BothForms(dense, sparse, random_inputs(dense), 1, tmp_path))
    seconds = {node.name: float(2**place) for place, node in enumerate(sparse.graph.node)}
    measured = layers.measured({"sparse": seconds})
    assert measured.layers == ()
    assert [entry.layer.name for entry in measured.of_bytes] == ["stem", "middle", "last"]
    convolutions = [seconds[node.name] for node in sparse.graph.node if node.op_type == "QuantisedConv"]
    assert [entry.sparse for entry in measured.of_bytes] == convolutions
    assert all(entry.layer.shape.quantised for entry in measured.of_bytes)
