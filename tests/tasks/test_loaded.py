"""Examples that are read while they are used: datasets, loaders and iterables of torch, with workers of their own."""

import functools
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

import gossamer
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.record import RoundRecord
from gossamer.loop.stop import Stop
from gossamer.prune.cut import Cut
from gossamer.rewind.strategies import Retraining
from gossamer.tasks import SGD, Batch, Data, DataError, Examples, Loaded, Metric, OneCycle, Recipe, Task, TaskError
from gossamer.tasks.training import StepReport

INPUTS = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS.abs()[:, :3].argmax(1)
GOOD = Examples(INPUTS, TARGETS)
WHOLE = TensorDataset(INPUTS, TARGETS)


class Jittered(Dataset[tuple[Tensor, Tensor]]):
    """Examples with noise out of all three global generators."""

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(6) + float(np.random.rand()) + random.random()
        return INPUTS[row] + 0.1 * noise, TARGETS[row]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """The same examples one after the other, each worker its share."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for row in self.order()[first::every]:
            yield INPUTS[row], TARGETS[row]

    def order(self) -> list[int]:
        return list(range(len(INPUTS)))


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def own_task(data: Data | Callable[[], Data], **changes: Any) -> Task:
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=OneCycle(peak=0.1), optimizer=SGD())
    of_recipe = {"batch_size", "loss", "augment"} & set(changes)
    recipe = replace(recipe, **{name: changes.pop(name) for name in of_recipe})
    made: Any = data if callable(data) else lambda: data
    return replace(Task("own", "", model, lambda folder: made(), recipe), **changes)


def trained(task: Task, folder: Path, *callbacks: Callback, **settings: Any) -> list[RoundRecord]:
    return compress(
        task, folder=folder, callbacks=callbacks, **{"stop": Stop(rounds=1), "training": Training(), **settings}
    )


def digests(records: list[RoundRecord]) -> list[str]:
    return [record.sha256["model.safetensors"] for record in records]


SOURCES: dict[str, Callable[[], Any]] = {
    "a dataset": lambda: WHOLE,
    "a dataset that augments": Jittered,
    "a dataset with workers": lambda: Loaded(Jittered(), workers=2),
    "a loader": lambda: DataLoader(Jittered(), batch_size=8, shuffle=True),
    "a loader with a generator": lambda: DataLoader(WHOLE, 8, shuffle=True, generator=torch.Generator().manual_seed(3)),
    "a loader that weighs": lambda: DataLoader(WHOLE, 8, sampler=WeightedRandomSampler([1.0] * 24 + [2.0] * 24, 40)),
    "a loader of batches": lambda: DataLoader(WHOLE, batch_sampler=BatchSampler(RandomSampler(WHOLE), 7, False)),
    "a stream": lambda: Loaded(Stream(), steps=6),
    "a loader of a stream": lambda: Loaded(DataLoader(Stream(), batch_size=8, num_workers=2), steps=6),
    "an iterable of batches": lambda: Loaded(DataLoader(WHOLE, batch_size=None, sampler=RandomSampler(WHOLE)), steps=6),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_gives_the_same_bits_again(source: str, tmp_path: Path) -> None:
    def data() -> Data:
        return Data(SOURCES[source](), GOOD, GOOD)

    whole = "iterable of batches" in source
    task = own_task(data, batch_size=None if "loader" in source or whole else 8)
    if whole:
        task = replace(task, data=lambda folder: replace(data(), batch=_as_a_batch_of_one), model=without_statistics)
    first, second = (digests(trained(task, tmp_path / name)) for name in ("first", "second"))
    assert first == second


def _as_a_batch_of_one(example: tuple[Tensor, Tensor]) -> Batch:
    return Batch((example[0][None],), targets=example[1][None])


def without_statistics() -> nn.Module:
    return nn.Linear(6, 3)


def test_a_dataset_is_trained_on_as_the_same_examples_in_memory(tmp_path: Path) -> None:
    """The order is the same; dropout, whose random numbers are drawn anew at each step, is left out."""
    results = [
        digests(trained(own_task(Data(split, split, split), model=without_statistics), tmp_path / str(number)))
        for number, split in enumerate((GOOD, WHOLE, Loaded(WHOLE, workers=1)))
    ]
    assert results[0] == results[1] == results[2]


def test_augmentation_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    results = [
        digests(trained(own_task(Data(Loaded(Jittered(), workers=workers), GOOD)), tmp_path / str(workers)))
        for workers in (0, 1, 2)
    ]
    assert results[0] == results[1] == results[2]


def test_examples_are_augmented_differently_in_every_epoch_and_round() -> None:
    loaded = Loaded(Jittered(), batch_size=8)

    def epoch(number: int) -> Tensor:
        draw = functools.partial(gossamer.tasks.derived_seed, number)
        return torch.cat([batch.positional[0] for batch in loaded.epoch(draw)])

    epochs = [epoch(number) for number in (0, 1, 0)]
    assert not torch.equal(epochs[0].sort(0).values, epochs[1].sort(0).values)
    assert torch.equal(epochs[0], epochs[2])


def test_an_epoch_is_gone_on_with_from_any_batch() -> None:
    loaded = Loaded(Jittered(), batch_size=8, workers=2)
    draw = gossamer.tasks.derived_seed
    batches = list(loaded.epoch(draw))
    rest = list(loaded.epoch(draw, first_step=4))
    assert len(batches) == 6
    assert all(torch.equal(a.positional[0], b.positional[0]) for a, b in zip(batches[4:], rest, strict=True))


class OwnGenerators(Dataset[tuple[Tensor, Tensor]]):
    """Noise out of generators of its own, of which a forked worker gets a copy."""

    def __init__(self) -> None:
        self.torch, self.python = torch.Generator().manual_seed(0), random.Random(0)
        self.numpy, self.older = np.random.default_rng(0), np.random.RandomState(0)
        self.transform = OwnTransform()

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        drawn = [self.python.random(), self.numpy.random(), self.older.rand(), self.transform.draw()]
        return torch.cat([torch.rand(1, generator=self.torch), torch.tensor(drawn)]), TARGETS[row]


class OwnTransform:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def draw(self) -> float:
        return float(self.generator.random())


@pytest.mark.parametrize("source", [Jittered, OwnGenerators])
def test_no_two_examples_of_two_epochs_have_the_same_noise(source: type[Any]) -> None:
    """As they have where workers begin with copies of one generator (pytorch issues 5059 and 15849)."""
    results = []
    for workers in (0, 2):
        loaded = Loaded(source(), batch_size=8, workers=workers)
        draws = [functools.partial(gossamer.tasks.derived_seed, number) for number in (0, 1)]
        noise = torch.cat([batch.positional[0] for draw in draws for batch in loaded.epoch(draw)])
        assert all(len(column.unique()) == 96 for column in noise.T)
        results.append(noise)
    assert torch.equal(results[0], results[1])


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_an_epoch_that_was_interrupted_goes_on_inside_it(
    kind: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.job.callbacks.LEAST_SECONDS", 0.0)
    source = Jittered() if kind == "dataset" else DataLoader(Jittered(), batch_size=8, shuffle=True)
    task = own_task(lambda: Data(source, GOOD, GOOD))
    uninterrupted = digests(trained(task, tmp_path / "whole"))
    seen: list[tuple[int, int, int]] = []
    begun = []

    class Stopping(Callback):
        def step_finished(self, round: gossamer.Round, report: StepReport) -> None:
            seen.append((round.number, report.epochs_done, report.steps_done))
            if seen[-1] == (1, 1, step) and not begun:
                begun.append(len(seen))
                raise Interrupted

    often = Training(checkpoint_seconds=0)
    with pytest.raises(Interrupted):
        trained(task, tmp_path / "again", Stopping(), training=often)
    records = trained(task, tmp_path / "again", Stopping(), training=often)
    assert seen[begun[0]] == (1, 1, step + 1)
    assert digests(records) == uninterrupted


def test_replicates_gradients_and_statistics_come_from_what_is_read(tmp_path: Path) -> None:
    task = own_task(Data(Loaded(Jittered(), workers=1), WHOLE, WHOLE))
    settings = {"cut": Cut(criterion="taylor"), "retraining": Retraining(replicates=2)}
    first, second = (digests(trained(task, tmp_path / name, **settings)) for name in ("first", "second"))
    assert first == second


def test_no_test_split(tmp_path: Path) -> None:
    records = trained(own_task(Data(WHOLE, WHOLE)), tmp_path)
    assert [record.test for record in records] == [None, None]
    assert [list(record.metrics) for record in records] == [["accuracy"], ["accuracy"]]


class Stateful(Sampler[int]):
    """An order out of a generator that nobody can reach."""

    def __init__(self) -> None:
        self._own = [np.random.default_rng(0)]

    def __iter__(self) -> Iterator[int]:
        return iter(self._own[0].permutation(len(INPUTS)).tolist())

    def __len__(self) -> int:
        return len(INPUTS)


class Shuffled(Stream):
    def __init__(self) -> None:
        self._own = [random.Random(0)]

    def order(self) -> list[int]:
        return self._own[0].sample(range(len(INPUTS)), len(INPUTS))


class Seeded(Shuffled):
    def set_epoch(self, epoch: int) -> None:
        self._own = [random.Random(epoch)]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (lambda: DataLoader(WHOLE, 8, sampler=Stateful()), "its sampler gives another order each time"),
        (lambda: Loaded(Shuffled(), steps=6), "it begins with other examples each time"),
        (
            lambda: Loaded(DataLoader(Stream(), 8, num_workers=1, persistent_workers=True), steps=6),
            "its workers live on from epoch to epoch",
        ),
    ],
)
def test_what_cannot_be_read_again_is_said_once(source: Callable[[], Any], why: str, tmp_path: Path) -> None:
    task = own_task(lambda: Data(source(), GOOD))
    with pytest.warns(gossamer.GossamerWarning, match=why) as told:
        trained(task, tmp_path)
    assert len(told) == 1


def test_a_stream_that_is_told_the_epoch_is_read_again_as_it_was(tmp_path: Path) -> None:
    def run(name: str) -> list[str]:
        return digests(trained(own_task(lambda: Data(Loaded(Seeded(), steps=6), GOOD)), tmp_path / name))

    assert run("first") == run("second")
    orders = []
    stream = Seeded()
    for number in (0, 0, 1):
        stream.set_epoch(number)
        orders.append([row[0].sum().item() for row in stream])
    assert orders[0] == orders[1] != orders[2]


class Failing(Dataset[tuple[Tensor, Tensor]]):
    """Fails at an example that training comes to and the trial before it does not."""

    def __init__(self, fail: Callable[[], Any]) -> None:
        self.fail = fail

    def __len__(self) -> int:
        return 48

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        if row == 40:
            self.fail()
        return INPUTS[row], TARGETS[row]


def a_hostile_file() -> None:
    raise DataError("cat.png: cannot be decoded")


def a_mistake() -> None:
    raise ValueError("no such\nfile")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("fail", "kind", "message"),
    [
        (a_hostile_file, DataError, "^own: the train split: cat.png: cannot be decoded$"),
        (a_mistake, TaskError, "^own: the train split: reading a batch failed: ValueError: no such file$"),
    ],
)
def test_an_example_that_cannot_be_read(
    fail: Callable[[], None], kind: type[Exception], message: str, workers: int, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message) as told:
        trained(own_task(Data(Loaded(Failing(fail), workers=workers), GOOD)), tmp_path)
    assert "\n" not in str(told.value)


class FailingSampler(Sampler[int]):
    def __len__(self) -> int:
        return len(WHOLE)

    def __iter__(self) -> Iterator[int]:
        yield 0
        raise ValueError("no weights")


class FailingStream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        raise ValueError("no file")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_fails_before_the_first_batch(workers: int, tmp_path: Path) -> None:
    loader = DataLoader(WHOLE, 8, sampler=FailingSampler(), num_workers=workers)
    for data, split in ((Data(loader, GOOD), "train"), (Data(GOOD, loader), "validation")):
        with pytest.raises(TaskError, match=f"^own: the {split} split: reading .* failed: ValueError: no weights$"):
            trained(own_task(data), tmp_path / split)
    stream = Data(Loaded(FailingStream(), workers=workers, steps=2), GOOD)
    with pytest.raises(TaskError, match=r"^own: the train split: reading a batch failed: ValueError: no file$"):
        trained(own_task(stream), tmp_path / "stream")


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield INPUTS[0], TARGETS[0]


class Empty(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(())


class WithoutLength(Dataset[tuple[Tensor, Tensor]]):
    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return INPUTS[row], TARGETS[row]


MISTAKES: dict[str, tuple[Callable[[], Task], str]] = {
    "nobody knows the length": (
        lambda: own_task(Data(Endless(), GOOD)),
        r"^own: the train split: nothing says how many batches an epoch has, .*Loaded\(source, steps=NUMBER\)",
    ),
    "a dataset without a length": (
        lambda: own_task(Data(WithoutLength(), GOOD)),
        "^own: the train split: nothing says how many batches",
    ),
    "an iterable that is too short": (
        lambda: own_task(Data(Loaded(Stream(), steps=9), GOOD)),
        "^own: the train split: an epoch ended after 6 batches; expected 9",
    ),
    "an empty iterable": (
        lambda: own_task(Data(GOOD, Empty())),
        "^own: the validation split: there is no batch; expected at least one",
    ),
    "an empty dataset": (
        lambda: own_task(Data(GOOD, TensorDataset(INPUTS[:0], TARGETS[:0]))),
        "^own: the validation split: there is no batch; expected at least one",
    ),
    "a stream without a batch size": (
        lambda: own_task(Data(Loaded(Stream(), steps=2), GOOD), batch_size=None),
        "^own: the train split: nothing says how large a batch is",
    ),
    "workers of what has its own": (
        lambda: own_task(lambda: Data(Loaded(DataLoader(WHOLE, 8), workers=2), GOOD)),
        "^Loaded: a DataLoader has workers, collate and batch size of its own",
    ),
    "more steps than there are": (
        lambda: own_task(Data(Loaded(WHOLE, steps=7), GOOD)),
        "^own: the train split: steps is 7, but there are 6 batches",
    ),
    "an iterator": (
        lambda: own_task(Data(iter([]), GOOD)),
        "^own: the train split is a list_iterator; expected .*Examples.*Dataset or DataLoader",
    ),
    "two batch sizes": (
        lambda: own_task(Data(DataLoader(WHOLE, batch_size=16), GOOD)),
        "^own: the recipe's batch_size is 8, but the DataLoader of the train split has 16; .* batch_size=None",
    ),
    "no batch size": (
        lambda: own_task(Data(WHOLE, GOOD), batch_size=None),
        "^own: the train split: nothing says how large a batch is",
    ),
    "no batch size in memory": (
        lambda: own_task(Data(GOOD, GOOD), batch_size=None),
        "^own: the recipe's batch_size is None, which only a DataLoader knows",
    ),
    "augmentation twice": (
        lambda: own_task(Data(WHOLE, GOOD), augment=lambda inputs, generator: inputs),
        "^own: the recipe augments, and so would a Dataset",
    ),
    "batches of one thing": (
        lambda: own_task(Data(TensorDataset(INPUTS), GOOD)),
        "^own: the train split: a batch is a list of 1; expected a tuple or list of inputs and targets",
    ),
    "batches without targets": (
        lambda: own_task(Data(DataLoader([{"x": row} for row in INPUTS], 8), GOOD)),
        "^own: the train split: a batch holds x, and no labels; say which .* targets=NAME",
    ),
    "a function that makes no batch": (
        lambda: own_task(Data(WHOLE, GOOD, batch=lambda loaded: loaded)),  # type: ignore[arg-type, return-value]
        "^own: the train split: batch made a list; expected a gossamer.tasks.Batch",
    ),
    "classes that are none": (
        lambda: own_task(Data(TensorDataset(INPUTS, TARGETS + 1), GOOD)),
        "^own: the targets of the train split are 1 to 3, but the network has 3 outputs",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_data_that_cannot_be_trained_on(mistake: str, tmp_path: Path) -> None:
    task, message = MISTAKES[mistake]
    with pytest.raises(TaskError, match=message) as told:
        trained(task(), tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("settings", [{"workers": -1}, {"steps": 0}, {"batch_size": 0}, {"workers": True}])
def test_numbers_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=f"Loaded: {next(iter(settings))} is .*; expected a whole number of at least"):
        Loaded(WHOLE, **settings)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(7, 4), nn.Embedding(9, 4)
        self.head = nn.Linear(8, 1)

    def forward(self, users: Tensor, items: Tensor) -> Any:
        return {"score": self.head(torch.cat([self.users(users), self.items(items)], 1)).squeeze(1), "none": None}


USERS, ITEMS = torch.arange(48) % 7, torch.arange(48) % 9
RATINGS = (USERS - ITEMS).float()


def squared(outputs: Any, targets: Tensor) -> Tensor:
    return (outputs["score"] - targets).square()


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_several_inputs_and_outputs_by_name(as_dictionary: bool, tmp_path: Path) -> None:
    rows = [{"users": u, "items": i, "target": t} for u, i, t in zip(USERS, ITEMS, RATINGS, strict=True)]
    dataset: Any = DataLoader(rows, 8) if as_dictionary else TensorDataset(USERS, ITEMS, RATINGS)  # type: ignore[arg-type]
    metric = Metric("squared_error", "lower", squared)
    task = own_task(Data(dataset, dataset), model=TwoInputs, loss=lambda o, t: squared(o, t).mean(), metric=metric)
    with pytest.warns(gossamer.GossamerWarning, match="most of TwoInputs is outside the scope"):
        first, second = trained(task, tmp_path)
    assert first.val is not None
    assert 0 < first.val < 30
    gossamer.load_round(tmp_path, 1, TwoInputs())
    assert second.kept < first.kept


@dataclass
class Output:
    """As libraries have them."""

    logits: Tensor
    loss: Tensor | None = None


class OwnLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.head(x)
        return Output(logits, None if labels is None else F.cross_entropy(logits, labels))


def test_a_network_that_computes_its_own_loss_trains_as_one_that_does_not(tmp_path: Path) -> None:
    rows: Any = [{"x": x, "labels": y} for x, y in zip(INPUTS, TARGETS, strict=True)]
    loader = DataLoader(rows, batch_size=8, shuffle=True)
    metric = Metric(score=lambda outputs, targets: (outputs.logits.argmax(1) == targets).float())
    own, plain = (
        digests(trained(own_task(Data(loader, loader), model=OwnLoss, metric=metric, loss=loss), tmp_path / name))
        for name, loss in (
            ("own", gossamer.tasks.returned_loss),
            ("plain", lambda outputs, targets: F.cross_entropy(outputs.logits, targets)),
        )
    )
    assert own == plain


def test_workers_are_not_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(own_task(Data(Loaded(Jittered(), workers=1), Loaded(WHOLE, workers=1))), tmp_path)
