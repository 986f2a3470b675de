"""Before a task's network is trained: do network, data, loss and metric go together?"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer import randomness
from gossamer.errors import GossamerError
from gossamer.model.modes import in_evaluation
from gossamer.tasks.errors import TaskError
from gossamer.tasks.loading import SPLITS, in_one_line
from gossamer.tasks.task import Data, Examples, Task, correct


@torch.no_grad()
def check_task(task: Task, model: nn.Module, data: Data) -> None:
    """Computes loss and metric of one batch of every split, in evaluation mode, and throws them away; the model's mode
    and the random numbers are put back. Model and data are on one device.

    Raises:
        TaskError: the network's output, the loss or the metric is not what a task's should be, one of them fails, or a
            target is no class of the network.
    """
    with in_evaluation(model), randomness.seeded(0):
        for split in SPLITS:
            _try(task, model, getattr(data, split), split)


def _try(task: Task, model: nn.Module, examples: Examples, split: str) -> None:
    what = "the network"
    try:
        inputs, targets = examples.batch(slice(0, task.recipe.batch_size))
        outputs = model(inputs)
        if isinstance(outputs, Tensor):
            _check_classes(task, outputs, examples.targets, split)
            what = "the loss"
            loss = task.recipe.loss(outputs.float(), targets)
            what = "the metric"
            scores = task.metric.score(outputs, targets)
    except GossamerError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise TaskError(f"{task.name}: {what} fails on the {split} split: {in_one_line(error)}") from error
    if not isinstance(outputs, Tensor):
        raise TaskError(
            f"{task.name}: the network's output is a {type(outputs).__name__}; expected one tensor, whose first "
            f"dimension counts the examples. Put the network into a module that returns the tensor, such as .logits."
        )
    if not isinstance(loss, Tensor) or loss.dim() > 0:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise TaskError(f"{task.name}: the loss is {got}; expected one number, a tensor of no dimensions")
    if not (isinstance(scores, Tensor) and scores.numel()):
        got = "an empty tensor" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise TaskError(
            f"{task.name}: the score of the metric {task.metric.name} is {got}; expected a tensor "
            f"with a number for each example"
        )


def _check_classes(task: Task, outputs: Tensor, targets: Tensor, split: str) -> None:
    """Verifies that targets that count as classes are classes: those of the metric too, which would only call the
    output wrong."""
    entropy = _cross_entropy(task.recipe.loss)
    if (entropy is None and task.metric.score is not correct) or targets.is_floating_point() or outputs.dim() < 2:
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
