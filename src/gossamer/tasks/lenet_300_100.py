"""LeNet-300-100 (LeCun et al., 1998) on MNIST: the fully connected network of the pruning literature."""

from collections import OrderedDict

from torch import nn

from gossamer.tasks import built_in, initialise
from gossamer.tasks.mnist import mnist, shifted
from gossamer.tasks.optimizers import SGD
from gossamer.tasks.schedules import OneCycle
from gossamer.tasks.task import Recipe, Task


def lenet_300_100() -> nn.Module:
    """784-300-100-10 with ReLU: 266,200 weights and 410 biases. Inputs (batch, 1, 28, 28) -> logits (batch, 10)."""
    model = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden_1=nn.Linear(784, 300),
            relu_1=nn.ReLU(),
            hidden_2=nn.Linear(300, 100),
            relu_2=nn.ReLU(),
            classes=nn.Linear(100, 10),
        )
    )
    initialise.for_relu(model)
    return model


TASK = Task(
    name=built_in.LENET_300_100.name,
    description=built_in.LENET_300_100.description,
    model=lenet_300_100,
    data=mnist,
    # Chosen on validation error: 5,000 images, so one is 0.02%; one seed; 49% cut a round at first, so take a tenth of
    # a point for noise. Shifts by a pixel decide: with weight decay 5e-4, 1.48% dense and 1.72% at 28x without them
    # became 1.04% and 0.90%. (Many published results are without; compare with that in mind.) Weight decay, with
    # shifts: 2e-4 had 0.80% at 28x and 1.16% at 55x where 5e-4 had 0.90% and 1.36%, though 2.26% against 1.74% at
    # 108x. With cuts of 20% from 14.6x on it had 0.84% at 28x, 0.94% at 44x and 1.60% at 108x; 5e-4 had 0.90% and
    # 1.04% at 28x and 44x and was not followed further. 1e-4 was worse down to 7.5x, where it ended. A peak of 0.2 was
    # better in some rounds and worse in others. Without shifts, a decay of 1e-3 was no better than 5e-4 down to 55x.
    # Not tried: other epochs, batch sizes, dropout, smoothing.
    recipe=Recipe(
        epochs=built_in.LENET_300_100.epochs,
        batch_size=128,
        learning_rate=OneCycle(peak=0.1),
        optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=2e-4),
        # On validation the best of 0.001, 0.003, 0.01 and 0.03 (docs/results.md).
        fine_tune_rate=0.03,
        augment=shifted,
    ),
)
