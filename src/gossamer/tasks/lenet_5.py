"""LeNet-5 as Caffe ships it (after LeCun et al., 1998) on MNIST: the convolutional network of pruning papers."""

from collections import OrderedDict

from torch import nn

from gossamer.tasks import built_in, initialise
from gossamer.tasks.mnist import mnist, shifted
from gossamer.tasks.optimizers import SGD
from gossamer.tasks.schedules import OneCycle
from gossamer.tasks.task import Recipe, Task


def lenet_5() -> nn.Module:
    """20 and 50 channels, 500 hidden units: 430,500 weights and 580 biases. Inputs (batch, 1, 28, 28) -> logits
    (batch, 10).

    Caffe's `lenet_train_test.prototxt` has a ReLU after the hidden layer only; here the convolutions have one too.
    """
    model = nn.Sequential(
        OrderedDict(
            conv_1=nn.Conv2d(1, 20, 5),
            pool_1=nn.MaxPool2d(2),
            relu_1=nn.ReLU(),
            conv_2=nn.Conv2d(20, 50, 5),
            pool_2=nn.MaxPool2d(2),
            relu_2=nn.ReLU(),
            flatten=nn.Flatten(),
            hidden=nn.Linear(50 * 4 * 4, 500),
            relu_3=nn.ReLU(),
            classes=nn.Linear(500, 10),
        )
    )
    # With He's initial weights, of twice the variance, a short warm-up (16 steps) ended in dead units.
    initialise.as_caffe(model)
    return model


TASK = Task(
    name=built_in.LENET_5.name,
    description=built_in.LENET_5.description,
    model=lenet_5,
    data=mnist,
    # LeNet-300-100's recipe, half as long and at half the rate; not tuned for this network.
    recipe=Recipe(
        epochs=built_in.LENET_5.epochs,
        batch_size=128,
        learning_rate=OneCycle(peak=0.05),
        optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=2e-4),
        # On validation the best of 0.005, 0.015 and 0.05 (docs/results.md).
        fine_tune_rate=0.015,
        augment=shifted,
        bfloat16=True,
        channels_last=True,
    ),
)
