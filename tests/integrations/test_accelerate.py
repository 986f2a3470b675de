"""Rounds around loops with accelerate, the real one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import gossamer
from gossamer import Retraining, Stop
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.records import read_ledger, read_records

accelerate = pytest.importorskip("accelerate")

from gossamer.integrations.accelerate import rounds  # noqa: E402

EPOCHS = 3


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    forget_process()


def forget_process() -> None:
    """Its state is the process's; a new process has none."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


@pytest.fixture
def examples() -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(64, 8, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def kept(model: nn.Module) -> int:
    return sum(
        int(np.count_nonzero(parameter.detach().numpy())) for parameter in model.parameters() if parameter.dim() > 1
    )


def train(
    folder: Path,
    examples: TensorDataset,
    killed_at: tuple[int, int] | None = None,
    retraining: Retraining | None = None,
    own_generator: bool = False,
    **options: Any,
) -> list[float]:
    """Rounds as in accelerate's examples, in a process that has just begun; returns the learning rates.

    Args:
        killed_at: round and step of it after which everything ends.
    """
    forget_process()
    accelerator = accelerate.Accelerator(cpu=True, **options)
    model, rates = small(), []
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2) if own_generator else None
    steps = EPOCHS * 4 // accelerator.gradient_accumulation_steps

    def one_cycle(optimizer: Any) -> Any:
        return lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps)

    for round, checkpoints in rounds(
        model,
        accelerator,
        folder=folder,
        stop=Stop(rounds=2),
        cut=gossamer.Cut(per_round=0.5),
        retraining=retraining,
        **({"state": {"order": Order(generator)}} if generator is not None else {}),
    ):
        batches = DataLoader(examples, batch_size=16, shuffle=True, generator=generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        scheduler = round.scheduler(
            optimizer, lambda given: lr_scheduler.OneCycleLR(given, 0.3, total_steps=steps), steps
        )
        network, optimizer, batches, prepared = accelerator.prepare(model, optimizer, batches, scheduler)
        for _ in checkpoints.epochs(EPOCHS):
            for inputs, targets in batches:
                if round.steps == scheduler.total_steps:
                    break
                with accelerator.accumulate(network):
                    accelerator.backward(functional.cross_entropy(network(inputs), targets))
                    accelerator.clip_grad_norm_(network.parameters(), 1.0)
                    if accelerator.sync_gradients:
                        rates.append(optimizer.param_groups[0]["lr"])
                    optimizer.step()
                    prepared.step()
                    optimizer.zero_grad()
                if killed_at == (round.number, round.steps):
                    raise Killed
        assert kept(model) == round.kept
        loss = functional.cross_entropy(model.eval()(examples.tensors[0]), examples.tensors[1])
        model.train()
        round.record(loss=loss.detach())
    return rates


class Order:
    """A generator that lives across rounds, as an entry of `state`."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["state"])


def same(folder: Path, other: Path) -> bool:
    names = [f"round-{number:02d}/model.safetensors" for number in range(3)]
    found = [(load_file(folder / name), load_file(other / name)) for name in names]
    return all(torch.equal(one[key], two[key]) for one, two in found for key in one | two)


def slow(**options: Any) -> Any:
    return pytest.param(options, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2, "mixed_precision": "bf16"},
        {"dataloader_config": {"use_seedable_sampler": True}},
        slow(retraining=Retraining("weight-rewind", rewind_to_step=3)),
        slow(own_generator=True),
        slow(dataloader_config={"use_seedable_sampler": True, "split_batches": True}),
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_killed_inside_a_round_it_goes_on_with_the_same_bits(
    options: dict[str, Any], tmp_path: Path, examples: TensorDataset
) -> None:
    if "dataloader_config" in options:
        options = {**options, "dataloader_config": accelerate.DataLoaderConfiguration(**options["dataloader_config"])}
    whole = train(tmp_path / "whole", examples, **options)
    per_epoch = 2 if "gradient_accumulation_steps" in options else 4
    for killed_at in ((0, per_epoch + 1), (1, per_epoch + 1)):
        with pytest.raises(Killed):
            train(tmp_path / "killed", examples, killed_at, **options)
        assert [path.name for path in (tmp_path / "killed" / "trainer").glob("*/*")] == ["1"]
    rest = train(tmp_path / "killed", examples, **options)
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert rest == whole[-len(rest) :]
    steps = [cost.steps for cost in read_ledger(tmp_path / "whole")]
    assert sum(steps) == len(whole)
    assert [cost.steps for cost in read_ledger(tmp_path / "killed")] == steps
    # It did not begin the round anew.
    assert len(rest) == steps[1] - per_epoch + steps[2]
    assert [record.val for record in read_records(tmp_path / "whole")] == [
        record.val for record in read_records(tmp_path / "killed")
    ]
    assert not (tmp_path / "killed" / "trainer").exists()


def test_it_is_the_loop_without_the_adapter(tmp_path: Path, examples: TensorDataset) -> None:
    train(tmp_path / "adapter", examples)
    model = small()
    torch.manual_seed(1)
    for round in gossamer.rounds(
        model, folder=tmp_path / "plain", stop=Stop(rounds=2), cut=gossamer.Cut(per_round=0.5)
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        scheduler = lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=12)
        for _ in range(EPOCHS):
            for inputs, targets in DataLoader(examples, batch_size=16, shuffle=True):
                optimizer.zero_grad()
                functional.cross_entropy(model(inputs), targets).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
        round.record(loss=1.0)
    assert same(tmp_path / "adapter", tmp_path / "plain")


def test_what_a_round_prepares_is_forgotten(tmp_path: Path, examples: TensorDataset) -> None:
    project = accelerate.utils.ProjectConfiguration(str(tmp_path / "own"), automatic_checkpoint_naming=True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16", project_config=project)
    model = small()
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.1))
    for round, checkpoints in rounds(
        model, accelerator, folder=tmp_path / "run", stop=Stop(rounds=3), state={"optimizer": optimizer}
    ):
        network, loader = accelerator.prepare(model, DataLoader(examples, batch_size=32))
        assert len(accelerator._models) == len(accelerator._dataloaders) == len(accelerator._optimizers) == 1
        # In every round the loss is computed in bfloat16, by one autocast.
        assert vars(model)["_original_forward"].__func__ is nn.Sequential.forward
        for _ in checkpoints.epochs(1):
            for inputs, targets in loader:
                accelerator.backward(functional.cross_entropy(network(inputs), targets))
                optimizer.step()
                optimizer.zero_grad()
        round.record(loss=1.0)
    assert accelerator._models == accelerator._dataloaders == []
    assert len(accelerator._optimizers) == 1
    # Its own checkpoints are as they were.
    assert project.automatic_checkpoint_naming
    assert not (tmp_path / "own").exists()


def test_a_checkpoint_of_another_attempt_is_refused(tmp_path: Path, examples: TensorDataset) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "1", examples, (1, 5))
    with pytest.raises(Killed):
        train(tmp_path / "2", examples, (0, 5))
    shutil.rmtree(tmp_path / "2/trainer/round-00")
    (tmp_path / "1/trainer/round-01").rename(tmp_path / "2/trainer/round-00")
    with pytest.raises(CheckpointError, match="the checkpoint of round 1 is not one of this round 0"):
        train(tmp_path / "2", examples)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda one: setattr(one.state, "distributed_type", accelerate.DistributedType.FSDP),
            "FSDP1 keeps the parameters in pieces without axes",
        ),
    ],
)
def test_what_cannot_be_pruned_is_refused(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    with pytest.raises(ConfigurationError, match=r"accelerator is .*expected an Accelerator"):
        rounds(small(), None, folder=tmp_path, target_sparsity=0.5)  # type: ignore[arg-type]
    state = accelerator.state
    before = dict(vars(state))
    change(accelerator)
    try:
        with pytest.raises(ConfigurationError, match=said):
            rounds(small(), accelerator, folder=tmp_path, target_sparsity=0.5)
    finally:
        vars(state).update(before)
