"""Small language models from their configuration classes, and Trainers of transformers for them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import gossamer
from gossamer.integrations.transformers import rounds

WIDTH = 16
"""Tokens of a row."""
VOCABULARY = 67
"""Letters of Shakespeare's, one that stands for a hidden one, and one for the end."""
HIDDEN = 65


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Rows of letters, to be continued; or with every fourth letter hidden, to be found."""

    def __init__(self, letters: Tensor, hidden: bool = False) -> None:
        self.labels = letters[: len(letters) // WIDTH * WIDTH].view(-1, WIDTH)
        self.inputs = self.labels.clone()
        if hidden:
            self.labels = torch.where(torch.arange(WIDTH) % 4 == 3, self.labels, -100)
            self.inputs[:, 3::4] = HIDDEN

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.inputs[index], "labels": self.labels[index]}


def drawn(count: int = 32 * WIDTH, seed: int = 0) -> Tensor:
    """Letters with an order to be learnt."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.arange(count) * 3 + torch.randint(2, (count,), generator=generator)) % 60


def gpt2(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    small = {"n_positions": WIDTH, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 66, "eos_token_id": 66}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, **small | options))


def bert(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    configuration = transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=WIDTH, **small | options)
    return transformers.BertForMaskedLM(configuration)


def mixtral(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 1, "num_local_experts": 2}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(vocab_size=VOCABULARY, **small, **experts))


def arguments(**options: Any) -> Any:
    """8 steps in 2 epochs, saved after every third, on the CPU and without a word."""
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no"}
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "save_steps": 3}
    return transformers.TrainingArguments(**{"output_dir": "of-no-round"} | quiet | training | options)


class Killed(Exception):
    """As if the process were gone: nothing of the library sees it coming."""


class Killer(transformers.TrainerCallback):  # type: ignore[misc]
    """Kills after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def run(
    folder: Path,
    model: nn.Module | None = None,
    killed_at: tuple[int, int] | None = None,
    trainer: dict[str, Any] | None = None,
    of_rounds: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Two rounds, or as `of_rounds` says; returns the model.

    Args:
        killed_at: a round and the step after which it is killed.
        trainer: further arguments of the Trainer; functions without arguments make one of each Trainer's own.
        options: further training arguments.
    """
    model = model or gpt2()
    train, test = Rows(drawn()), Rows(drawn(8 * WIDTH, seed=1))

    def make_trainer() -> Any:
        own = {name: value() if callable(value) else value for name, value in (trainer or {}).items()}
        callbacks = own.pop("callbacks", [])
        made = transformers.Trainer(
            model=model, args=arguments(**options), train_dataset=train, eval_dataset=test, callbacks=callbacks, **own
        )
        made.remove_callback(transformers.PrinterCallback)
        return made

    for round, made in rounds(make_trainer, folder=folder, **{"stop": gossamer.Stop(rounds=1)} | (of_rounds or {})):
        if killed_at is not None and killed_at[0] == round.number:
            made.add_callback(Killer(killed_at[1]))
        made.train()
        round.record(**made.evaluate())
    return model
