"""The network early in the dense training, to rewind to: taken by counting the optimizer's steps.

gossamer sees every step of every `torch.optim` optimizer, so the loop that trains need not know that a snapshot is
taken. The steps are those of one optimizer, the first that is seen to step on the model's parameters in the round; a
second one (for other layers, or an adversary) is not counted, unless the first is gone.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.model.stored import fill, storable
from gossamer.model.wrappers import unwrap
from gossamer.prune.enforce import watch
from gossamer.rewind.optimizers import optimizers
from gossamer.storage import state as states
from gossamer.storage.files import write_file


class StepCounter:
    """Counts the optimizer steps of a training, and does something after some of them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps = 0
        """Steps so far. Whoever resumes a training sets what an interrupted attempt had taken."""
        self._after: dict[int, list[Callable[[], None]]] = {}
        self._clock: Callable[[], Optimizer | None] = lambda: None

    def after(self, step: int, action: Callable[[], None]) -> None:
        """Does `action` once `step` steps were taken; at once if that is now, never if it is past."""
        if step == self.steps:
            action()
        self._after.setdefault(step, []).append(action)

    def count(self, optimizer: Optimizer) -> None:
        """One step of an optimizer, which may be another model's."""
        if self._clock() is None and self._trains(optimizer):
            self._clock = weakref.ref(optimizer)
        if optimizer is not self._clock():
            return
        self.steps += 1
        for action in self._after.get(self.steps, ()):
            action()

    def _trains(self, optimizer: Optimizer) -> bool:
        own = {id(parameter) for parameter in self.model.parameters()}
        return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])


_counters: tuple[StepCounter, ...] = ()
"""The ones that count now. Replaced, not changed: another thread may be stepping."""
_counting = threading.Lock()
_step_hooks: list[RemovableHandle] = []
"""One for all of them, and for good: torch's own table must not change while another thread steps."""


@contextmanager
def counted(counter: StepCounter) -> Iterator[StepCounter]:
    """Optimizer steps inside are counted."""
    global _counters
    with _counting:
        if not _step_hooks:
            watch()  # First: what is done after a step finds the zeros in their places.
            _step_hooks.append(register_optimizer_step_post_hook(_disable_dynamo(_count_all)))
        _counters += (counter,)
    try:
        yield counter
    finally:
        with _counting:
            _counters = tuple(other for other in _counters if other is not counter)
        # They lead back to the run, which is to go at once if nobody else holds it.
        counter._after.clear()


def _count_all(optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
    for counter in _counters:
        counter.count(optimizer)


def take(path: Path, step: int, model: nn.Module, objects: Mapping[str, Any]) -> None:
    """Writes model and optimizers as they are now to `path`: whole or not at all, without pickle, with a checksum.

    Raises:
        CheckpointError: it cannot be written.
    """
    state = {
        "step": step,
        "model": storable(model),
        "optimizers": {name: thing.state_dict() for name, thing in optimizers(objects).items()},
    }
    write_file(path, lambda temporary: states.save(temporary, state))


def require(path: Path, step: int, steps_taken: int) -> None:
    """Verifies that a snapshot of this step was taken.

    Raises:
        ConfigurationError: the training did not come to the step, or its steps were not seen.
    """
    if path.exists():
        if states.load_entries(path).get("step") == step:
            return
        raise CheckpointError(f"{path} is a snapshot of another step than {step}; start in a new folder")
    raise ConfigurationError(
        f"there is no snapshot after step {step} of the dense round to rewind to: {steps_taken} optimizer steps were "
        f"seen. Rewind to an earlier step; and if the loop steps with an optimizer that is no torch.optim.Optimizer, "
        f"call round.take_snapshot() after that step."
    )


def rewind(model: nn.Module, objects: Mapping[str, Any], path: Path, also: tuple[str, ...]) -> int:
    """Puts the weights of the snapshot into the model, and what is named in `also` (`strategies.REWINDABLE`); returns
    the step that it was taken after.

    Raises:
        CheckpointError: the snapshot is damaged or does not fit.
    """
    snapshot = states.load_entries(path)
    try:
        step = int(snapshot["step"])
        tensors: dict[str, Tensor] = dict(snapshot["model"])
        stored = dict(snapshot["optimizers"])
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no snapshot of a network ({error}); restore it from a copy") from error
    with _statistics(model, keep="statistics" not in also):
        fill(model, tensors, path)
    if "optimizer" in also:
        for name, optimizer in optimizers(objects).items():
            try:
                optimizer.load_state_dict(stored[name])
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise CheckpointError(f"the state of {name!r} in {path} does not fit it ({error})") from error
    return step


def reinitialise(
    model: nn.Module, objects: Mapping[str, Any], fresh_model: Callable[[], nn.Module] | None, also: tuple[str, ...]
) -> None:
    """Draws all parameters anew, from torch's global random numbers.

    Args:
        fresh_model: makes a freshly initialised model of the same shapes; by default every layer's own
            `reset_parameters` is called.
    """
    with _statistics(model, keep="statistics" not in also):
        if fresh_model is not None:
            fill(model, storable(fresh_model()), Path("fresh_model"))
        else:
            for module in unwrap(model).modules():
                reset = _reset(module)
                if reset is not None:
                    reset()
    if "optimizer" in also:
        for optimizer in optimizers(objects).values():
            optimizer.state.clear()


def check_can_reinitialise(model: nn.Module) -> None:
    """Verifies that every layer knows how to draw its parameters.

    Raises:
        ConfigurationError: one does not.
    """
    for name, module in unwrap(model).named_modules():
        if next(module.parameters(recurse=False), None) is not None and _reset(module) is None:
            raise ConfigurationError(
                f"{name or 'the model'} ({type(module).__name__}) has parameters but no reset_parameters; pass "
                f"fresh_model=, a function that makes a newly initialised model"
            )


def _reset(module: nn.Module) -> Callable[[], None] | None:
    # nn.MultiheadAttention and nn.Transformer spell it with an underscore.
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    return reset if callable(reset) else None


@contextmanager
def _statistics(model: nn.Module, keep: bool) -> Iterator[None]:
    """Keeps, with `keep`, the model's buffers: they are afterwards what they were before."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()} if keep else {}
    yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])


__all__ = [
    "StepCounter",
    "check_can_reinitialise",
    "counted",
    "optimizers",
    "reinitialise",
    "require",
    "rewind",
    "take",
]
