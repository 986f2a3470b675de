"""Which connections decided a prediction: networks of which the contributions are known."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.explain.decision import Decision, find_decision
from gossamer.explain.unit_graph import unit_graph
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand


def decide(model: nn.Module, inputs: Tensor) -> Decision:
    model.eval()
    graph = unit_graph(understand(trace(model, (inputs,))))
    masks = {name: tensor.detach() != 0 for name, tensor in model.named_parameters() if tensor.dim() > 1}
    decision = find_decision(model, inputs, 0, masks, example=5, graph=graph)
    assert decision is not None
    return decision


def mlp() -> nn.Sequential:
    """For the input (1, 2): hidden units relu(1*3), relu(2*1), relu(-5) and outputs 3*2 + 2*1 + 0.5, 2*3, 0."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0], [0, 1], [-5, 0]]))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[2.0, 1, 9], [0, 3, 0], [0, 0, 4]]))
        model[2].bias.copy_(torch.tensor([0.5, 0, 0]))
    return model


def test_contributions_along_the_paths() -> None:
    model = mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decision = decide(model, torch.tensor([[1.0, 2.0]]))
    assert (decision.predicted, decision.rival, decision.margin) == (0, 1, 2.5)
    found = {(c.weight, c.index): (c.source, c.target, c.value, c.contribution) for c in decision.connections}
    assert found == {
        # Activation times weight, for the prediction less the rival; the hidden unit that is off does nothing.
        ("2.weight", (0, 0)): ("0 0", "2 0", 2.0, 6.0),
        ("2.weight", (0, 1)): ("0 1", "2 0", 1.0, 2.0),
        ("2.weight", (1, 1)): ("0 1", "2 1", 3.0, -6.0),
        # Input times weight times what follows: 1*3*2 and 2*1*(1 - 3).
        ("0.weight", (0, 0)): ("input (0,)", "0 0", 3.0, 6.0),
        ("0.weight", (1, 1)): ("input (1,)", "0 1", 1.0, -4.0),
    }
    assert decision.layers == {"0.weight": 2.0, "2.weight": 2.0}
    assert decision.biases == 0.5
    assert decision.half == {"0.weight": 1, "2.weight": 2}
    # Without the first of the strongest for it, class 1 wins with 6 to 2.5.
    assert (decision.decisive, decision.changed_to) == (1, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_prediction_that_nothing_changes() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0.0], [-1, -1]]))
        model[0].bias.copy_(torch.tensor([1.0, 0.0]))
    decision = decide(model, torch.ones(1, 2))
    assert decision.margin == 3.0
    assert (decision.decisive, decision.changed_to) == (None, None)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.classes = nn.Conv2d(4, 3, 3), nn.Linear(12, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.norm(self.first(images))), 2)
        return self.classes(F.relu(self.second(features)).flatten(1))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_first_layer_and_all_biases_add_up_to_the_margin(seed: int) -> None:
    torch.manual_seed(seed)
    model = Convolutional()
    with torch.no_grad():
        for tensor in (model.norm.running_mean, model.norm.bias):
            tensor.uniform_(-1, 1)
        model.norm.running_var.uniform_(0.5, 2)
    decision = decide(model, torch.randn(1, 2, 8, 8))
    assert decision.layers["first.weight"] + decision.biases == pytest.approx(decision.margin, abs=1e-5)
    sizes = [abs(connection.contribution) for connection in decision.connections]
    assert sizes == sorted(sizes, reverse=True)


def test_the_ends_of_weights_are_named_as_their_layers_have_them() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.tensor([[0.0, 2.0], [0.0, 0.0], [0.0, 0.0]]))
            self.turned = nn.ConvTranspose1d(2, 3, 1, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.turned((inputs @ self.matrix)[:, :, None]).flatten(1)
            return outputs

    model = Own()
    with torch.no_grad():
        model.turned.weight.copy_(torch.tensor([[0.0, 0, 0], [0, 0, 5]])[:, :, None])
    masks = {name: tensor.detach() != 0 for name, tensor in model.named_parameters()}
    decision = find_decision(model, torch.ones(1, 3), 0, masks, example=0, graph=None)
    assert decision is not None
    assert {(c.weight, c.index, c.source, c.target) for c in decision.connections} == {
        # Of a parameter of one's own no more is known than where the weight is.
        ("matrix", (0, 1), "entry [1]", "matrix row 0"),
        # Inputs are the first axis of a transposed convolution.
        ("turned.weight", (1, 2, 0), "input 1 of the layer", "turned 2"),
    }
