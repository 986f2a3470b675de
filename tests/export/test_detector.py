"""The detector on a device: the same boxes from torch, ONNX Runtime and gossamer-runtime, by the example."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import gossamer
from gossamer import keep_largest, prunable_weights
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import Exported, export
from gossamer.export.from_torch import to_onnx
from gossamer.export.source import Source
from gossamer.export.twin import Twin
from gossamer.graph.sessions import dense_session
from gossamer.tasks.detection.average_precision import detections
from gossamer.tasks.detection.loss import DetectionLoss
from gossamer.tasks.detection.network import Detector
from gossamer.tasks.detection.shapes import SHAPES, shapes
from gossamer.tasks.shapes_detector import scaled

SIDE, SCORE, OVERLAP = 64, 0.01, 0.6


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "detector.py"
    spec = importlib.util.spec_from_file_location("detector_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["detector_example"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small one, trained a little so that scores differ, and pruned to a fifth."""
    torch.manual_seed(0)
    model, loss = Detector(len(SHAPES), widths=(16, 16, 32, 32, 32)), DetectionLoss(64)
    images, targets = shapes(8, 64, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(12):
        optimizer.zero_grad()
        loss(model(scaled(images)), targets).backward()
        optimizer.step()
    weights = prunable_weights(model)
    masks = keep_largest(weights, sum(weight.numel() for weight in weights.values()) // 5)
    with torch.no_grad():
        for name, weight in weights.items():
            weight[~masks[name]] = 0
    return model.eval()


@pytest.fixture(scope="module")
def files(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Exported]:
    """The network in ONNX's own ops, and exported with every layer sparse."""
    pytest.importorskip("gossamer_runtime")
    images = scaled(shapes(1, SIDE, seed=2)[0])
    traced = to_onnx(network, [images])
    source = Source("detector", traced.model, ({"images": images.numpy()},), "images", Twin(network, traced.modules))
    path = tmp_path_factory.mktemp("detector") / "sparse.onnx"
    return traced.model, export(source, path, costs=EverythingSparse())


def same_boxes(one: list[Any], other: list[Any]) -> None:
    assert [box.name for box in one] == [box.name for box in other]
    np.testing.assert_allclose([box[1:] for box in one], [box[1:] for box in other], rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_the_boxes_are_the_same(
    network: nn.Module, files: tuple[onnx.ModelProto, Exported], example: ModuleType
) -> None:
    dense, sparse = files
    forms = [layer.form for layer in sparse.layers]
    assert forms.count("sparse") == len(forms) == 41
    assert sparse.file_bytes < sparse.dense_bytes / 2
    gossamer_runtime = importlib.import_module("gossamer_runtime")
    sessions = [dense_session(dense), gossamer_runtime.Session(str(sparse.path), threads=1)]
    counts = []
    for image in shapes(4, SIDE, seed=3)[0]:
        with torch.no_grad():
            expected = network(scaled(image[None]))[0]
        # The example's numpy against the task's torch, and then each engine's output.
        boxes = example.boxes(expected.numpy(), SCORE, OVERLAP)
        reference = detections(expected, SCORE, OVERLAP, most=1000)
        assert [box.name for box in boxes] == [list(SHAPES)[label] for label in reference.classes]
        np.testing.assert_allclose([box[2:] for box in boxes], reference.boxes.numpy(), rtol=1e-6)
        np.testing.assert_allclose([box.score for box in boxes], reference.scores.numpy(), rtol=1e-5)
        for session in sessions:
            (output,) = session.run(None, {session.get_inputs()[0].name: example.prepared(image.numpy())})
            same_boxes(example.boxes(output[0], SCORE, OVERLAP), boxes)
        counts.append(len(boxes))
    assert min(counts) > 0
    assert max(counts) > 1


@pytest.mark.slow
def test_silu_is_part_of_the_sparse_layers(files: tuple[onnx.ModelProto, Exported]) -> None:
    """Sigmoid and Mul of every block are in its layer's node: none is left beside them."""
    nodes = onnx.load(files[1].path).graph.node
    assert not [node.name for node in nodes if node.op_type in ("Sigmoid", "Conv", "Swish")]
    assert sum(node.op_type in ("SparseConv", "StemConv") for node in nodes) == 41


def test_names_are_those_of_the_task(example: ModuleType) -> None:
    assert tuple(SHAPES) == example.NAMES


@pytest.mark.slow
def test_the_example_from_run_to_boxes(
    network: nn.Module,
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of the network instead of one of the task, whose training takes minutes."""
    pytest.importorskip("gossamer_runtime")
    from gossamer.tasks import shapes_detector

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shapes_detector, "shapes_detector", lambda: Detector(len(SHAPES), (16, 16, 32, 32, 32)))
    trained = Detector(len(SHAPES), (16, 16, 32, 32, 32))
    for _ in gossamer.rounds(trained, folder="runs/detector", stop=gossamer.Stop(rounds=1)):
        trained.load_state_dict({name: tensor.clone() for name, tensor in network.state_dict().items()})
    model, inputs = example.network()
    traced = to_onnx(model, [inputs])
    source = Source("detector", traced.model, ({"images": inputs.numpy()},), "images", Twin(model, traced.modules))
    export(source, tmp_path / "detector.onnx")
    example.draw(tmp_path / "image.npy")
    found = example.main("detector.onnx", "image.npy")
    assert len(capsys.readouterr().out.splitlines()) == len(found)
