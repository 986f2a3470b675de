"""Before a task's network is trained: do network, data, loss and metric go together?"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import GossamerError
from gossamer.model.modes import in_evaluation
from gossamer.model.nested import in_float32, tensors_in
from gossamer.tasks.batch import called
from gossamer.tasks.errors import TaskError
from gossamer.tasks.loading import in_one_line
from gossamer.tasks.task import Data, Examples, Split, Task, correct
from gossamer.tasks.training import sample


@torch.no_grad()
def check_task(task: Task, model: nn.Module, data: Data) -> None:
    """Computes loss and metric of one batch of every split, in evaluation mode, and throws them away; the model's mode
    and the random numbers are put back. Model and data are on one device.

    Raises:
        TaskError: the network's output, the loss or the metric is not what a task's should be, one of them fails, or a
            target is no class of the network.
    """
    with in_evaluation(model), randomness.seeded(0):
        for name, split in data.splits().items():
            _try(task, model, split, name)


def _try(task: Task, model: nn.Module, examples: Split, split: str) -> None:
    what = "reading a batch"
    try:
        batch = sample(task.recipe, examples).to(next(model.parameters()).device)
        what = "the network"
        outputs = called(model, batch, task.recipe.loss)
        if isinstance(outputs, Tensor) and isinstance(batch.targets, Tensor):
            targets = examples.targets if isinstance(examples, Examples) else batch.targets
            _check_classes(task, outputs, targets, split)
        what = "the loss"
        loss = task.recipe.loss(in_float32(outputs), batch.targets)
        what = "the metric"
        _try_metric(task, outputs, batch.targets)
    except GossamerError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # A loss of one tensor is at a loss with anything else.
        hint = ""
        if what in ("the loss", "the metric") and not isinstance(outputs, Tensor):
            hint = (
                f". The network returns a {type(outputs).__name__}: loss and metric are given that; take out of it "
                f"what they are of, such as outputs.logits"
            )
        raise TaskError(f"{task.name}: {what} fails on the {split} split: {in_one_line(error)}{hint}") from error
    if not isinstance(loss, Tensor) or loss.dim() > 0:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise TaskError(f"{task.name}: the loss is {got}; expected one number, a tensor of no dimensions")


def _try_metric(task: Task, outputs: Any, targets: Any) -> None:
    metric = task.metric
    if metric.whole_set is not None:
        whole: Any = metric.whole_set()
        if hasattr(whole, "to"):
            whole = whole.to(next(tensors_in(outputs)).device)
        # It is computed over the whole set only: of a batch it may not exist.
        whole.update(outputs, targets)
        return
    scores = metric.score(outputs, targets)
    if not (isinstance(scores, Tensor) and scores.numel()):
        got = "an empty tensor" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise TaskError(
            f"{task.name}: the score of the metric {metric.name} is {got}; expected a tensor with a number for each "
            f"example"
        )


def _check_classes(task: Task, outputs: Tensor, targets: Tensor, split: str) -> None:
    """Verifies that targets that count as classes are classes: those of the metric too, which would only call the
    output wrong."""
    entropy = _cross_entropy(task.recipe.loss)
    if (
        (entropy is None and not (task.metric.whole_set is None and task.metric.score is correct))
        or targets.is_floating_point()
        or outputs.dim() < 2
    ):
        return
    found = targets if entropy is None else targets[targets != entropy]
    classes = outputs.shape[1]
    if found.numel() and not (int(found.min()) >= 0 and int(found.max()) < classes):
        raise TaskError(
            f"{task.name}: the targets of the {split} split are {int(found.min())} to {int(found.max())}, but the "
            f"network has {classes} outputs; expected classes from 0 to {classes - 1}"
        )


def _cross_entropy(loss: object) -> int | None:
    """The target that the loss passes over, if it is a cross-entropy; else None."""
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return loss.ignore_index
    keywords = loss.keywords if isinstance(loss, functools.partial) else {}
    function = loss.func if isinstance(loss, functools.partial) else loss
    return int(keywords.get("ignore_index", -100)) if function in (F.cross_entropy, F.nll_loss) else None
