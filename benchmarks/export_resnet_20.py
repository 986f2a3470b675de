"""The pretrained ResNet-20 on all 10,000 test images of CIFAR-10: torch against exported files, dense and pruned.

Command: python benchmarks/export_resnet_20.py DATA > docs/results/export-resnet-20.jsonl
n: 1, on 10,000 images; nothing is timed
Hardware: 2 cores of AMD Zen 4
Date: 2026-11-24

DATA is a folder that holds cifar10/ and weights/resnet20-12fca82f.th.

One line of JSON for each file: accuracies, how many of the predictions are other ones than torch's, and bytes.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from gossamer import keep_largest, prunable_weights
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import export
from gossamer.export.form import FileForm
from gossamer.export.from_torch import to_onnx
from gossamer.export.source import Source
from gossamer.export.twin import Twin
from gossamer.graph.sessions import dense_session, sparse_session
from gossamer.tasks.cifar10 import CIFAR10
from gossamer.tasks.cifar_resnet import CifarResNet
from gossamer.tasks.hub_images import load_split

BATCH = 500
MEAN, DEVIATION = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
FORMS = {"dense": {"form": FileForm(dense=True)}, "chosen": {}, "every layer sparse": {"costs": EverythingSparse()}}


def pretrained(data: Path) -> nn.Module:
    path = data / "weights" / "resnet20-12fca82f.th"
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith("12fca82f"):
        raise SystemExit(f"{path} is not the file that its name says")
    content = torch.load(path, map_location="cpu", weights_only=True)
    model = CifarResNet(20, shortcut="padding")
    model.load_state_dict({name.removeprefix("module."): value for name, value in content["state_dict"].items()})
    return model.eval()


def prune(model: nn.Module, density: float) -> None:
    weights = prunable_weights(model)
    masks = keep_largest(weights, int(density * sum(weight.numel() for weight in weights.values())))
    with torch.no_grad():
        for name, weight in weights.items():
            weight[~masks[name]] = 0


def predictions(model: onnx.ModelProto, sparse: bool, images: Tensor) -> Tensor:
    session = sparse_session(model.SerializeToString()) if sparse else dense_session(model)
    outputs = [session.run(None, {"images": batch.numpy()})[0] for batch in images.split(BATCH)]
    return torch.cat([torch.from_numpy(output) for output in outputs]).argmax(1)


def main(data: Path) -> None:
    test = load_split(CIFAR10, data, "test")
    images = (test.inputs / 255 - MEAN) / DEVIATION
    for density in (1.0, 0.5):
        model = pretrained(data)
        prune(model, density)
        with torch.no_grad():
            expected = torch.cat([model(batch) for batch in images.split(BATCH)]).argmax(1)
        traced = to_onnx(model, [images[:2]])
        source = Source(
            "ResNet-20", traced.model, ({"images": images[:100].numpy()},), "images", Twin(model, traced.modules)
        )
        for form, options in FORMS.items():
            with tempfile.TemporaryDirectory() as folder:
                exported = export(source, Path(folder) / "model.onnx", **options)
                got = predictions(onnx.load(exported.path), bool(exported.layers), images)
            line = {
                "density": density,
                "file": form,
                "sparse_layers": sum(layer.form == "sparse" for layer in exported.layers),
                "torch_accuracy": (expected == test.targets).double().mean().item(),
                "file_accuracy": (got == test.targets).double().mean().item(),
                "other_predictions": int((got != expected).sum()),
                "bytes": exported.file_bytes,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
