"""Rounds around the Trainer of Lightning, the real one, of both of its packages."""

import functools
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import gossamer
from gossamer import Retraining, Stop
from gossamer.errors import ConfigurationError, GossamerWarning, PrunedWeightError
from gossamer.loop.records import read_ledger, read_records

pytest.importorskip("lightning")

from gossamer.integrations.lightning import RoundCallback, rounds

PACKAGES = ["lightning.pytorch", "pytorch_lightning"]

pytestmark = [
    pytest.mark.filterwarnings(line)
    for line in (
        # Of its data loader, on machines with several processors.
        "ignore:The '.*dataloader' does not have many workers",
        # Of a module that torch moved, which Lightning still asks for.
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated",
        "ignore:.*LeafSpec.* is deprecated:FutureWarning",
        # Of a logger that is not installed, though none is asked for.
        "ignore:.*tensorboardX.* has been removed as a dependency",
        "ignore:The number of training batches",
        # Of files that an interrupted round left.
        "ignore:Checkpoint directory .* exists and is not empty",
        "ignore:You defined a `validation_step` but have no `val_dataloader`",
    )
]

EPOCHS = 3
Configure = Callable[[Any], Any]


class Killed(BaseException):
    pass


def sgd(module: Any) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)


def cosine(module: Any) -> Any:
    optimizer = sgd(module)
    return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)]


def one_cycle(module: Any) -> Any:
    optimizer = sgd(module)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=module.trainer.estimated_stepping_batches)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def make_module(configure: Configure = cosine, package: str = PACKAGES[0], **hooks: Any) -> Any:
    base: Any = import_module(package).LightningModule

    class Module(base):  # type: ignore[misc]
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.network = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))
            self.rates: list[float] = []

        def forward(self, inputs: Tensor) -> Tensor:
            return self.network(inputs)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            loss = functional.cross_entropy(self.network(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            outputs = self.network(batch[0])
            self.log("val_loss", functional.cross_entropy(outputs, batch[1]))
            self.log("val_score", (outputs.argmax(1) == batch[1]).float().mean())

        def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self) -> Any:
            return configure(self)

    for name, hook in hooks.items():
        setattr(Module, name, hook)
    torch.manual_seed(0)
    return Module()


@pytest.fixture
def examples() -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(64, 8, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


@pytest.fixture
def batches(examples: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(examples, batch_size=16, shuffle=True)


@pytest.fixture
def held_out(examples: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(examples, batch_size=64)


def trainers(package: str = PACKAGES[0], made: list[Any] | None = None, **arguments: Any) -> Callable[[Path], Any]:
    """A make_trainer; what is callable among the arguments is made anew with every Trainer."""
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "max_epochs": EPOCHS,
    }

    def make(folder: Path) -> Any:
        given = {name: value() if callable(value) else value for name, value in (quiet | arguments).items()}
        trainer = import_module(package).Trainer(default_root_dir=folder, **given)
        if made is not None:
            made.append(trainer)
        return trainer

    return make


def kept(module: nn.Module) -> int:
    """Counted by numpy, apart from masks."""
    weights = (parameter for name, parameter in module.named_parameters() if name.endswith("weight"))
    return sum(int(np.count_nonzero(weight.detach().numpy())) for weight in weights)


def train(
    folder: Path,
    loaders: list[Any],
    module: Any = None,
    make: Callable[[Path], Any] | None = None,
    killed_at: tuple[int, int] | None = None,
    **options: Any,
) -> Any:
    """Rounds, in one process.

    Args:
        killed_at: round and step of it before which everything ends.
    """
    module = make_module() if module is None else module
    torch.manual_seed(1)
    for round, trainer in rounds(
        module,
        make or trainers(),
        folder=folder,
        **({"stop": Stop(rounds=2), "cut": gossamer.Cut(per_round=0.5)} | options),
    ):
        if killed_at is not None and killed_at[0] == round.number:
            trainer.callbacks.insert(0, killer(killed_at[1]))
        trainer.fit(module, *loaders)
        assert kept(module) == round.kept
    return module


def killer(step: int) -> Any:
    callbacks = import_module("lightning.pytorch.callbacks")

    class Killer(callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_start(self, trainer: Any, *others: Any) -> None:
            if trainer.global_step == step:
                raise Killed

    return Killer()


def same(folder: Path, other: Path, last: int = 2) -> bool:
    names = [f"round-{number:02d}/model.safetensors" for number in range(last + 1)]
    found = [(load_file(folder / name), load_file(other / name)) for name in names]
    return all(torch.equal(one[key], two[key]) for one, two in found for key in one | two)


@pytest.mark.parametrize("package", PACKAGES)
def test_rounds_are_trained_and_recorded(
    package: str, tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    made: list[Any] = []
    module = make_module(package=package)
    train(tmp_path, [batches, held_out], module, trainers(package, made))
    records = read_records(tmp_path)
    assert [(record.round, record.kept) for record in records] == [(0, 176), (1, 88), (2, 44)]
    # Loss and score of the validation come before that of the training.
    assert list(records[2].metrics) == ["val_loss", "val_score", "train_loss"]
    assert (
        records[2].val == records[2].metrics["val_loss"] == pytest.approx(float(made[2].callback_metrics["val_loss"]))
    )
    assert len(made) == 3
    assert [Path(trainer.default_root_dir).name for trainer in made] == ["round-00", "round-01", "round-02"]
    # The schedule was replayed, and what rounds go on from is gone.
    assert module.rates[:12] == module.rates[12:24] == module.rates[24:]
    assert len({*module.rates}) == 3
    assert not (tmp_path / "trainer").exists()
    assert [cost.steps for cost in read_ledger(tmp_path)] == [12, 12, 12]
    # A finished run has no more iterations.
    train(tmp_path, [batches, held_out], module, trainers(package, made))
    assert len(made) == 3


def test_the_rounds_are_those_of_a_plain_loop(tmp_path: Path, batches: DataLoader[Any]) -> None:
    """Around gossamer.rounds with a new Trainer in every round, nothing else: the same bits."""
    train(tmp_path / "adapter", [batches])
    module = make_module()
    torch.manual_seed(1)
    for round in gossamer.rounds(
        module, folder=tmp_path / "plain", stop=Stop(rounds=2), cut=gossamer.Cut(per_round=0.5)
    ):
        trainers()(tmp_path).fit(module, batches)
        round.record(loss=1.0)
    assert same(tmp_path / "adapter", tmp_path / "plain")


METHODS = {
    "lr-rewind": (Retraining(), cosine),
    "one cycle": (Retraining(), one_cycle),
    "weight-rewind": (Retraining("weight-rewind", rewind_to_epoch=1), cosine),
    "weight-rewind to a step": (Retraining("weight-rewind", rewind_to_step=3), one_cycle),
    "fine-tune": (Retraining("fine-tune"), cosine),
    "linear": (Retraining("linear-lr-restart"), sgd),
}


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("method", "killed_at"),
    [
        ("lr-rewind", (1, 5)),
        slow("lr-rewind", (0, 9)),
        slow("lr-rewind", (2, 1)),
        slow("one cycle", (2, 11)),
        slow("one cycle", (0, 5)),
    ],
    ids=str,
)
def test_killed_inside_a_round_it_goes_on_with_the_same_bits(
    method: str, killed_at: tuple[int, int], tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    retraining, configure = METHODS[method]
    whole = train(tmp_path / "whole", [batches, held_out], make_module(configure), retraining=retraining)
    with pytest.raises(Killed):
        train(
            tmp_path / "killed", [batches, held_out], make_module(configure), killed_at=killed_at, retraining=retraining
        )
    left = killed_at[1] // 4 * 4
    assert (tmp_path / "killed" / "trainer" / f"round-{killed_at[0]:02d}" / "resume.ckpt").exists() == (left > 0)
    rest = make_module(configure)
    train(tmp_path / "killed", [batches, held_out], rest, retraining=retraining)
    # It did not begin the round anew.
    assert len(rest.rates) == (3 - killed_at[0]) * 12 - left
    assert same(tmp_path / "whole", tmp_path / "killed")
    first, second = read_records(tmp_path / "whole"), read_records(tmp_path / "killed")
    assert [record.metrics for record in first] == [record.metrics for record in second]
    assert [cost.steps for cost in read_ledger(tmp_path / "killed")] == [12, 12, 12]
    assert whole.rates[-12:] == rest.rates[-12:] or left > 0


@pytest.mark.parametrize(
    "method", ["weight-rewind to a step", slow("weight-rewind"), slow("fine-tune"), slow("linear")], ids=str
)
def test_methods_with_learning_rates_of_their_own(
    method: str, tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    retraining, configure = METHODS[method]
    module = make_module(configure)
    train(tmp_path / "whole", [batches, held_out], module, retraining=retraining)
    dense, first, second = _split(module.rates, [cost.steps for cost in read_ledger(tmp_path / "whole")])
    assert first == second
    if method == "weight-rewind":
        assert first == dense[4:]
    elif method == "weight-rewind to a step":
        # Nine steps are no whole epochs; the last one is validated all the same (no warning is told).
        assert first == dense[3:]
    elif method == "fine-tune":
        assert first == [dense[-1]] * 12
    else:
        assert len(first) == 12
        assert first[0] > first[-1]
    for killed_at in ((0, 6), (1, 5)):
        with pytest.raises(Killed):
            train(
                tmp_path / "killed",
                [batches, held_out],
                make_module(configure),
                killed_at=killed_at,
                retraining=retraining,
            )
    train(tmp_path / "killed", [batches, held_out], make_module(configure), retraining=retraining)
    assert same(tmp_path / "whole", tmp_path / "killed")
    found, expected = read_records(tmp_path / "killed"), read_records(tmp_path / "whole")
    assert [record.metrics for record in found] == [record.metrics for record in expected]


def _split(rates: list[float], counts: list[int]) -> list[list[float]]:
    found, begin = [], 0
    for count in counts:
        found.append(rates[begin : begin + count])
        begin += count
    assert begin == len(rates)
    return found


# --- what Trainers are asked for ------------------------------------------------------------------------------------


def callbacks_of(*names: str, **options: Any) -> Callable[[], list[Any]]:
    found = import_module("lightning.pytorch.callbacks")
    return lambda: [getattr(found, name)(**options) for name in names]


TRAINERS: dict[str, dict[str, Any]] = {
    "accumulated": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
    "bfloat16": {"precision": "bf16-mixed"},
    "max_steps": {"max_steps": 9, "max_epochs": -1},
    "max_steps within max_epochs": {"max_steps": 9},
    "averages": {"callbacks": callbacks_of("EMAWeightAveraging", decay=0.5)},
    "stopped early": {"callbacks": callbacks_of("EarlyStopping", monitor="val_loss", patience=1, min_delta=9.0)},
    "deterministic": {"deterministic": True, "benchmark": False, "inference_mode": False},
    "several validations": {"val_check_interval": 2},
    "loaders made anew": {"reload_dataloaders_every_n_epochs": 1, "limit_train_batches": 0.8},
    "seldom validated": {"check_val_every_n_epoch": 3, "callbacks": callbacks_of("Timer")},
}


QUICK = ("max_steps", "stopped early")


@pytest.mark.parametrize(
    "options", [options if name in QUICK else slow(options) for name, options in TRAINERS.items()], ids=TRAINERS
)
def test_trainers_go_on_with_the_same_bits(
    options: dict[str, Any], tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    make = trainers(**options)
    with warnings.catch_warnings():
        if options.get("max_steps"):
            warnings.simplefilter("ignore", GossamerWarning)  # The last step is not validated, see below.
        train(tmp_path / "whole", [batches, held_out], make=make)
        step = 2 if "accumulate_grad_batches" in options else 4
        with pytest.raises(Killed):
            train(tmp_path / "killed", [batches, held_out], make=make, killed_at=(1, step + 1))
        # Killed between the end of the training and its record, too.
        train(tmp_path / "killed", [batches, held_out], make=make)
    assert same(tmp_path / "whole", tmp_path / "killed")
    found, expected = read_records(tmp_path / "killed"), read_records(tmp_path / "whole")
    assert [record.metrics for record in found] == [record.metrics for record in expected]
    steps = [cost.steps for cost in read_ledger(tmp_path / "killed")]
    assert steps == [cost.steps for cost in read_ledger(tmp_path / "whole")]
    if "callbacks" in options and [*TRAINERS][[*TRAINERS.values()].index(options)] == "stopped early":
        assert steps == [8, 8, 8]


def test_a_training_that_ended_before_it_was_recorded(
    tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    train(tmp_path / "whole", [batches, held_out])
    module = make_module()
    torch.manual_seed(1)
    options: dict[str, Any] = {"stop": Stop(rounds=2), "cut": gossamer.Cut(per_round=0.5)}
    for round, trainer in rounds(module, trainers(), folder=tmp_path / "killed", **options):
        trainer.fit(module, batches, held_out)
        if round.number == 1:
            break
    rest = train(tmp_path / "killed", [batches, held_out])
    assert len(rest.rates) == 12
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert [record.metrics for record in read_records(tmp_path / "killed")] == [
        record.metrics for record in read_records(tmp_path / "whole")
    ]


def test_a_network_that_was_not_validated_after_its_last_step(
    tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    make = trainers(max_steps=9)
    with pytest.warns(GossamerWarning, match=r"of round \d were measured before its last step.*trainer\.validate"):
        train(tmp_path / "told", [batches, held_out], make=make)
    module = make_module()
    for _, trainer in rounds(module, make, folder=tmp_path / "run", stop=Stop(rounds=1)):
        trainer.fit(module, batches, held_out)
        (found,) = trainer.validate(module, held_out, verbose=False)
        trainer.test(module, held_out, verbose=False)
    record = read_records(tmp_path / "run")[-1]
    assert (record.metrics["val_loss"], record.metrics["val_score"]) == (found["val_loss"], found["val_score"])
    # What a test step logs is on test data, whatever its name.
    assert record.metrics["test_accuracy"] == found["val_score"]


def test_what_a_callback_monitors_decides(tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]) -> None:
    checkpoints = callbacks_of("ModelCheckpoint", monitor="val_score", mode="max", filename="best")
    make = trainers(callbacks=checkpoints, enable_checkpointing=True)
    # The name says nothing of its direction, the callback does; nothing is ever allowed, so the dense network is best.
    module = train(tmp_path, [batches, held_out], make=make, stop=Stop(max_drop=0.9, rounds=1))
    records = read_records(tmp_path)
    assert {record.metric for record in records} == {"val_score"}
    assert next(iter(records[1].metrics)) == "val_score"
    # Those of Lightning stay where it put them, a folder a round, and load as they always do.
    for number in (0, 1):
        (path,) = (tmp_path / "trainer" / f"round-0{number}").rglob("best.ckpt")
        loaded = type(module).load_from_checkpoint(path)
        assert kept(loaded) == records[number].kept
        gossamer.check(loaded, masks=gossamer.load_masks(tmp_path, number))
    # A round loads into a module that was made as it was, with its masks.
    again = make_module()
    gossamer.load_round(tmp_path, -1, again)
    gossamer.check(again)
    again.eval()
    inputs = torch.randn(3, 8)
    assert torch.equal(again(inputs), module.eval()(inputs))
    with pytest.raises(ConfigurationError, match="better"):
        train(tmp_path / "unsaid", [batches, held_out], stop=Stop(max_drop=0.9, rounds=1, metric="val_score"))


@pytest.mark.parametrize("workers", [0, slow(2)])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_iterable_set_and_workers(workers: int, tmp_path: Path, examples: TensorDataset) -> None:
    """The first batch of an iterable is fetched when its iterator is made, before the random numbers are put back."""

    class Endless(IterableDataset[tuple[Tensor, ...]]):
        def __iter__(self) -> Any:
            for index in torch.randperm(64).tolist():
                yield examples[index]

    loaders = {
        "iterable": DataLoader(Endless(), batch_size=16),
        "workers": DataLoader(examples, batch_size=16, shuffle=True, num_workers=workers, persistent_workers=False),
    }
    loader = loaders["workers" if workers else "iterable"]
    train(tmp_path / "whole", [loader])
    with pytest.raises(Killed):
        train(tmp_path / "killed", [loader], killed_at=(1, 9))
    train(tmp_path / "killed", [loader])
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_averages_of_stochastic_weight_averaging(
    tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    averaging = callbacks_of("StochasticWeightAveraging", swa_lrs=0.05, swa_epoch_start=0.5)
    module = train(tmp_path / "run", [batches, held_out], make=trainers(callbacks=averaging, max_epochs=4))
    assert kept(module) == read_records(tmp_path / "run")[-1].kept
    with pytest.raises(ConfigurationError, match=r"sets the learning rates.*has StochasticWeightAveraging"):
        train(
            tmp_path / "other",
            [batches, held_out],
            make=trainers(callbacks=averaging, max_epochs=4),
            retraining=Retraining("fine-tune"),
        )


def test_a_loop_of_one_s_own_with_the_callback(
    tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    def run(folder: Path, killed_at: tuple[int, int] | None = None) -> Any:
        module = make_module()
        torch.manual_seed(1)
        for round in gossamer.rounds(module, folder=folder, stop=Stop(rounds=2), cut=gossamer.Cut(per_round=0.5)):
            last = callbacks_of("ModelCheckpoint", save_last=True)()
            more = [killer(killed_at[1])] if killed_at is not None and killed_at[0] == round.number else []
            make = trainers(enable_checkpointing=True, callbacks=[*more, RoundCallback(round), *last])
            trainer = make(folder / f"own-{round.number}")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`Trainer.fit.ckpt_path=.last..` is set, but there is no last")
                warnings.filterwarnings("ignore", "`.fit.ckpt_path=.last..` is set, but there is no last")
                warnings.filterwarnings("ignore", ".*there is no last checkpoint available")
                trainer.fit(module, batches, held_out, ckpt_path="last")
            round.record(**trainer.callback_metrics)
        return module

    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", (1, 5))
    assert len(run(tmp_path / "killed").rates) == 8 + 12
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_a_checkpoint_with_pruned_weights_that_are_not_zero(tmp_path: Path, batches: DataLoader[Any]) -> None:
    def spoil(self: Any, outputs: Any, batch: Any, index: int) -> None:
        with torch.no_grad():
            self.network[0].weight.add_(1.0)

    class Stored(import_module("lightning.pytorch.callbacks").Callback):  # type: ignore[misc]
        """As an averaging callback does, of an average that began before the cut."""

        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            checkpoint["state_dict"]["network.0.weight"] = torch.ones(16, 8)

    with pytest.raises(PrunedWeightError, match=r"network\.0\.weight is 1 at"):
        train(tmp_path / "1", [batches], make_module(on_train_batch_end=spoil))
    with pytest.raises(PrunedWeightError, match=r"a checkpoint was to be written in which pruned.*network\.0"):
        train(tmp_path / "2", [batches], make=trainers(callbacks=lambda: [Stored()]))


def test_arguments_that_only_pickle_reads(tmp_path: Path, batches: DataLoader[Any]) -> None:
    """Lightning stores the module's arguments in every checkpoint, and torch refuses to read such ones."""

    def made() -> Any:
        module = make_module()
        module.save_hyperparameters({"loss": functools.partial(functional.cross_entropy), "path": tmp_path})
        return module

    train(tmp_path / "whole", [batches], made())
    with pytest.raises(Killed):
        train(tmp_path / "killed", [batches], made(), killed_at=(1, 5))
    assert len(train(tmp_path / "killed", [batches], made()).rates) == 8 + 12
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_the_best_epoch_is_what_a_round_keeps(
    tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]
) -> None:
    checkpoints = callbacks_of("ModelCheckpoint", monitor="val_loss", mode="max", filename="worst")
    module = make_module()
    for round, trainer in rounds(
        module, trainers(callbacks=checkpoints, enable_checkpointing=True), folder=tmp_path, stop=Stop(rounds=1)
    ):
        trainer.fit(module, batches, held_out)
        (last,) = (float(trainer.callback_metrics["val_loss"]),)
        (best,) = trainer.validate(module, held_out, ckpt_path="best", verbose=False, weights_only=True)
        assert best["val_loss"] > last
        steps = round.steps
    record = read_records(tmp_path)[-1]
    assert (record.val, steps) == (best["val_loss"], 12)
    kept_weights = load_file(tmp_path / "round-01" / "model.safetensors")
    stored = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(kept_weights[name], stored[name]) for name in stored)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_other_processes_are_refused(tmp_path: Path) -> None:
    module = make_module()
    for strategy in ("ddp_spawn", "ddp_notebook", "ddp_fork"):
        with pytest.raises(ConfigurationError, match=r"trains a copy of the module in another process.*devices=1"):
            next(rounds(module, trainers(strategy=strategy), folder=tmp_path, stop=Stop(rounds=1)))
    with pytest.raises(ConfigurationError, match=r"the Trainer has 2 processes \(DDPStrategy\), .*torchrun"):
        next(rounds(module, trainers(strategy="ddp", devices=2), folder=tmp_path, stop=Stop(rounds=1)))


def test_what_remembers_the_round_before_is_refused(tmp_path: Path, batches: DataLoader[Any]) -> None:
    module = make_module()
    trainer = trainers()(tmp_path)
    with pytest.raises(ConfigurationError, match=r"the same Trainer in two rounds.*make it inside make_trainer"):
        train(tmp_path / "1", [batches], module, make=lambda folder: trainer)
    (stopping,) = callbacks_of("EarlyStopping", monitor="train_loss")()
    with pytest.raises(ConfigurationError, match="the same EarlyStopping in two rounds"):
        train(tmp_path / "2", [batches], make_module(), make=trainers(callbacks=[stopping]))
    with pytest.raises(ConfigurationError, match="a LearningRateFinder, which searches anew in every"):
        train(tmp_path / "4", [batches], make=trainers(callbacks=callbacks_of("LearningRateFinder")))
    pruning = callbacks_of("ModelPruning", pruning_fn="l1_unstructured")
    with pytest.raises(ConfigurationError, match="a ModelPruning, which prunes inside every training"):
        train(tmp_path / "5", [batches], make=trainers(callbacks=pruning))
    with pytest.raises(ConfigurationError, match="make_trainer returned a NoneType; expected a Trainer"):
        train(tmp_path / "3", [batches], make_module(), make=lambda folder: None)


def plateau(module: Any) -> Any:
    optimizer = sgd(module)
    return {"optimizer": optimizer, "lr_scheduler": lr_scheduler.ReduceLROnPlateau(optimizer), "monitor": "val_loss"}


def every_second(module: Any) -> Any:
    optimizer = sgd(module)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "frequency": 2}}


def test_schedulers_that_cannot_be_rewound(tmp_path: Path, batches: DataLoader[Any], held_out: DataLoader[Any]) -> None:
    train(tmp_path / "plateau", [batches, held_out], make_module(plateau))
    for name, configure, said in (
        ("1", plateau, "a ReduceLROnPlateau cannot be rewound"),
        ("2", every_second, "frequency=2; expected 1"),
        ("3", lambda module: None, "the training has 0 optimizers and 0 schedulers; expected one"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            train(
                tmp_path / name,
                [batches, held_out],
                make_module(configure),
                retraining=Retraining("weight-rewind", rewind_to_epoch=1),
            )
    with pytest.raises(ConfigurationError, match=r"loop over gossamer\.rounds yourself"):
        train(tmp_path / "4", [batches], retraining=Retraining(replicates=2))


# --- modules of others ------------------------------------------------------------------------------------------------


def adversaries(self: Any) -> Any:
    return [
        torch.optim.Adam(self.network[0].parameters(), lr=0.01),
        torch.optim.Adam(self.network[3].parameters(), lr=0.01),
    ], []


def by_hand(self: Any, batch: tuple[Tensor, Tensor], index: int) -> None:
    """Two optimizers in turn, as in Lightning's example of a GAN."""
    for optimizer in self.optimizers():
        self.toggle_optimizer(optimizer)
        loss = functional.cross_entropy(self.network(batch[0]), batch[1])
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
    self.rates.append(0.0)
    self.log("train_loss", loss)


def test_two_optimizers_that_are_stepped_by_hand(tmp_path: Path, batches: DataLoader[Any]) -> None:
    def make() -> Any:
        module = make_module(adversaries, training_step=by_hand)
        module.automatic_optimization = False
        return module

    train(tmp_path / "whole", [batches], make())
    with pytest.raises(Killed):
        # Lightning counts the steps of both.
        train(tmp_path / "killed", [batches], make(), killed_at=(1, 10))
    assert len(train(tmp_path / "killed", [batches], make()).rates) == 8 + 12
    assert same(tmp_path / "whole", tmp_path / "killed")
    with pytest.raises(ConfigurationError, match="the training has 2 optimizers and 0 schedulers, stepped by hand"):
        train(tmp_path / "other", [batches], make(), retraining=Retraining("fine-tune"))


def test_a_part_that_is_frozen_at_first(tmp_path: Path, batches: DataLoader[Any]) -> None:
    """By Lightning's own callback, which adds the part to the optimizer when it thaws, in every round anew."""

    class Thawing(import_module("lightning.pytorch.callbacks").BaseFinetuning):  # type: ignore[misc]
        def freeze_before_training(self, module: Any) -> None:
            self.freeze(module.network[0])

        def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(module.network[0], optimizer, lr=0.05)

    def unfrozen(module: Any) -> Any:
        return torch.optim.SGD([one for one in module.parameters() if one.requires_grad], lr=0.2, momentum=0.9)

    make = trainers(callbacks=lambda: [Thawing()])
    train(tmp_path / "whole", [batches], make_module(unfrozen), make)
    with pytest.raises(Killed):
        train(tmp_path / "killed", [batches], make_module(unfrozen), make, killed_at=(1, 9))
    train(tmp_path / "killed", [batches], make_module(unfrozen), make)
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_a_loop_of_fabric(tmp_path: Path, batches: DataLoader[Any], examples: TensorDataset) -> None:
    """Lightning's other half has no Trainer: the loop is one's own, and its model is wrapped."""
    fabric = import_module("lightning.fabric").Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    loader = fabric.setup_dataloaders(batches)
    for round in gossamer.rounds(network, folder=tmp_path, stop=Stop(rounds=2), cut=gossamer.Cut(per_round=0.5)):
        model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9))
        for _ in range(EPOCHS):
            for inputs, targets in loader:
                optimizer.zero_grad()
                fabric.backward(functional.cross_entropy(model(inputs), targets))
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
        assert kept(network) == round.kept
        round.record(loss=functional.cross_entropy(network(examples.tensors[0]), examples.tensors[1]))
    gossamer.check(network)
