"""Rounds that are trained for int8 by the trainers with adapters: killed inside one, and the best epoch of one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gossamer
from gossamer import Retraining, Stop
from gossamer.loop.folder import load_ranges
from gossamer.loop.records import read_records
from gossamer.quantise.fake import FakeQuantisation
from gossamer.storage import state as states

pytestmark = [
    pytest.mark.filterwarnings(line)
    for line in (
        # Of Lightning, as in its own tests.
        "ignore:The '.*dataloader' does not have many workers",
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated",
        "ignore:.*LeafSpec.* is deprecated:FutureWarning",
        "ignore:The number of training batches",
        "ignore:Checkpoint directory .* exists and is not empty",
    )
]

LAST = Retraining(quantised_rounds=1)
IN_LEVELS = Retraining(quantised_rounds=1, levels=2)
GENERATOR = torch.Generator().manual_seed(5)
INPUTS = torch.randn(32, 6, generator=GENERATOR)
TARGETS = INPUTS[:, :3].argmax(1)


class Killed(BaseException):
    pass


def batches() -> DataLoader[Any]:
    return DataLoader(TensorDataset(INPUTS, TARGETS), 16, shuffle=True)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def assert_same(one: Path, other: Path, retraining: Retraining = LAST) -> None:
    for name in ("model.safetensors", "ranges.json") if retraining == LAST else ("model.safetensors",):
        assert (one / "round-01" / name).read_bytes() == (other / "round-01" / name).read_bytes()
    records = [read_records(folder)[-1] for folder in (one, other)]
    assert records[0].quantised
    assert records[0].levels == retraining.levels
    assert records[0].metrics == records[1].metrics


def measured(folder: Path, model: nn.Module, inputs: Any, ranges: Any = None) -> Any:
    """What the network in the folder returns as an int8 network; one in levels is an ordinary one."""
    if gossamer.load_round(folder, -1, model).levels is not None:
        with torch.no_grad():
            return model.eval()(**inputs) if isinstance(inputs, dict) else model.eval()(inputs)
    fake = FakeQuantisation(model, gossamer.prunable_weights(model))
    fake.ranges = load_ranges(folder, -1) if ranges is None else ranges
    with fake.attached(), torch.no_grad():
        return model.eval()(**inputs) if isinstance(inputs, dict) else model.eval()(inputs)


# --- accelerate -----------------------------------------------------------------------------------------------------


@pytest.fixture
def accelerator() -> Iterator[Any]:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield lambda: accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


@pytest.mark.parametrize("retraining", [LAST, IN_LEVELS], ids=["int8", "levels"])
def test_accelerate(retraining: Retraining, accelerator: Any, tmp_path: Path) -> None:
    from gossamer.integrations.accelerate import rounds

    def job(folder: Path, killed_in: int | None = None) -> None:
        model, made = small(), accelerator()
        torch.manual_seed(1)
        for round, checkpoints in rounds(model, made, folder=folder, stop=Stop(rounds=1), retraining=retraining):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            network, optimizer, loader = made.prepare(model, optimizer, batches())
            for epoch in checkpoints.epochs(3):
                if round.quantised and epoch == killed_in:
                    raise Killed
                for inputs, targets in loader:
                    with made.accumulate(network):
                        made.backward(nn.functional.cross_entropy(network(inputs), targets))
                        optimizer.step()
                        optimizer.zero_grad()
            with torch.no_grad():
                round.record(loss=nn.functional.cross_entropy(model.eval()(INPUTS), TARGETS))
            model.train()

    job(tmp_path / "whole")
    with pytest.raises(Killed):
        job(tmp_path / "killed", killed_in=2)
    job(tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed", retraining)
    loss = nn.functional.cross_entropy(measured(tmp_path / "whole", small(), INPUTS), TARGETS)
    assert read_records(tmp_path / "whole")[-1].val == loss.item()


# --- Lightning ------------------------------------------------------------------------------------------------------


def make_module() -> Any:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = small()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Module()


@pytest.mark.parametrize("retraining", [LAST, IN_LEVELS], ids=["int8", "levels"])
@pytest.mark.parametrize("keeps", ["last", "worst"])
def test_lightning(keeps: str, retraining: Retraining, tmp_path: Path) -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    from lightning import Trainer

    from gossamer.integrations.lightning import rounds

    class Killer(callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_epoch_start(self, trainer: Any, *others: Any) -> None:
            if trainer.current_epoch == 2:
                raise Killed

    def make_trainer(folder: Path) -> Any:
        checkpoint = callbacks.ModelCheckpoint(monitor="val_loss", mode="max", filename="worst")
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        return Trainer(default_root_dir=folder, max_epochs=3, callbacks=[checkpoint], **quiet)

    def job(folder: Path, killed: bool = False) -> None:
        module, held_out = make_module(), DataLoader(TensorDataset(INPUTS, TARGETS), 32)
        torch.manual_seed(1)
        for round, trainer in rounds(module, make_trainer, folder=folder, stop=Stop(rounds=1), retraining=retraining):
            if killed and round.quantised:
                trainer.callbacks.append(Killer())
            trainer.fit(module, batches(), held_out)
            last = round.ranges
            if keeps == "worst":
                trainer.validate(module, held_out, ckpt_path="best", verbose=False, weights_only=True)
                assert not round.quantised or round.ranges != last

    job(tmp_path / "whole")
    with pytest.raises(Killed):
        job(tmp_path / "killed", killed=True)
    job(tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed", retraining)
    module = make_module()
    module.forward = module.network.forward
    loss = nn.functional.cross_entropy(measured(tmp_path / "whole", module, INPUTS), TARGETS)
    assert read_records(tmp_path / "whole")[-1].val == loss.item()


# --- transformers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retraining", [LAST, IN_LEVELS], ids=["int8", "levels"])
@pytest.mark.parametrize("keeps", [pytest.param("last", marks=pytest.mark.slow), "worst"])
def test_transformers(keeps: str, retraining: Retraining, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import small_trainer

    worst = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "greater_is_better": True}
    options = worst if keeps == "worst" else {}
    of_rounds = {"stop": Stop(rounds=1), "retraining": retraining, "keep_checkpoints": True}
    small_trainer.run(tmp_path / "whole", of_rounds=of_rounds, **options)
    with pytest.raises(small_trainer.Killed):
        small_trainer.run(tmp_path / "killed", of_rounds=of_rounds, killed_at=(1, 7), **options)
    small_trainer.run(tmp_path / "killed", of_rounds=of_rounds, **options)
    for name in ("model.safetensors", "ranges.json") if retraining == LAST else ("model.safetensors",):
        whole, killed = (tmp_path / one / "round-01" / name for one in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    checkpoint = "checkpoint-3" if keeps == "worst" else "checkpoint-8"
    mark = states.load(tmp_path / "whole/trainer/round-01" / checkpoint / "gossamer.safetensors")
    if retraining == LAST:
        found = load_ranges(tmp_path / "whole", -1)
        assert {name: (one.low, one.high) for name, one in found.items()} == {
            name: tuple(range[:2].tolist()) for name, range in mark["ranges"].items()
        }
    rows = small_trainer.Rows(small_trainer.drawn(8 * small_trainer.WIDTH, seed=1))
    inputs = {"input_ids": rows.inputs, "labels": rows.labels}
    # The Trainer's mean is over all tokens of a row, of which the first is never foretold.
    loss = measured(tmp_path / "whole", small_trainer.gpt2(), inputs).loss * (1 - 1 / small_trainer.WIDTH)
    assert read_records(tmp_path / "whole")[-1].val == pytest.approx(loss.item(), rel=1e-6)
