"""Files: what they hold, from where they come, and that none is kept that computes something else."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from export.onnx_graphs import assert_same, network, ops, run_dense, run_sparse, sparse_weight
from gossamer_runtime import weights
from onnx import helper, numpy_helper
from small_run import printed, refused, small_run
from torch import Tensor, nn

from gossamer.errors import ExportError
from gossamer.export.costs import EverythingSparse
from gossamer.export.exporting import Exported, export
from gossamer.export.form import FileForm
from gossamer.export.from_torch import to_onnx
from gossamer.export.rewrite import rewrite
from gossamer.export.source import Source, open_source
from gossamer.export.twin import ExampleScore, Twin
from gossamer.export.verify import compare_with_dense
from gossamer.prune.prunable import prunable_weights
from gossamer.prune.select import keep_largest
from gossamer.reopen import open_round
from gossamer.shrink import shrink
from gossamer.tasks import Metric
from gossamer.tasks.cifar10 import CIFAR10
from gossamer.tasks.cifar_resnet import CifarResNet
from gossamer.tasks.hub_images import load_split

node = helper.make_node
SPARSE = EverythingSparse()

pytestmark = pytest.mark.usefixtures("native_library")


class Network(nn.Module):
    """A residual block with BatchNorm, a depthwise layer, a convolution over sequences, attention over its result."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32)
        self.inner = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32)
        self.pointwise = nn.Conv2d(32, 48, 1)
        self.sequence = nn.Conv1d(48, 64, 3, padding=1)
        self.attention = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True)
        self.classes = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.stem_norm(self.stem(images)))
        features = F.relu(self.inner_norm(self.inner(features)) + features)
        features = F.silu(self.pointwise(F.hardswish(self.depthwise(features))))
        tokens = F.relu(self.sequence(features.flatten(2))).transpose(1, 2)
        return self.classes(self.attention(tokens).mean(1))  # type: ignore[no-any-return]


def pruned(model: nn.Module, density: float) -> nn.Module:
    """Layer by layer, so that none is left empty and hides what the layers before it do."""
    with torch.no_grad():
        for name, weight in prunable_weights(model).items():
            weight[~keep_largest({name: weight}, int(density * weight.numel()))[name]] = 0
    return model.eval()


@pytest.fixture(scope="module")
def source() -> Source:
    """The network, with statistics of BatchNorm that are not the initial ones, at 15% density."""
    torch.manual_seed(0)
    model = Network()
    for norm in (model.stem_norm, model.inner_norm):
        norm.running_mean = torch.randn(32)
        norm.running_var = torch.rand(32) + 0.5
    model = pruned(model, 0.15)  # type: ignore[assignment]
    images = torch.randn(6, 3, 12, 12)
    traced = to_onnx(model, [images[:1]])
    feeds = ({"images": images.numpy()}, {"images": torch.randn(1, 3, 12, 12).numpy()})
    return Source("a network", traced.model, feeds, "random images", Twin(model, traced.modules))


def budget(model: nn.Module, width: int) -> float:
    """Bytes of the kept weights, each layer's positions as a bitmask or as gaps, whichever is shorter."""
    total = 0.0
    for weight in prunable_weights(model).values():
        kept = int((weight != 0).sum())
        total += width * kept + min(weight.numel() / 8, kept + weight.numel() / 255)
    return total


def test_the_file_computes_what_torch_computes(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    exported = export(source, path, costs=SPARSE)
    assert source.twin is not None
    model = onnx.load(path)
    kinds = ops(model)
    assert kinds.count("SparseConv") == 5
    assert kinds.count("SparseMatMul") == 5
    assert (kinds.count("ToPanel"), kinds.count("FromPanel")) == (2, 2)
    assert not {"Conv", "Gemm", "BatchNormalization", "Relu", "HardSwish", "Gelu"} & set(ops(model, ""))
    for batch in (1, 5):
        images = torch.randn(batch, 3, 12, 12)
        with torch.no_grad():
            expected = source.twin.network(images).numpy()
        assert_same(run_sparse(model, {"images": images.numpy()}), [expected], tolerance=2e-5)
    assert exported.agreement.difference < 1e-5
    names = {layer.name for layer in exported.layers}
    assert {"stem", "inner", "depthwise", "pointwise", "sequence", "attention.linear1", "classes"} <= names


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("costs", [None, SPARSE])
def test_the_file_is_small(source: Source, half: bool, costs: EverythingSparse | None, tmp_path: Path) -> None:
    """Whether layers run sparse or dense, only kept weights are stored."""
    exported = export(source, tmp_path / "model.onnx", form=FileForm(half=half), costs=costs)
    assert source.twin is not None
    # The graph itself (names, shapes, nodes), biases and normalisation: all that is no weight.
    graph = onnx.load(tmp_path / "model.onnx")
    weights_of_graph = {t.name for t in graph.graph.initializer if t.ByteSize() > 1000}
    rest = exported.file_bytes - sum(t.ByteSize() for t in graph.graph.initializer if t.name in weights_of_graph)
    assert rest < 25_000
    assert exported.file_bytes - rest <= 1.1 * budget(source.twin.network, 2 if half else 4)
    assert exported.file_bytes < 0.45 * exported.dense_bytes


def test_a_larger_network_is_within_its_budget(tmp_path: Path) -> None:
    """1.1 times the kept weights' values and positions, everything else of the file included."""
    torch.manual_seed(0)
    model = pruned(nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 600), nn.ReLU()), 0.1)
    inputs = torch.randn(4, 784)
    traced = to_onnx(model, [inputs])
    source = Source("layers", traced.model, ({"input": inputs.numpy()},), "random", Twin(model, traced.modules))
    for half, width in ((False, 4), (True, 2)):
        exported = export(source, tmp_path / "model.onnx", form=FileForm(half=half), overwrite=True)
        assert exported.file_bytes <= 1.1 * budget(model, width)


def test_a_dense_file_needs_no_runtime_of_ours(source: Source, tmp_path: Path) -> None:
    exported = export(source, tmp_path / "model.onnx", form=FileForm(dense=True))
    model = onnx.load(tmp_path / "model.onnx")
    assert ops(model) == []
    assert [entry.domain for entry in model.opset_import] == [""]
    assert source.twin is not None
    images = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        assert_same(run_dense(model, {"images": images.numpy()}), [source.twin.network(images).numpy()], tolerance=2e-5)
    assert (exported.layers, exported.file_bytes) == ((), exported.dense_bytes)


def test_nothing_of_this_machine_is_in_the_file(source: Source) -> None:
    content = source.dense.SerializeToString()
    assert str(Path(__file__).parent).encode() not in content
    assert b"stack_trace" not in content


def with_initializer(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """The model with an initializer changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (tensor,) = [tensor for tensor in changed.graph.initializer if tensor.name == name]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    return changed


def doubled(packed: np.ndarray) -> np.ndarray:
    """A packed weight, twice as large."""
    return np.frombuffer(weights.encode(2 * weights.decode(packed.tobytes())), np.uint8)


@pytest.mark.parametrize("layer", ["inner", "depthwise", "sequence", "classes"])
def test_a_wrong_weight_is_caught_and_its_layer_named(source: Source, layer: str, tmp_path: Path) -> None:
    rewritten = rewrite(source.dense, costs=SPARSE)
    path = tmp_path / "model.onnx"
    path.write_bytes(rewritten.model.SerializeToString())
    compare_with_dense(source.dense, path, rewritten, source.feeds)
    # Folding BatchNorm renames a weight, its layer keeps its name.
    name = next(t.name for t in rewritten.model.graph.initializer if t.name.startswith(f"{layer}.packed"))
    path.write_bytes(with_initializer(rewritten.model, name, doubled).SerializeToString())
    with pytest.raises(ExportError, match=rf"the first layer that differs is {layer} \("):
        compare_with_dense(source.dense, path, rewritten, source.feeds)


def test_a_wrong_onnx_network_is_caught_and_not_written(source: Source, tmp_path: Path) -> None:
    """The torch network is the judge of what its exporter wrote."""
    wrong = replace(source, dense=with_initializer(source.dense, "pointwise.weight", lambda weight: weight * 1.5))
    for dense in (False, True):
        with pytest.raises(ExportError, match=r"the first layer that differs is pointwise \("):
            export(wrong, tmp_path / "model.onnx", form=FileForm(dense=dense), costs=SPARSE)
    assert list(tmp_path.iterdir()) == []


def test_fp16_refuses_what_it_cannot_hold(source: Source, tmp_path: Path) -> None:
    def huge(weight: np.ndarray) -> np.ndarray:
        return np.where(weight == weight.max(), np.float32(70_000), weight)

    large = replace(source, dense=with_initializer(source.dense, "pointwise.weight", huge), twin=None)
    with pytest.raises(ExportError, match=r"layer pointwise: a weight of 70000 .* without --half"):
        export(large, tmp_path / "model.onnx", form=FileForm(half=True), costs=SPARSE)
    assert list(tmp_path.iterdir()) == []
    export(large, tmp_path / "model.onnx", costs=SPARSE)


def test_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_run(run)
    path = tmp_path / "small.onnx"
    output = " ".join(printed("export", run, "-o", path).split())
    assert "compared on 200 validation examples" in output
    assert f"round 2 of {run} written to" in output
    subject = open_source(str(run))
    assert subject.scoring is not None
    before = path.read_bytes()
    assert "is there already" in refused("export", run, "-o", path)
    assert path.read_bytes() == before
    printed("export", run, "-o", path, "--round", "0", "--dense", "--overwrite")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, dict(feed))[0] for feed in open_source(str(run), round_number=0).feeds])
    assert outputs.shape == (200, 10)


def test_a_run_without_its_dead_units(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small_run(run)
    whole, path = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    printed("export", run, "-o", whole, "--dense")
    output = " ".join(printed("export", run, "-o", path, "--dense", "--shrink").split())
    removed = int(re.search(r"without ([\d,]+) dead units", output)[1].replace(",", ""))  # type: ignore[index]
    subject = open_round(run)
    assert removed == shrink(subject.model, subject.data.validation.batch(slice(0, 64))[0]).units_removed
    feeds = open_source(str(run)).feeds
    outputs = [
        np.concatenate([session.run(None, dict(feed))[0] for feed in feeds])
        for session in (
            onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in (whole, path)
        )
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-4)
    assert (path.stat().st_size < whole.stat().st_size) == (removed > 0)
    assert "--shrink" in refused("export", whole, "-o", tmp_path / "other.onnx", "--shrink")


OWN = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 8)

def nothing():
    return nn.Linear(2, 2)
"""


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    output = printed("export", f"{tmp_path}/own.py:network", "-o", tmp_path / "own.onnx")
    assert "compared on the given example inputs" in " ".join(output.split())
    assert (tmp_path / "own.onnx").is_file()
    message = refused("export", f"{tmp_path}/own.py:nothing", "-o", tmp_path / "other.onnx")
    assert "returned Linear; expected a gossamer.tasks.Task, or a torch network and example inputs" in message


def pruned_elsewhere() -> onnx.ModelProto:
    """A network as some other tool may have pruned it, with open axes."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["image", "first"], ["a"], pads=[1] * 4, name="one"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "second"], ["c"], name="two"),
        node("GlobalAveragePool", ["c"], ["d"]),
        node("Flatten", ["d"], ["scores"]),
    ]
    constants = {"first": sparse_weight(rng, 8, 3, 3, 3), "second": sparse_weight(rng, 10, 8, 1, 1)}
    return network(nodes, {"image": ["n", 3, "h", "w"]}, constants, ["scores"])


def test_an_onnx_file(tmp_path: Path) -> None:
    onnx.save(pruned_elsewhere(), tmp_path / "elsewhere.onnx")
    exported: Exported = export(open_source(str(tmp_path / "elsewhere.onnx")), tmp_path / "m.onnx", costs=SPARSE)
    assert [(layer.name, layer.form) for layer in exported.layers] == [("one", "sparse"), ("two", "sparse")]
    model = onnx.load(tmp_path / "m.onnx")
    for shape in ((1, 3, 9, 17), (2, 3, 20, 8)):
        feed = {"image": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
        assert_same(run_sparse(model, feed), run_dense(pruned_elsewhere(), feed))
    assert "already holds sparse ops" in refused("export", tmp_path / "m.onnx", "-o", tmp_path / "again.onnx")


def test_a_dense_file_that_was_optimised_beside_sparse_ones(tmp_path: Path) -> None:
    """ONNX Runtime lists every domain that its process knows, that of sparse ops among them."""
    model = pruned_elsewhere()
    model.opset_import.append(helper.make_opsetid("gossamer", 1))
    onnx.save(model, tmp_path / "listed.onnx")
    export(open_source(str(tmp_path / "listed.onnx")), tmp_path / "m.onnx", costs=SPARSE)
    written = onnx.load(tmp_path / "m.onnx")
    feed = {"image": np.random.default_rng(1).standard_normal((1, 3, 9, 17)).astype(np.float32)}
    assert_same(run_sparse(written, feed), run_dense(pruned_elsewhere(), feed))
    assert [entry.domain for entry in written.opset_import].count("gossamer") == 1


def test_an_old_onnx_file_whose_weights_are_inputs_too(tmp_path: Path) -> None:
    old = pruned_elsewhere()
    old.ir_version = 3
    for tensor in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    old.opset_import[0].version = 8
    onnx.save(old, tmp_path / "old.onnx")
    exported = export(open_source(str(tmp_path / "old.onnx")), tmp_path / "m.onnx", costs=SPARSE)
    assert [layer.form for layer in exported.layers] == ["sparse", "sparse"]


def mistakes() -> Sequence[tuple[list[str], str]]:
    return [
        (["digits", "--round", "3"], "is no folder of a run"),
        (["missing.onnx"], "there is no file"),
        (["good.onnx", "--data", "empty"], "leave --data out"),
        (["good.onnx", "--task", "own.py:task"], "leave --task out"),
        (["damaged.onnx"], "is no valid ONNX file"),
        (["nonsense"], "expected a run's folder, an ONNX file"),
        (["good.onnx", "--dense", "--half"], "leave --half out"),
        (["good.onnx", "-o", "absent/model.onnx"], "there is no folder"),
        (["good.onnx", "-o", "."], "is there already"),
        (["wont-run.onnx"], "does not run in ONNX Runtime on random inputs"),
        (["empty"], "config.toml"),
    ]


@pytest.mark.parametrize(("arguments", "message"), mistakes())
def test_mistakes(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    good = pruned_elsewhere()
    onnx.save(good, "good.onnx")
    Path("damaged.onnx").write_bytes(good.SerializeToString()[:-50])
    onnx.save(
        network([node("Reshape", ["x", "s"], ["y"])], {"x": ["n", 3]}, {"s": np.asarray([7, 11])}, ["y"]),
        "wont-run.onnx",
    )
    before = sorted(tmp_path.iterdir())
    assert message in refused("export", *arguments)
    assert sorted(tmp_path.iterdir()) == before


WEIGHTS = "resnet20-12fca82f.th"


@pytest.mark.slow
def test_a_pretrained_resnet_scores_the_same(real_data: Path, tmp_path: Path) -> None:
    """On 500 test images, dense and with half of its weights pruned; on all 10,000: docs/results.md."""
    path = real_data / "weights" / WEIGHTS
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("12fca82f")
    content = torch.load(path, map_location="cpu", weights_only=True)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    test = load_split(CIFAR10, real_data, "test")
    images, targets = (test.inputs[:500] / 255 - mean) / deviation, test.targets[:500]
    for density, costs in ((1.0, None), (0.5, SPARSE)):
        model = CifarResNet(20, shortcut="padding")
        model.load_state_dict({name.removeprefix("module."): value for name, value in content["state_dict"].items()})
        model = pruned(model, density)  # type: ignore[assignment]
        traced = to_onnx(model, [images[:2]])
        feeds = tuple({"images": part.numpy()} for part in images.split(100))
        scoring = ExampleScore(Metric(), targets.split(100), torch.zeros(2, 10))
        source = Source("resnet", traced.model, feeds, "images", Twin(model, traced.modules), scoring)
        exported = export(source, tmp_path / f"{density}.onnx", costs=costs)
        assert exported.metric == exported.metric_before
        assert exported.metric is not None
        assert exported.metric > 0.85
        assert sum(layer.form == "sparse" for layer in exported.layers) == (0 if density == 1 else 20)
