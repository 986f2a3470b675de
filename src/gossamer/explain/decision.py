"""The few connections that decided a single prediction."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from gossamer.explain.unit_graph import NOTHING, UnitGraph
from gossamer.model.call import Call
from gossamer.model.nested import tensors_in
from gossamer.prune.layers import has_outputs_second, kind_of
from gossamer.prune.masks import Masks
from gossamer.shrink.arguments import as_call
from gossamer.shrink.constants import scale_and_shift
from gossamer.shrink.understand import CONVOLUTIONS, NORMALISATIONS

LISTED = 20
"""Connections that are listed."""
TRIED = 200
"""Connections that are taken away, one after another, to see whether the prediction changes."""
HOW = (
    "A connection's contribution is its weight times the derivative of the margin by it. On a network of layers, "
    "ReLU, pooling and BatchNorm, which is linear around an example, that is the sum over all active paths "
    "through the connection of the input's value (for a path that begins at a bias: the bias) times the weights "
    "along the path; a convolution's weight counts at all positions together. Without residual sums the "
    "contributions of the first layer and of all biases and shifts add up to the margin; those of later layers "
    "regard the same paths further on, so layers are not added. Inputs count as they are given to the network: a "
    "value of 0 contributes nothing. decisive is measured by setting the connections to zero, one after another."
)


@dataclass(frozen=True)
class Connection:
    """A weight, and what it did."""

    weight: str
    """Name of the weight tensor."""
    index: tuple[int, ...]
    """The index of the weight in its tensor: to unit, from unit, and tap of the kernel, for most layers."""
    source: str
    """The unit that is read, such as `hidden_1 17` or `input (0, 3, 4)`."""
    target: str
    """The unit that reads."""
    value: float
    contribution: float
    """What it adds to the margin; positive: for the prediction."""


@dataclass(frozen=True)
class Decision:
    """How a single prediction came about."""

    example: int
    """Its row in the validation data."""
    target: int
    predicted: int
    rival: int
    """The class with the second largest output."""
    margin: float
    """Output of the predicted class less that of the rival."""
    layers: dict[str, float]
    """Name of the weight tensor -> sum of its connections' contributions."""
    biases: float
    """Sum of the contributions of all biases and shifts of BatchNorm."""
    connections: tuple[Connection, ...]
    """The ones of the largest contributions by magnitude, over all layers."""
    half: dict[str, int]
    """Name of the weight tensor -> how few of its connections make up half of the sum of magnitudes."""
    decisive: int | None
    """So many connections, those of the largest contributions for the prediction, have to be taken away until another
    class is predicted; None: more than were tried."""
    changed_to: int | None
    """The class that is predicted then."""
    how: str = HOW


def find_decision(
    model: nn.Module, inputs: Call | Tensor, target: int, masks: Masks, *, example: int, graph: UnitGraph | None
) -> Decision | None:
    """Explains the prediction for one example; None if the network does not return one row of classes.

    Args:
        model: in evaluation mode; is not changed.
        inputs: the example, as a batch of one.
        masks: of the prunable weights.
        graph: for the names of the units that are read; None: they are named by their number.
    """
    model, inputs = copy.deepcopy(model), as_call(inputs)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    outputs = _only_tensor(inputs.of_copies(model))
    if outputs is None or outputs.dim() != 2 or outputs.shape[1] < 2:
        return None
    predicted, rival = outputs[0].topk(2).indices.tolist()
    margin = outputs[0, predicted] - outputs[0, rival]
    margin.backward()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    contributions = {name: _contribution(parameters[name]) for name in masks}
    weights = {name: parameters[name].detach().clone() for name in masks}
    biases = _biases(model)
    ranked = _ranked(contributions)
    name_ends = _names_of_ends(model, graph)
    decisive, changed_to = _take_away(model, parameters, _ranked(contributions, for_prediction=True), inputs, predicted)
    return Decision(
        example=example,
        target=target,
        predicted=predicted,
        rival=rival,
        margin=float(margin.detach()),
        layers={name: float(values.double().sum()) for name, values in contributions.items()},
        biases=biases,
        connections=tuple(
            Connection(
                name,
                index,
                *name_ends(name, index),
                float(weights[name][index]),
                float(contributions[name][index]),
            )
            for name, index in ranked[:LISTED]
        ),
        half={name: _how_few(values) for name, values in contributions.items()},
        decisive=decisive,
        changed_to=changed_to,
    )


Position = tuple[str, tuple[int, ...]]
"""The position of a connection: name of the weight tensor, index in it."""


def _only_tensor(outputs: object) -> Tensor | None:
    """What a network returns, if that is one tensor, wherever in a tuple or an object it is."""
    found = list(tensors_in(outputs))
    return found[0] if len(found) == 1 else None


def _contribution(weight: Tensor) -> Tensor:
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return (weight * gradient).detach()


def _ranked(contributions: dict[str, Tensor], *, for_prediction: bool = False) -> list[Position]:
    """The connections of the largest contributions (by magnitude, or towards the prediction), the largest first."""
    candidates: list[tuple[float, Position]] = []
    for name, values in contributions.items():
        sizes = values.flatten() if for_prediction else values.flatten().abs()
        largest = sizes.topk(min(TRIED, len(sizes)))
        for size, position in zip(largest.values.tolist(), largest.indices, strict=True):
            index = tuple(int(part) for part in torch.unravel_index(position, values.shape))
            if size > 0:
                candidates.append((size, (name, index)))
    # A stable sort: equal contributions in the model's order.
    return [position for _, position in sorted(candidates, key=lambda candidate: -candidate[0])]


def _take_away(
    model: nn.Module, parameters: dict[str, nn.Parameter], ranked: list[Position], inputs: Call, predicted: int
) -> tuple[int | None, int | None]:
    """How many of the connections have to go, in this order, until another class is predicted; and which one."""
    with torch.no_grad():
        for count, (name, index) in enumerate(ranked[:TRIED], start=1):
            parameters[name][index] = 0
            outputs = _only_tensor(inputs.of_copies(model))
            assert outputs is not None
            now = int(outputs[0].argmax())
            if now != predicted:
                return count, now
    return None, None


def _biases(model: nn.Module) -> float:
    total = 0.0
    for module in model.modules():
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)) and module.bias is not None:
            total += float(_contribution(module.bias).double().sum())
        if isinstance(module, NORMALISATIONS) and module.bias is not None and module.bias.grad is not None:
            total += float((scale_and_shift(module)[1] * module.bias.grad.double()).sum())
    return total


def _how_few(values: Tensor) -> int:
    sizes = values.flatten().abs().double().sort(descending=True).values
    return int((sizes.cumsum(0) < sizes.sum() / 2).sum()) + 1 if sizes.sum() > 0 else 0


def _names_of_ends(model: nn.Module, graph: UnitGraph | None) -> Callable[[str, tuple[int, ...]], tuple[str, str]]:
    """Names the unit that a weight reads, and the one that reads it. Of a parameter of a layer that is not known no
    more is said than where in it the weight is."""
    names = [] if graph is None else vertex_names(graph)
    read: dict[str, list[Tensor]] = {}
    for edges in () if graph is None else graph.edges:
        read.setdefault(edges.layer, []).append(edges.sources)

    def name_ends(name: str, index: tuple[int, ...]) -> tuple[str, str]:
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        second = has_outputs_second(module, attribute)
        if second is None or kind_of(module, attribute) == "own":
            return f"entry {list(index[1:])}", f"{name} row {index[0]}"
        unit, source = (index[1], index[0]) if second else (index[0], index[1])
        vertices = [int(sources[source]) for sources in read.get(path, [])]
        units = " + ".join(names[vertex] for vertex in vertices if vertex != NOTHING)
        return units or f"input {source} of the layer", f"{path} {unit}"

    return name_ends


def vertex_names(graph: UnitGraph) -> list[str]:
    """A name for every vertex: `input (0, 3, 4)` for a position of the input, `input channel 0` where a convolution
    reads it, and `hidden_1 17` for unit 17 of a layer."""
    names = [""] * graph.vertices
    for positions in graph.inputs.values():
        by_position = positions.unique().numel() == positions.numel()
        for index in product(*(range(length) for length in positions.shape)):
            vertex = int(positions[index])
            if not names[vertex]:
                names[vertex] = f"input {index}" if by_position else f"input channel {index[0]}"
    for layer, units in graph.layers.items():
        for number, vertex in enumerate(units):
            names[vertex] = f"{layer} {number}"
    return names
