"""Dead units of networks in which they are known."""

import pytest
import torch
from torch import Tensor, nn

from gossamer.explain.dead import DeadUnits, find_dead_units
from gossamer.shrink.trace import trace
from gossamer.shrink.understand import understand
from gossamer.tasks import Examples


def find(model: nn.Module, inputs: Tensor) -> DeadUnits:
    """With the weights that are not zero as the mask."""
    masks = {name: tensor.detach() != 0 for name, tensor in model.named_parameters() if tensor.dim() > 1}
    traced = trace(model.eval(), (inputs[:2],))
    return find_dead_units(traced, understand(traced), masks, Examples(inputs, torch.zeros(len(inputs)).long()))


def mlp() -> nn.Sequential:
    """Hidden 0 is alive, 1 is not read, 2 is constant, 3 is negative for all inputs between 0 and 1."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1], [1, 0], [0, 0], [-1, -1]]))
        model[0].bias.copy_(torch.tensor([0.0, 0, 1, -0.5]))
        model[2].weight.copy_(torch.tensor([[1.0, 0, 1, 1], [-1, 0, 0, 1]]))
    return model


def test_every_kind_of_dead_unit() -> None:
    torch.manual_seed(0)
    dead = find(mlp(), torch.rand(100, 2))
    hidden, classes = dead.layers
    assert (hidden.unread, hidden.constant, hidden.silent, hidden.alive) == ((1,), (2,), (3,), 1)
    assert (classes.unread, classes.constant, classes.silent, classes.alive) == ((), (), (), 2)
    assert dead.density == 10 / 16
    # Cut off are the weight that hidden 1 reads with, and the one that reads hidden 2.
    assert dead.effective_density == 8 / 16
    # Of hidden 3 it is two and two.
    assert dead.effective_density_on_data == 4 / 16
    assert dead.silent_limit == pytest.approx(1 - 0.05 ** (1 / 100))


def test_what_is_silent_depends_on_the_data() -> None:
    dead = find(mlp(), torch.randn(100, 2) * 3)
    assert dead.layers[0].silent == ()
    assert dead.effective_density_on_data == dead.effective_density


def test_what_only_a_silent_unit_reads_goes_with_it() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.copy_(torch.tensor([[1.0, 0], [0, -1]]))  # Hidden 1 of the second layer is never active ...
        model[2].bias.fill_(-0.1)
        model[4].weight.fill_(1)
    dead = find(model, torch.rand(50, 1))
    assert dead.layers[1].silent == (1,)
    # ... so the first layer's unit 1 only feeds what does nothing: three weights in a row.
    assert dead.effective_density_on_data == (dead.density * 8 - 3) / 8


def test_a_block_that_is_cut_off_in_a_residual_network() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
            self.classes = nn.Linear(2, 2)

        def forward(self, images: Tensor) -> Tensor:
            stream = self.stem(images)
            return self.classes((stream + self.two(self.one(stream).relu())).mean((2, 3)))

    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        model.two.weight.zero_()
    dead = {layer.layer: layer for layer in find(model, torch.randn(20, 1, 3, 3)).layers}
    assert dead["one"].unread == (0, 1)
    assert dead["two"].constant == (0, 1)  # The stream itself stays.
    assert dead["stem"].alive == dead["classes"].alive == 2
