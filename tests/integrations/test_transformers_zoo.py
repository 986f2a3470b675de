"""Networks, Trainers and data of the kinds that the documentation of transformers shows: killed twice, and loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gossamer
from gossamer.loop.records import read_ledger

transformers = pytest.importorskip("transformers")

from small_trainer import WIDTH, Killed, Killer, Rows, arguments, bert, drawn, gpt2  # noqa: E402

from gossamer.integrations.transformers import rounds  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),  # Of torch, without a GPU.
    pytest.mark.filterwarnings("ignore:most of .* is outside the scope:gossamer.GossamerWarning"),
]

Make = Callable[..., tuple[Callable[[], Any], str]]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def tokens(rows: int = 32, width: int = WIDTH) -> Any:
    return drawn(rows * width).view(rows, width)


def tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = {str(number): number for number in range(66)} | {"[MASK]": 66}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="1"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="0", unk_token="1", mask_token="[MASK]", cls_token="2", sep_token="3"
    )


def language(model: Any, of: Any = None, **options: Any) -> tuple[Callable[[], Any], str]:
    def make_trainer() -> Any:
        data = {"train_dataset": Rows(drawn()), "eval_dataset": Rows(drawn(128))}
        return (of or transformers.Trainer)(model, arguments(**options), **data)

    return make_trainer, "AutoModelForCausalLM"


def vit(**options: Any) -> tuple[Callable[[], Any], str]:
    """Version 5 writes its weights under other names than the model has."""
    model = transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **SMALL)
    )
    rows = [{"pixel_values": image, "labels": index % 3} for index, image in enumerate(torch.randn(32, 3, 8, 8))]
    return (
        lambda: transformers.Trainer(model, arguments(**options), train_dataset=rows, eval_dataset=rows[:8]),
        "AutoModelForImageClassification",
    )


def mixtral(**options: Any) -> tuple[Callable[[], Any], str]:
    """Version 5 stacks its experts, and writes them one by one."""
    experts = {"num_local_experts": 4, "num_key_value_heads": 2, "output_router_logits": True}
    return language(
        transformers.MixtralForCausalLM(transformers.MixtralConfig(vocab_size=67, **SMALL | experts)), **options
    )


def whisper(**options: Any) -> tuple[Callable[[], Any], str]:
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             {"layers": 1, "attention_heads": 2, "ffn_dim": 16}.items()}  # fmt: skip
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    configuration = transformers.WhisperConfig(
        vocab_size=70, d_model=16, num_mel_bins=8, max_source_positions=16, **sides, **special
    )
    model = transformers.WhisperForConditionalGeneration(configuration)
    sounds = torch.randn(32, 8, 32)
    rows = [{"input_features": sound, "labels": row} for sound, row in zip(sounds, tokens(width=6), strict=True)]
    return (
        lambda: transformers.Trainer(model, arguments(**options), train_dataset=rows, eval_dataset=rows[:8]),
        "AutoModelForSpeechSeq2Seq",
    )


def translation(**options: Any) -> tuple[Callable[[], Any], str]:
    """Seq2SeqTrainer, whose metrics are of what the model generates."""
    small = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=67, **small))
    rows = [{"input_ids": row.tolist(), "labels": row[:8].tolist()} for row in tokens()]
    words = tokenizer()

    def make_trainer() -> Any:
        own = arguments(**options).to_dict()
        taken = ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "save_steps", "use_cpu")
        asked = transformers.Seq2SeqTrainingArguments(
            "of-no-round",
            predict_with_generate=True,
            generation_max_length=6,
            report_to=[],
            disable_tqdm=True,
            **{name: own[name] for name in taken},
        )
        return transformers.Seq2SeqTrainer(
            model,
            asked,
            train_dataset=rows,
            eval_dataset=rows[:8],
            data_collator=transformers.DataCollatorForSeq2Seq(words, model=model),
            processing_class=words,
            compute_metrics=lambda given: {"exact": float((given.predictions[:, 1] == given.label_ids[:, 0]).mean())},
        )

    return make_trainer, "AutoModelForSeq2SeqLM"


def classification(**options: Any) -> tuple[Callable[[], Any], str]:
    """As run_glue does it: sentences of several lengths, the best of all epochs by its accuracy."""
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=67, max_position_embeddings=WIDTH, num_labels=2, **SMALL)
    )
    rows = [{"input_ids": row[: 4 + i % 9].tolist(), "label": int(row[0] > 30)} for i, row in enumerate(tokens())]
    words = tokenizer()
    best = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    return (
        lambda: transformers.Trainer(
            model,
            arguments(**best | {"metric_for_best_model": "accuracy", "weight_decay": 0.01} | options),
            train_dataset=rows,
            eval_dataset=rows[:8],
            data_collator=transformers.DataCollatorWithPadding(words),
            processing_class=words,
            compute_metrics=lambda given: {"accuracy": float((given.predictions.argmax(1) == given.label_ids).mean())},
        ),
        "AutoModelForSequenceClassification",
    )


def hidden_words(**options: Any) -> tuple[Callable[[], Any], str]:
    """Other words are hidden in every epoch, by random numbers of the process: exact from the end of an epoch."""
    model, words = bert(), tokenizer()
    rows = [{"input_ids": row.tolist()} for row in tokens()]
    return (
        lambda: transformers.Trainer(
            model,
            arguments(save_strategy="epoch", num_train_epochs=3, **options),
            train_dataset=rows,
            eval_dataset=rows[:8],
            data_collator=transformers.DataCollatorForLanguageModeling(words, mlm_probability=0.3),
            processing_class=words,
        ),
        "AutoModelForMaskedLM",
    )


def own_optimizer_and_loader(**options: Any) -> tuple[Callable[[], Any], str]:
    """A subclass with rates of its own for the embeddings, and a loader of its own."""
    model = gpt2()

    class Own(transformers.Trainer):  # type: ignore[misc]
        def create_optimizer(self, *arguments: Any) -> Any:
            if self.optimizer is None:
                embeddings = [parameter for name, parameter in model.named_parameters() if "wte" in name]
                others = [parameter for name, parameter in model.named_parameters() if "wte" not in name]
                groups = [{"params": embeddings, "lr": 1e-3}, {"params": others, "lr": 5e-3}]
                self.optimizer = torch.optim.SGD(groups, momentum=0.9)
            return self.optimizer

        def get_train_dataloader(self) -> Any:
            loader = torch.utils.data.DataLoader(
                self.train_dataset, batch_size=8, shuffle=True, drop_last=True, collate_fn=self.data_collator
            )
            return self.accelerator.prepare(loader)

    return language(model, of=Own, **options)


def smaller_batches(**options: Any) -> tuple[Callable[[], Any], str]:
    """Memory is short, and the Trainer halves its batches."""

    class Short(transformers.Trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *arguments: Any) -> Any:
            if len(inputs["input_ids"]) > 4:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return super().training_step(model, inputs, *arguments)

    return language(gpt2(), of=Short, auto_find_batch_size=True, **options)


class Endless(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        rows = Rows(drawn())
        return (rows[index] for index in range(len(rows)))


def iterable(**options: Any) -> tuple[Callable[[], Any], str]:
    """Two sets to evaluate on, and no end to what is trained on."""
    model = gpt2()
    tests = {"a": Rows(drawn(128)), "b": Rows(drawn(128, seed=3))}
    return (
        lambda: transformers.Trainer(
            model, arguments(max_steps=7, **options), train_dataset=Endless(), eval_dataset=tests
        ),
        "AutoModelForCausalLM",
    )


def schedule(**options: Any) -> tuple[Callable[[], Any], str]:
    stable = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 3}}
    return language(gpt2(), warmup_steps=2, **stable, **options)


def run(make: Make, folder: Path, killed_at: tuple[int, int] | None = None, **of_rounds: Any) -> tuple[Any, str]:
    torch.manual_seed(0)
    make_trainer, kind = make()
    state = None
    for round, trainer in rounds(make_trainer, folder=folder, stop=gossamer.Stop(rounds=1), **of_rounds):
        trainer.remove_callback(transformers.PrinterCallback)
        if killed_at is not None and killed_at[0] == round.number:
            trainer.add_callback(Killer(killed_at[1]))
        trainer.train()
        state = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        round.record(**trainer.evaluate())
    return state, kind


KINDS = [
    *(vit, mixtral, whisper, translation, classification, hidden_words, own_optimizer_and_loader, smaller_batches),
    *(iterable, schedule),
]


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=[] if make is mixtral else [pytest.mark.slow], id=make.__name__) for make in KINDS],
)
@pytest.mark.parametrize(
    "retraining",
    [
        gossamer.Retraining(),
        pytest.param(gossamer.Retraining("weight-rewind", rewind_to_step=2), marks=pytest.mark.slow),
    ],
    ids=["lr-rewind", "weight-rewind"],
)
def test_killed_twice_and_loaded(make: Make, retraining: gossamer.Retraining, tmp_path: Path) -> None:
    state, kind = run(make, tmp_path / "whole", retraining=retraining)
    for killed_at in [(0, 5), (1, 5)]:
        with pytest.raises(Killed):
            run(make, tmp_path / "killed", killed_at, retraining=retraining)
    run(make, tmp_path / "killed", retraining=retraining)
    for number in range(2):
        found, expected = (
            load_file(tmp_path / name / f"round-0{number}" / "model.safetensors") for name in ("killed", "whole")
        )
        assert not [name for name in expected if not torch.equal(found[name], expected[name])]
    steps = [[cost.steps for cost in read_ledger(tmp_path / name)] for name in ("killed", "whole")]
    assert steps[0] == steps[1]
    loaded = getattr(transformers, kind).from_pretrained(tmp_path / "killed" / "round-01").state_dict()
    assert loaded.keys() == state.keys()
    assert not [name for name in state if not torch.equal(loaded[name], state[name])]


@pytest.mark.slow
@pytest.mark.parametrize("make", [vit, mixtral])
def test_the_best_weights_come_back_whatever_their_names_in_the_file(make: Make, tmp_path: Path) -> None:
    """The best by a measure that makes an early checkpoint the best one."""
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "greater_is_better": make is mixtral}
    make_trainer, _ = make(load_best_model_at_end=True, metric_for_best_model="loss", **options)
    after: dict[int, Any] = {}
    bests = []

    class Seen(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **named: Any) -> None:
            after[state.global_step] = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    for _, trainer in rounds(make_trainer, folder=tmp_path, stop=gossamer.Stop(rounds=1)):
        trainer.add_callback(Seen)
        trainer.train()
        bests.append(trainer.state.best_global_step)
        found = dict(trainer.model.named_parameters())
        assert not [name for name, weight in after[bests[-1]].items() if not torch.equal(found[name], weight)]
    assert min(bests) < 8
