"""Rounds around the loops of other people's trainers, with the real packages: Lightning, accelerate, transformers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import gossamer
from gossamer.errors import ConfigurationError

ROUNDS = 4
"""Cuts, after the dense round: five rounds in all."""


class Classifier(nn.Module):
    """Takes and returns what transformers' Trainer expects of a model, and works as any other module."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Any:
        outputs = self.layers(inputs)
        return outputs if labels is None else {"loss": functional.cross_entropy(outputs, labels), "logits": outputs}


@pytest.fixture
def examples() -> TensorDataset:
    inputs = torch.randn(64, 8)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


@pytest.fixture
def batches(examples: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(examples, batch_size=16, shuffle=True)


def accuracy(model: nn.Module, examples: TensorDataset) -> float:
    inputs, labels = examples.tensors
    with torch.no_grad():
        return (model(inputs).argmax(1) == labels).float().mean().item()


def kept(model: nn.Module) -> int:
    return sum(int((parameter != 0).sum()) for name, parameter in model.named_parameters() if "weight" in name)


def run(model: nn.Module, folder: Path, train: Callable[[], None], examples: TensorDataset) -> list[float]:
    """Five rounds, the zeros of each counted, and the last one loaded from the folder."""
    values = []
    for round in gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=ROUNDS)):
        train()
        assert kept(model) == round.kept
        values.append(round.record(accuracy=accuracy(model, examples)).val)
    weights = load_file(folder / f"round-{ROUNDS:02d}" / "model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert max(value for value in values[1:] if value is not None) > 0.6
    return values


# --- Lightning --------------------------------------------------------------------------------------------------------

LIGHTNING = [
    # Of its data loader, on machines with several processors.
    "ignore:The '.*dataloader' does not have many workers",
    # Of a module that torch moved, which Lightning still asks for.
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated",
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    # Of a logger that is not installed, though none is asked for.
    "ignore:.*tensorboardX.* has been removed as a dependency",
]


def lightning_warnings(test: Any) -> Any:
    for line in LIGHTNING:
        test = pytest.mark.filterwarnings(line)(test)
    return test


def module() -> Any:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = Classifier()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.network(inputs)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)]

    return Module()


def trainer(folder: Path, **arguments: Any) -> Any:
    lightning = pytest.importorskip("lightning")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        max_epochs=3, accelerator="cpu", default_root_dir=folder, **{"enable_checkpointing": False} | quiet | arguments
    )


@lightning_warnings
def test_a_lightning_trainer_made_in_every_round(
    tmp_path: Path, examples: TensorDataset, batches: DataLoader[tuple[Tensor, ...]]
) -> None:
    network, alive = module(), []

    def train() -> None:
        alive.append(trainer(tmp_path))
        alive[-1].fit(network, batches)

    run(network, tmp_path / "run", train, examples)


@lightning_warnings
def test_a_lightning_trainer_made_once(
    tmp_path: Path, examples: TensorDataset, batches: DataLoader[tuple[Tensor, ...]]
) -> None:
    """Its `fit` does nothing from the second time on, unless its epochs are counted anew."""
    network, once = module(), trainer(tmp_path)
    with pytest.raises(ConfigurationError, match=r"weights of round 1 are, bit for bit.*Lightning Trainer"):
        run(network, tmp_path / "idle", lambda: once.fit(network, batches), examples)

    def train() -> None:
        once.fit_loop.epoch_progress.reset()
        once.fit(network, batches)

    run(network, tmp_path / "run", train, examples)


@lightning_warnings
def test_lightning_s_averages_and_checkpoints(
    tmp_path: Path, examples: TensorDataset, batches: DataLoader[tuple[Tensor, ...]]
) -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    network = module()

    def train() -> None:
        checkpoint = callbacks.ModelCheckpoint(
            dirpath=tmp_path / f"checkpoints-{len(list(tmp_path.glob('checkpoints-*')))}"
        )
        average = callbacks.EMAWeightAveraging(decay=0.8)
        trainer(tmp_path, enable_checkpointing=True, callbacks=[checkpoint, average]).fit(network, batches)

    run(network, tmp_path / "run", train, examples)


# --- accelerate -------------------------------------------------------------------------------------------------------


@pytest.fixture
def accelerator() -> Iterator[Any]:
    accelerate = pytest.importorskip("accelerate")
    yield accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    # Its state is the process's.
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


@pytest.mark.parametrize("prepared", ["once", "in every round"])
def test_accelerate_with_gradients_over_two_batches(
    prepared: str, tmp_path: Path, accelerator: Any, examples: TensorDataset, batches: DataLoader[tuple[Tensor, ...]]
) -> None:
    model = Classifier()

    def prepare() -> tuple[Any, ...]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.1, 8)
        found: tuple[Any, ...] = accelerator.prepare(model, optimizer, schedule, batches)
        return found

    whole_run = prepare() if prepared == "once" else None

    def train() -> None:
        network, optimizer, schedule, loader = whole_run or prepare()
        for _ in range(4):
            for inputs, labels in loader:
                with accelerator.accumulate(network):
                    loss = functional.cross_entropy(network(inputs), labels)
                    accelerator.backward(loss)
                    accelerator.clip_grad_norm_(network.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()

    run(model, tmp_path, train, examples)


# --- transformers -----------------------------------------------------------------------------------------------------


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, examples: TensorDataset) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        inputs, labels = self.examples[index]
        return {"inputs": inputs, "labels": labels}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")  # Of torch, without a GPU.
@pytest.mark.parametrize("makes_its_own", [False, True], ids=["the model", "model_init"])
def test_transformers_trainer(makes_its_own: bool, tmp_path: Path, examples: TensorDataset) -> None:
    transformers = pytest.importorskip("transformers")
    model, alive = Classifier(), []
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        num_train_epochs=3,
        per_device_train_batch_size=16,
        learning_rate=0.02,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )

    def train() -> None:
        which = {"model_init": Classifier} if makes_its_own else {"model": model}
        alive.append(transformers.Trainer(args=arguments, train_dataset=Rows(examples), **which))
        alive[-1].train()

    if makes_its_own:
        with pytest.raises(ConfigurationError, match=r"weights of round 0 are, bit for bit.*model_init"):
            run(model, tmp_path / "run", train, examples)
    else:
        run(model, tmp_path / "run", train, examples)
