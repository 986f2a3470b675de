"""Connections, fans, paths and what inputs reach, of networks small enough to count by hand."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.explain.fans import find_fans
from gossamer.explain.inputs import find_input_reach
from gossamer.explain.paths import count_paths, path_facts, reached_units
from gossamer.explain.unit_graph import UnitGraph, unit_graph
from gossamer.shrink.operations import OperationGraph
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand


def read(model: nn.Module, *shape: int) -> tuple[OperationGraph, UnitGraph]:
    network = understand(trace(model.eval(), (torch.randn(2, *shape),)))
    graph = unit_graph(network)
    assert graph is not None
    return network, graph


def set_weight(layer: nn.Module, weight: object) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float32).reshape(layer.weight.shape))


def mlp() -> nn.Sequential:
    """Inputs 0, 1, 2; hidden 0 reads 0 and 1, hidden 1 reads 1, hidden 2 reads nothing; output 0 reads hidden 0 and 1,
    output 1 reads hidden 0 and 2. Input 2 is not read."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    set_weight(model[0], [[1, -1, 0], [0, 2, 0], [0, 0, 0]])
    set_weight(model[2], [[1, 1, 0], [3, 0, 1]])
    return model


def test_paths_of_a_perceptron() -> None:
    network, graph = read(mlp(), 3)
    paths = count_paths(graph)
    # 0-h0-o0, 0-h0-o1, 1-h0-o0, 1-h0-o1, 1-h1-o0.
    assert paths.total == 5
    dense = unit_graph(network, dense=True)
    assert dense is not None
    facts = path_facts(graph, paths, dense)
    assert facts.dense == 3 * 3 * 2
    assert facts.through == {"0": (4, 1, 0), "2": (3, 2)}


def test_fans_of_a_perceptron() -> None:
    fans = {layer.layer: layer for layer in find_fans(read(mlp(), 3)[1]).layers}
    assert (fans["0"].fan_in, fans["0"].fan_out) == ((2, 1, 0), (2, 1, 1))
    assert (fans["2"].fan_in, fans["2"].fan_out) == ((2, 2), (0, 0))
    assert (fans["0"].median_fan_in, fans["0"].median_fan_out) == (1, 1)


def test_what_the_inputs_of_a_perceptron_reach() -> None:
    network, graph = read(mlp(), 3)
    reach = find_input_reach(network, graph, count_paths(graph))
    assert reach is not None
    assert reach.shape == (3,)
    assert reach.connections == (1, 2, 0)
    assert reach.unused == 1
    assert reach.paths == (2, 3, 0)
    # Input 0 reaches hidden 0 and both outputs, input 1 hidden 1 as well.
    assert reach.units == (3, 4, 0)


def test_a_weight_that_leads_nowhere_does_not_read() -> None:
    model = mlp()
    set_weight(model[2], [[0, 1, 0], [0, 0, 1]])
    network, graph = read(model, 3)
    reach = find_input_reach(network, graph, count_paths(graph))
    assert reach is not None
    assert reach.connections == (0, 1, 0)
    assert reach.unused == 2


def test_a_convolution_reads_pixels_at_positions_and_channels_by_taps() -> None:
    """Two taps, one beside the other, of a padded 3x3 kernel over 3x3 pixels; then 2x2 pooling and a linear layer."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2, padding=1), nn.Flatten(), nn.Linear(4, 2))
    set_weight(model[0], [[0, 0, 0], [0, 1, 1], [0, 0, 0]])
    set_weight(model[3], [[1, 0, 0, 2], [0, 0, 0, 1]])
    network, graph = read(model, 1, 3, 3)
    paths = count_paths(graph)
    reach = find_input_reach(network, graph, paths)
    assert reach is not None
    # The tap in the middle reads every pixel, the one to its right all but the first column.
    assert np.array(reach.connections).reshape(3, 3).tolist() == [[1, 2, 2]] * 3
    assert paths.total == 2 * 3  # Two taps, then three weights.
    assert reach.paths == (6,)
    assert reach.units == (3,)


class Residual(nn.Module):
    """stem; stream + two(one(stream)); classes, with one channel each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(1, 1, 1) for _ in range(3))
        self.norm, self.classes = nn.BatchNorm2d(1), nn.Linear(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.stem(images)
        stream = stream + self.norm(self.two(F.relu(self.one(stream))))
        return self.classes(stream.mean((2, 3)))


def test_a_sum_is_reached_through_each_of_its_terms() -> None:
    _, graph = read(Residual(), 1, 4, 4)
    assert count_paths(graph).total == 2 * 2  # Directly, or through the block; to two classes.
    fans = {layer.layer: layer for layer in find_fans(graph).layers}
    assert fans["stem"].fan_out == (1 + 2,)
    assert fans["two"].fan_out == (2,)


def test_a_scale_of_zero_lets_no_path_through() -> None:
    model = Residual()
    with torch.no_grad():
        model.norm.weight.zero_()
    assert count_paths(read(model, 1, 4, 4)[1]).total == 2


def test_paths_are_counted_beyond_every_machine_integer() -> None:
    model = nn.Sequential(*(nn.Linear(100, 100, bias=False) for _ in range(20)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(0.01)
    assert count_paths(read(model, 100)[1]).total == 100**21


def test_of_what_is_not_understood_there_is_no_graph() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1), nn.Linear(4, 2))
    assert unit_graph(understand(trace(model.eval(), (torch.randn(2, 3),)))) is None


@given(
    seed=st.integers(0, 2**32 - 1),
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    density=st.sampled_from([0.2, 0.5, 0.8]),
)
def test_random_perceptrons_against_walking_every_path(seed: int, widths: list[int], density: float) -> None:
    generator = np.random.default_rng(seed)
    weights = [generator.random((out, into)) < density for into, out in itertools.pairwise(widths)]
    layers: list[nn.Module] = []
    for weight in weights:
        layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU()]
        set_weight(layers[-2], weight)
    _, graph = read(nn.Sequential(*layers), widths[0])
    walks = [
        walk
        for walk in itertools.product(*(range(width) for width in widths))
        if all(weight[walk[step + 1], walk[step]] for step, weight in enumerate(weights))
    ]
    paths = count_paths(graph)
    assert paths.total == len(walks)
    reached = reached_units(graph)
    for vertex in range(widths[0]):
        assert paths.out_of[vertex] == sum(walk[0] == vertex for walk in walks)
    for layer, units in enumerate(graph.layers.values(), start=1):
        for unit, vertex in enumerate(units):
            assert paths.through(vertex) == sum(walk[layer] == unit for walk in walks)
    # What is reached, by the powers of one large adjacency matrix.
    offsets = [0, *itertools.accumulate(widths)]
    adjacency = np.eye(sum(widths), dtype=bool)
    for layer, weight in enumerate(weights):
        adjacency[offsets[layer] : offsets[layer + 1], offsets[layer + 1] : offsets[layer + 2]] = weight.T
    closure = np.linalg.matrix_power(adjacency.astype(float), len(widths)) > 0
    np.fill_diagonal(closure, False)
    assert [bits.bit_count() for bits in reached] == closure.sum(1).tolist()


def test_dense_paths_are_the_product_of_the_widths() -> None:
    widths = [7, 5, 4, 3]
    model = nn.Sequential(*(nn.Linear(into, out) for into, out in itertools.pairwise(widths)))
    assert count_paths(read(model, 7)[1]).total == math.prod(widths)


def test_a_softmax_at_the_end_is_no_obstacle() -> None:
    assert count_paths(read(nn.Sequential(mlp(), nn.LogSoftmax(1)), 3)[1]).total == 5


class Decoding(nn.Module):
    """Two heads on two hidden units; the second is scaled by its size and put beside the first, times a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden = self.hidden(inputs)
        first, second = self.first(hidden), self.second(hidden)
        scaled = second * torch.arange(1, 2).float()
        return {"both": torch.cat([first.softmax(1), scaled], dim=1), "hidden": hidden.relu()}


def test_what_decodes_outputs_at_the_end_is_no_obstacle() -> None:
    """3 inputs, 2 hidden units, which are returned themselves, and one unit each behind them."""
    _, graph = read(Decoding(), 3)
    assert len(graph.outputs) == 2 + 1 + 1
    assert count_paths(graph).total == 3 * 2 + 2 * (3 * 2)
