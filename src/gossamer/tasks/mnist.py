"""MNIST (LeCun et al., 1998): 70,000 handwritten digits of 28x28 grey pixels."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gossamer.tasks.hub_images import ImageDataset, load_split
from gossamer.tasks.splits import set_aside
from gossamer.tasks.task import Data, Examples

MNIST = ImageDataset(
    title="MNIST",
    hub_name="ylecun/mnist",
    folder_name="mnist",
    image_column="image",
    mode="L",
    height=28,
    width=28,
    classes=10,
)
VALIDATION_EXAMPLES = 5_000
# Of all pixels of the 60,000 training images, divided by 255.
MEAN, STANDARD_DEVIATION = 0.1307, 0.3081
BLACK = -MEAN / STANDARD_DEVIATION
"""The background's value in the network's inputs."""


def mnist(folder: Path | None) -> Data:
    """MNIST as 55,000 training, 5,000 validation (from the 60,000 of the training files) and 10,000 test examples.

    Inputs have the shape (count, 1, 28, 28), float32, of mean 0 and standard deviation 1 over the training files.

    Raises:
        DataError: see `hub_images.load_split`.
    """
    train, validation = set_aside(_standardised(load_split(MNIST, folder, "train")), VALIDATION_EXAMPLES)
    return Data(train, validation, _standardised(load_split(MNIST, folder, "test")))


def shifted(images: Tensor, generator: torch.Generator, most: int = 1) -> Tensor:
    """Each image moved by -most to most pixels in both directions, black coming in at the edges.

    Shapes: (batch, 1, height, width) -> the same.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4, value=BLACK)
    # A view of every shift of every image: (batch, 1, shifts, shifts, height, width).
    shifts = padded.unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * most + 1, (2, count), generator=generator, device=images.device)
    return shifts[torch.arange(count, device=images.device), :, top, left]


def _standardised(examples: Examples) -> Examples:
    return Examples((examples.inputs / 255 - MEAN) / STANDARD_DEVIATION, examples.targets)
