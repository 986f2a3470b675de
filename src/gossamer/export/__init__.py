"""A pruned network as an ONNX file that runs faster the more zeros it has (docs/all-of-gossamer.md)."""

from gossamer.errors import ExportError
from gossamer.export.costs import Costs, MeasuredCosts
from gossamer.export.rewrite import LayerReport, Rewritten, rewrite, to_sparse
from gossamer.graph.layer_shape import LayerShape

__all__ = ["Costs", "ExportError", "LayerReport", "LayerShape", "MeasuredCosts", "Rewritten", "rewrite", "to_sparse"]
