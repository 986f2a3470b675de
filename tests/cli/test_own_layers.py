"""A network with layers of its own, from the command line."""

from pathlib import Path

from command_line import gossamer

TASK = """
import torch
from torch import nn
from gossamer.tasks import SGD, Data, Examples, Recipe, Task

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 12, 8) * 0.3)

    def forward(self, inputs):
        return torch.einsum("bi,hoi->bho", inputs, self.w).mean(1)

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = Heads()
        self.head = nn.Linear(12, 2)

    def forward(self, inputs):
        return self.head(torch.relu(self.heads(inputs)))

def data(folder):
    inputs = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    return Data(*(Examples(part, (part[:, 0] > 0).long()) for part in inputs.split(32)))

def task():
    return Task("heads", "an einsum", Network, data,
                Recipe(epochs=1, batch_size=16, learning_rate=lambda progress: 0.1, optimizer=SGD()))
"""


def test_a_layer_of_ones_own_from_the_cut_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    compress = ("compress", "task.py:task", "--rounds", "1", "--per-round", "0.5")
    finished = gossamer(tmp_path, *compress, "--out", "layers")
    assert finished.returncode == 0, finished.stderr
    (told,) = finished.stderr.splitlines()
    assert told.startswith("warning: most of Network is outside the scope: 24 of 410 parameters are prunable")
    assert "heads.w (384)" in told
    finished = gossamer(tmp_path, *compress, "--include", "*", "--include", "heads", "--out", "all")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "408 prunable weights of 410 parameters; round 1 keeps 204" in finished.stdout
    for command in (("explain", "all"), ("shrink", "all", "-o", "small"), ("export", "all", "-o", "all.onnx")):
        finished = gossamer(tmp_path, *command, "--task", "task.py:task")
        assert finished.returncode == 0, finished.stderr
    assert "written to all.onnx" in finished.stdout
