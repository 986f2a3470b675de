"""Dense first convolutions, which can read the image as it is and write panels (docs/kernels.md)."""

from dataclasses import dataclass

from gossamer.graph.graph import Graph
from gossamer.graph.layers import Layer
from gossamer.graph.pools import Pool, pool_at

FEW_CHANNELS = 16
"""Up to so many input channels the op was measured."""
MOSTLY_KEPT = 0.9
"""A weight with more zeros than this leaves is stored, and mostly computed, in less as a sparse one."""


@dataclass(frozen=True)
class Stem:
    """A convolution that may become `StemConv`, with the max pooling that it takes along."""

    layer: Layer
    pool: Pool | None

    @property
    def nodes(self) -> tuple[int, ...]:
        return self.layer.nodes if self.pool is None else (*self.layer.nodes, self.pool.index)

    @property
    def output(self) -> str:
        return self.layer.output if self.pool is None else self.pool.output


def stem_of(graph: Graph, layer: Layer) -> Stem | None:
    """The layer as a stem; None if `StemConv` does not compute it."""
    shape = layer.shape
    plain = layer.kind == "conv" and layer.rank == 4 and layer.residual is None and shape.groups == 1
    if not plain or shape.dilations != (1, 1) or shape.strides[1] > 2:
        return None
    if shape.inputs > FEW_CHANNELS or layer.density < MOSTLY_KEPT:
        return None
    following = graph.only_reader(layer.output)
    pool = None if following is None else pool_at(graph, following)
    return Stem(layer, pool if pool is not None and _is_taken_along(pool) else None)


def _is_taken_along(pool: Pool) -> bool:
    shape = pool.shape
    window = (shape.kernel, shape.strides, shape.dilations, shape.pads)
    return pool.rank == 4 and window == ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
