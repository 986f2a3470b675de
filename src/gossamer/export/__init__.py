"""A pruned network as an ONNX file that runs faster the more zeros it has (docs/all-of-gossamer.md)."""

from gossamer.export.costs import Costs, MeasuredCosts
from gossamer.export.errors import ExportError
from gossamer.export.layers import LayerShape
from gossamer.export.rewrite import LayerReport, Rewritten, rewrite, to_sparse

__all__ = ["Costs", "ExportError", "LayerReport", "LayerShape", "MeasuredCosts", "Rewritten", "rewrite", "to_sparse"]
