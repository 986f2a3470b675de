"""What an ONNX network was made of: a network of torch, in evaluation mode, with a metric of its task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree

from gossamer.export.agreement import few_examples, how_wrong
from gossamer.export.calls import tensors_returned
from gossamer.export.rounding import Rounding
from gossamer.graph.outputs import with_outputs
from gossamer.graph.sessions import Feed, Opened, Run
from gossamer.loop.directions import Better
from gossamer.tasks import Metric
from gossamer.tasks.evaluation import measure_outputs


@dataclass(frozen=True)
class Twin:
    """A torch network beside the ONNX network made of it."""

    network: nn.Module
    modules: Mapping[str, str] = field(default_factory=dict)
    """Value of the ONNX network -> the path of the module that returns it."""

    def run(self, feed: Feed) -> list[NDArray[np.generic]]:
        """Its outputs, in the order of the graph's."""
        with torch.no_grad():
            outputs = self.network(*(torch.from_numpy(np.asarray(values)) for values in feed.values()))
        # ONNX has complex numbers as pairs of real ones.
        real = (torch.view_as_real(output) if output.is_complex() else output for output in tensors_returned(outputs))
        return [output.cpu().numpy() for output in real]

    def first_wrong(self, dense: onnx.ModelProto, feed: Feed) -> str | None:
        """The first module without modules of its own, in the order in which they run, whose output differs from that
        of its ONNX nodes, and how."""
        outputs: dict[str, NDArray[np.generic]] = {}

        def record(path: str) -> Callable[[nn.Module, object, object], None]:
            def hook(module: nn.Module, inputs: object, output: object) -> None:
                if isinstance(output, Tensor):
                    outputs[path] = output.detach().cpu().numpy().copy()

            return hook

        leaves = {path: module for path, module in self.network.named_modules() if path and not list(module.children())}
        handles = [module.register_forward_hook(record(path)) for path, module in leaves.items()]
        few = few_examples(dense, feed)
        try:
            self.run(few)
        finally:
            for handle in handles:
                handle.remove()
        made = {name for node in dense.graph.node for name in node.output}
        values = {path: value for value, path in self.modules.items() if value in made}
        names = [values[path] for path in outputs if path in values]
        wider = with_outputs(dense, names)
        rounding = Rounding(wider, [few], names)
        got = Opened(wider).values(few)
        for path, expected in outputs.items():
            if path in values and expected.shape == got[values[path]].shape:
                wrong = how_wrong(expected, got[values[path]], rounding, names.index(values[path]))
                if wrong is not None:
                    return f"{path} ({wrong})"
        return None


@dataclass(frozen=True)
class ExampleScore:
    """A task's metric on the examples that networks are compared on."""

    metric: Metric
    targets: Sequence[Any]
    """Those of each batch."""
    returned: Any
    """What the network returns for some batch: how its tensors are arranged."""

    @property
    def name(self) -> str:
        return self.metric.name

    def of(self, outputs: Sequence[Sequence[NDArray[np.generic]]]) -> float:
        """The metric of a network's outputs, batch by batch."""
        arranged = (_arranged(arrays, self.returned) for arrays in outputs)
        return measure_outputs(zip(arranged, self.targets, strict=True), self.metric)[self.name]


@dataclass(frozen=True)
class SplitScore:
    """A task's metric on a whole split."""

    metric: Metric
    batches: Callable[[], Iterable[tuple[Feed, Any]]]
    """Reads the inputs and targets of all its examples, batch by batch."""
    returned: Any
    """What the network returns for some batch: how its tensors are arranged."""

    @property
    def name(self) -> str:
        return self.metric.name

    def of(self, run: Run) -> float:
        """The metric of a network."""
        outputs = ((_arranged(run(feed), self.returned), targets) for feed, targets in self.batches())
        return measure_outputs(outputs, self.metric)[self.name]

    @property
    def better(self) -> Better:
        """Whether more or less of it is."""
        return self.metric.better


def _arranged(arrays: Sequence[NDArray[np.generic]], returned: Any) -> Any:
    """The arrays as the tensors of what a network returns."""
    others = iter(arrays)
    leaves, arrangement = _pytree.tree_flatten(returned)
    placed = [_tensor(next(others), leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return _pytree.tree_unflatten(placed, arrangement)


def _tensor(values: NDArray[np.generic], like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return torch.view_as_complex(tensor) if like.is_complex() else tensor
