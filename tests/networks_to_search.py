"""Small networks to search, with what makes real ones difficult."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


class Residual(nn.Module):
    """A stem and two residual blocks, one of which changes the number of channels with a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 10, 3, stride=2, padding=1)
        self.fourth = nn.Conv2d(10, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.classes = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.stem_norm(self.stem(images)))
        features = F.relu(self.second(F.relu(self.first(features))) + features)
        features = F.relu(self.fourth(F.relu(self.third(features))) + self.shortcut(features))
        outputs: Tensor = self.classes(features.mean((2, 3)))
        return outputs


def residual() -> Residual:
    model = Residual()
    torch.nn.init.uniform_(model.stem_norm.bias, 0.5, 1)
    return model.eval()
