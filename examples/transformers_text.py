"""A GPT-2 of your size, trained on a text file by the Trainer of transformers, and pruned by learning-rate rewinding.

    python examples/transformers_text.py my.txt runs/text

Stop it at any moment and start it again: it goes on inside the round, from the Trainer's last checkpoint.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gossamer
from gossamer.integrations.transformers import rounds

LENGTH = 64
"""Letters of a row."""


def rows(letters: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The text in rows, each to be continued letter by letter."""
    return [{"input_ids": row, "labels": row} for row in letters[: len(letters) // LENGTH * LENGTH].view(-1, LENGTH)]


def main(text: Path, folder: Path, **options: Any) -> GPT2LMHeadModel:
    """Trains and prunes; options are further training arguments."""
    # Its UTF-8 bytes are the vocabulary: no tokenizer has to be downloaded.
    letters = torch.tensor(list(text.read_bytes()))
    split = len(letters) * 9 // 10
    training, validation = rows(letters[:split]), rows(letters[split:])
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=256, n_positions=LENGTH, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    )

    def make_trainer() -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            save_steps=50,
            report_to=[],
            **{"num_train_epochs": 3, "use_cpu": not torch.cuda.is_available()} | options,
        )
        return Trainer(model=model, args=arguments, train_dataset=training, eval_dataset=validation)

    for round, trainer in rounds(make_trainer, folder=folder, target_sparsity=0.8):
        trainer.train()
        record = round.record(**trainer.evaluate())
        print(f"round {record.round}: {record.compression:.1f}x, loss {record.val:.3f}")
    gossamer.check(model)
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
