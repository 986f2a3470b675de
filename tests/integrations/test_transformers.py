"""Rounds around the real Trainer of transformers: killed in mid-round, resumed, and compared with what went through."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gossamer
from gossamer import Cut, Retraining, Stop
from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.loop.records import read_ledger, read_records

transformers = pytest.importorskip("transformers")

from small_trainer import Killed, Killer, Rows, arguments, bert, drawn, gpt2, mixtral, run  # noqa: E402

from gossamer.integrations.transformers import rounds  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),  # Of torch, without a GPU.
]


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "greater_is_better": True}


def weights(folder: Path, number: int) -> dict[str, Any]:
    return load_file(folder / f"round-{number:02d}" / "model.safetensors")


def assert_same(found: Path, expected: Path, last: int = 1) -> None:
    """The weights of every round to the bit, and the steps that they took."""
    for number in range(last + 1):
        tensors, others = weights(found, number), weights(expected, number)
        assert tensors.keys() == others.keys()
        assert not [name for name in tensors if not torch.equal(tensors[name], others[name])]
    steps = [[cost.steps for cost in read_ledger(folder)] for folder in (found, expected)]
    assert steps[0] == steps[1]


def steps_of(folder: Path) -> list[int]:
    return [cost.steps for cost in read_ledger(folder)]


# --- killed, and gone on --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    run(folder)
    return folder


@pytest.mark.parametrize(
    "killed_at",
    [(0, 5), (1, 6), *(pytest.param(moment, marks=pytest.mark.slow) for moment in [(0, 1), (0, 8), (1, 4)])],
)
def test_a_killed_run_goes_on_inside_its_round(killed_at: tuple[int, int], undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, killed_at=killed_at)
    saved = killed_at[1] // 3 * 3
    # Whatever the model was at first: the checkpoint has its weights.
    model = gpt2(seed=7 if saved or killed_at[0] else 0)
    run(tmp_path, model)
    assert_same(tmp_path, undisturbed)
    assert steps_of(tmp_path) == [8, 8]
    last = weights(tmp_path, 1)
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items() if name in last)


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again(undisturbed: Path, tmp_path: Path) -> None:
    for killed_at in [(0, 4), (0, 7), (1, 2), (1, 3), (1, 5), (1, 8)]:
        with pytest.raises(Killed):
            run(tmp_path, killed_at=killed_at)
    run(tmp_path)
    assert_same(tmp_path, undisturbed)


def remove_optimizer(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").unlink()


def cut_off(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def before_the_mark(checkpoint: Path) -> None:
    (checkpoint / "gossamer.safetensors").unlink()


def in_the_mark(checkpoint: Path) -> None:
    mark = checkpoint / "gossamer.safetensors"
    mark.write_bytes(mark.read_bytes()[:-10])


def at_its_beginning(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


@pytest.mark.parametrize(
    ("damage", "last"),
    [
        (before_the_mark, 6),
        (cut_off, 3),
        *(
            pytest.param(damage, 6, marks=pytest.mark.slow)
            for damage in (remove_optimizer, cut_off, in_the_mark, at_its_beginning)
        ),
    ],
)
def test_half_of_a_checkpoint_is_passed_over(
    damage: Callable[[Path], None], last: int, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, killed_at=(1, last + 1))
    damage(tmp_path / "trainer" / "round-01" / f"checkpoint-{last}")
    run(tmp_path)
    assert_same(tmp_path, undisturbed)


def test_a_checkpoint_of_another_cut_is_passed_over(undisturbed: Path, tmp_path: Path) -> None:
    """Rounds that are removed, to be repeated, take other weights into the round that was going on."""
    with pytest.raises(Killed):
        run(tmp_path / "other", gpt2(seed=5), killed_at=(1, 4))
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "round-01")
    shutil.copytree(tmp_path / "other" / "trainer", tmp_path / "run" / "trainer")
    run(tmp_path / "run")
    assert_same(tmp_path / "run", undisturbed)


def test_a_run_whose_folder_was_moved_finds_its_best_checkpoint(tmp_path: Path) -> None:
    run(tmp_path / "whole", **BEST)
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_at=(1, 7), **BEST)
    state = json.loads((tmp_path / "killed/trainer/round-01/checkpoint-6/trainer_state.json").read_text())
    assert state["best_global_step"] == 3
    (tmp_path / "killed").rename(tmp_path / "moved")
    run(tmp_path / "moved", **BEST)
    assert_same(tmp_path / "moved", tmp_path / "whole")


@pytest.mark.parametrize("options", [{}, BEST], ids=["last", "best"])
def test_names_that_files_of_transformers_have_otherwise(options: dict[str, Any], tmp_path: Path) -> None:
    """Version 5 has the experts of a mixture in one tensor, and writes them apart as version 4 had them, which its own
    Trainer does not read again: it would go on with the weights that the model happens to have."""
    whole = run(tmp_path / "whole", mixtral(), **options)
    with pytest.raises(Killed):
        run(tmp_path / "killed", mixtral(), killed_at=(1, 7), **options)
    model = run(tmp_path / "killed", mixtral(seed=7), **options)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    found = model.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.state_dict().items())


def test_a_checkpoint_that_the_trainer_does_not_put_back_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, killed_at=(1, 4))
    model = gpt2()

    class Forgetful(transformers.Trainer):  # type: ignore[name-defined,misc]
        def _load_from_checkpoint(self, *others: Any, **named: Any) -> None:
            pass

    def make_trainer() -> Any:
        return Forgetful(model, arguments(), train_dataset=Rows(drawn()), eval_dataset=Rows(drawn()))

    _, trainer = next(iter(rounds(make_trainer, folder=tmp_path, stop=Stop(rounds=1))))
    with pytest.raises(CheckpointError, match=r"checkpoint-3: .* did not put back .*resume_from_checkpoint=False"):
        trainer.train()


@pytest.mark.parametrize("max_steps", [8, 7], ids=["at the end of an epoch", "inside an epoch"])
def test_a_training_that_had_ended_is_not_trained_further(max_steps: int, tmp_path: Path) -> None:
    """The Trainer by itself takes a step more when it goes on from its last checkpoint, inside an epoch."""
    run(tmp_path / "whole", max_steps=max_steps)
    model = gpt2()

    def make_trainer() -> Any:
        return transformers.Trainer(model, arguments(max_steps=max_steps), train_dataset=Rows(drawn()))

    for round, trainer in rounds(make_trainer, folder=tmp_path / "killed", stop=Stop(rounds=1)):
        trainer.train()
        if round.number == 1:
            break
    run(tmp_path / "killed", max_steps=max_steps)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    assert steps_of(tmp_path / "killed") == [max_steps, max_steps]


def test_a_training_may_be_begun_anew(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, killed_at=(0, 4))
    model = gpt2()
    for round, trainer in rounds(lambda: one(model), folder=tmp_path, stop=Stop(rounds=1)):
        trainer.train(resume_from_checkpoint=False)
        assert round.steps == 8
    assert_same(tmp_path, undisturbed)


def test_a_second_training_in_a_round_goes_on_with_the_weights(tmp_path: Path) -> None:
    model = gpt2()
    for round, trainer in rounds(lambda: one(model), folder=tmp_path, stop=Stop(rounds=1)):
        trainer.train()
        between = model.lm_head.weight.detach().clone()
        trainer.train()
        assert not torch.equal(model.lm_head.weight, between)
        assert round.steps == 16
    gossamer.check(model)


# --- what the Trainer can be asked for ------------------------------------------------------------------------------

NAMES = transformers.TrainingArguments.__dataclass_fields__
CHECKPOINTING = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in NAMES)
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "gradient accumulation": {"gradient_accumulation_steps": 3, "save_steps": 1},
    "bf16": {"bf16": True},
    "gradient checkpointing": {CHECKPOINTING: True},
    "max_steps": {"max_steps": 7},
    "epochs": {"save_strategy": "epoch", "num_train_epochs": 3},
    "a part of an epoch": {"num_train_epochs": 1.5},
    "save_total_limit": {"save_total_limit": 1, "save_steps": 1},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "noise on embeddings": {"neftune_noise_alpha": 5.0},
    "adafactor": {"optim": "adafactor"},
    "fused": {"optim": "adamw_torch_fused"},
    "sgd": {"optim": "sgd", "learning_rate": 1.0, "weight_decay": 0.1},
    # The loss falls, so that the best by this measure is an early one.
    "the best": {"load_best_model_at_end": True, "greater_is_better": True} | EVERY_STEP,
    "no checkpoints": {"save_strategy": "no"},
    "weights only": {"save_only_model": True},
    "cosine": {"lr_scheduler_type": "cosine", "warmup_steps": 2},
    "reduced on a plateau": {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
    "workers": {"dataloader_num_workers": 1},
    "dropout": {},
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
}


QUICK = ("gradient accumulation", "bf16", "the best", "no checkpoints")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
# Of torch's compiler, in a training that gossamer has nothing to do with.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    "options",
    [pytest.param(OPTIONS[name], marks=[] if name in QUICK else [pytest.mark.slow], id=name) for name in OPTIONS],
)
def test_options_of_the_trainer(options: dict[str, Any], tmp_path: Path) -> None:
    """Zeros to the end, and the same bits after two kills."""
    dropout = 0.2 if not options else 0.0

    def model(seed: int = 0) -> Any:
        return gpt2(seed, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)

    whole = run(tmp_path / "whole", model(), **options)
    gossamer.check(whole, masks=gossamer.load_masks(tmp_path / "whole", 1))
    assert "forward" not in vars(whole)
    for killed_at in [(0, 2), (1, 2)]:
        with pytest.raises(Killed):
            run(tmp_path / "killed", model(), killed_at=killed_at, **options)
    run(tmp_path / "killed", model(), **options)
    assert_same(tmp_path / "killed", tmp_path / "whole")
    assert not (tmp_path / "killed" / "trainer").exists()


def patient() -> Any:
    return [transformers.EarlyStoppingCallback(early_stopping_patience=2)]


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_early_stopping_is_as_patient_after_an_interruption(killed_after: int, tmp_path: Path) -> None:
    options = {"load_best_model_at_end": True, "learning_rate": 1.0, "num_train_epochs": 5} | EVERY_STEP
    trainer = {"callbacks": patient}
    run(tmp_path / "whole", trainer=trainer, **options)
    steps = steps_of(tmp_path / "whole")
    assert max(steps) < 20
    with pytest.raises(Killed):
        run(tmp_path / "killed", trainer=trainer, killed_at=(0, killed_after), **options)
    run(tmp_path / "killed", trainer=trainer, **options)
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_the_checkpoints_of_a_round_are_its_own_and_have_its_zeros(tmp_path: Path) -> None:
    model = gpt2()
    for round, trainer in rounds(
        lambda: one(model), folder=tmp_path, stop=Stop(rounds=2), keep_checkpoints=True, cut=Cut(per_round=0.5)
    ):
        trainer.train()
        assert Path(trainer.args.output_dir) == tmp_path / "trainer" / f"round-{round.number:02d}"
    for number in range(3):
        folders = sorted((tmp_path / "trainer" / f"round-{number:02d}").iterdir())
        assert [folder.name for folder in folders] == ["checkpoint-3", "checkpoint-6", "checkpoint-8"]
        masks = gossamer.load_masks(tmp_path, number)
        for folder in folders:
            saved = load_file(folder / "model.safetensors")
            assert sum(int((saved[name] != 0).sum()) for name in masks) == read_records(tmp_path)[number].kept
            assert not any(saved[name][~mask].any() for name, mask in masks.items())


# --- methods --------------------------------------------------------------------------------------------------------


class Rates(transformers.TrainerCallback):  # type: ignore[misc]
    """The learning rate of every step, as the optimizer has it."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **named: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def rates_of(folder: Path, **options: Any) -> list[list[float]]:
    model, found = gpt2(), []
    of_rounds = {name: options.pop(name) for name in ("retraining",) if name in options}
    make = options.pop("make", lambda: one(model, **options))
    for _, trainer in rounds(make, folder=folder, stop=Stop(rounds=1), **of_rounds):
        found.append(Rates())
        trainer.add_callback(found[-1])
        trainer.train()
    return [callback.rates for callback in found]


LINE = [1e-2 * (8 - step) / 8 for step in range(8)]


METHODS = [
    (Retraining(rewind_steps=3), LINE[5:]),
    (Retraining(rewind_epochs=1), LINE[4:]),
    (Retraining("weight-rewind"), LINE),
    (Retraining("weight-rewind", rewind_to_epoch=1), LINE[4:]),
    (Retraining("weight-rewind", rewind_to_step=2), LINE[2:]),
    (Retraining("fine-tune", rewind_steps=2), LINE[-1:] * 2),
    (Retraining("low-lr-weight-rewind", rewind_to_step=6), LINE[-1:] * 2),
    (Retraining("linear-lr-restart"), LINE),
]


@pytest.mark.parametrize(("retraining", "expected"), METHODS, ids=str)
def test_every_method_gets_its_rates_from_the_trainer_s_own_scheduler(
    retraining: Retraining, expected: list[float], tmp_path: Path
) -> None:
    dense, pruned = rates_of(tmp_path, retraining=retraining)
    assert dense == pytest.approx(LINE)
    assert pruned == pytest.approx(expected)
    assert steps_of(tmp_path) == [8, len(expected)]


@pytest.mark.parametrize(
    "retraining",
    [
        pytest.param(
            method, marks=[] if method == Retraining("weight-rewind", rewind_to_step=2) else [pytest.mark.slow]
        )
        for method, _ in METHODS
    ],
    ids=str,
)
def test_every_method_goes_on_inside_its_rounds(retraining: Retraining, tmp_path: Path) -> None:
    of_rounds = {"retraining": retraining}
    run(tmp_path / "whole", of_rounds=of_rounds, save_steps=1)
    for killed_at in [(0, 5), (1, 1)]:
        with pytest.raises(Killed):
            # Weights to rewind to are those of the first attempt, whatever the model was in the second.
            run(tmp_path / "killed", gpt2(seed=killed_at[0]), killed_at=killed_at, of_rounds=of_rounds, save_steps=1)
    run(tmp_path / "killed", of_rounds=of_rounds, save_steps=1)
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_a_scheduler_of_one_s_own_is_played_too(tmp_path: Path) -> None:
    """One that is given, with its optimizer; one of a subclass; one that moves the momentum as well."""
    model = gpt2()

    def given() -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 8)
        return one(model, optimizers=(optimizer, cycle))

    class Own(transformers.Trainer):  # type: ignore[misc]
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, num_training_steps)
            return self.lr_scheduler

    for name, make in {"given": given, "own": lambda: one(model, of=Own)}.items():
        dense, pruned = rates_of(tmp_path / name, make=make, retraining=Retraining(rewind_steps=3))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        by_itself = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 8)
        expected = []
        for _ in range(8):
            expected += by_itself.get_last_lr()
            optimizer.step()
            by_itself.step()
        assert dense == expected
        assert pruned == expected[5:]


def test_a_scheduler_that_waits_for_a_metric_is_refused_for_other_methods(tmp_path: Path) -> None:
    options = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    with pytest.raises(ConfigurationError, match="a ReduceLROnPlateau cannot be rewound"):
        run(tmp_path, of_rounds={"retraining": Retraining("fine-tune")}, **options)


# --- one model, and all else anew -----------------------------------------------------------------------------------


def one(model: Any, of: Any = None, **given: Any) -> Any:
    """A Trainer for the model, with checkpoints."""
    names = ("optimizers", "callbacks", "compute_metrics", "eval_dataset", "processing_class", "model_init")
    own = {name: given.pop(name) for name in names if name in given}
    made = (of or transformers.Trainer)(model=model, args=arguments(**given), train_dataset=Rows(drawn()), **own)
    made.remove_callback(transformers.PrinterCallback)
    return made


@pytest.mark.parametrize("kind", ["a model each", "model_init"])
def test_the_first_model_is_the_one_of_all_rounds(kind: str, tmp_path: Path) -> None:
    def make_trainer() -> Any:
        return one(gpt2()) if kind == "a model each" else one(None, model_init=lambda: gpt2())

    plain = make_trainer()
    plain.args.output_dir = str(tmp_path / "plain")
    plain.train()
    models = set()
    for _, trainer in rounds(make_trainer, folder=tmp_path / "run", stop=Stop(rounds=1)):
        models.add(trainer.model)
        trainer.train()
        models.add(trainer.model)
    assert len(models) == 1
    dense = weights(tmp_path / "run", 0)
    for name, tensor in dense.items():
        # A model that the Trainer makes in `train` keeps its cache, and attends in another order of additions.
        torch.testing.assert_close(plain.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    gossamer.check(models.pop())


def shared_trainer() -> Callable[[], Any]:
    trainer = one(gpt2())
    return lambda: trainer


def shared_optimizer() -> Callable[[], Any]:
    model = gpt2()
    optimizer = torch.optim.AdamW(model.parameters())
    return lambda: one(model, optimizers=(optimizer, None))


def shared_scheduler() -> Callable[[], Any]:
    model = gpt2()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return lambda: one(model, optimizers=(torch.optim.AdamW(model.parameters()), scheduler))


def shared_callback() -> Callable[[], Any]:
    model = gpt2()
    callbacks = patient()
    return lambda: one(model, callbacks=callbacks)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (shared_trainer, "Trainer"),
        (shared_optimizer, "optimizer"),
        (shared_scheduler, "scheduler"),
        (shared_callback, "EarlyStoppingCallback"),
    ],
)
def test_what_would_go_on_from_round_to_round_is_refused(make: Any, what: str, tmp_path: Path) -> None:
    make_trainer = make()
    with pytest.raises(ConfigurationError, match=f"make_trainer used the same {what} twice.*inside make_trainer"):
        next(iter(rounds(make_trainer, folder=tmp_path, stop=Stop(rounds=1))))


def sharding() -> Any:
    """Without a GPU a Trainer cannot be made so; it is told so when it is there."""
    trainer = one(gpt2())
    trainer.is_fsdp_enabled = True
    return trainer


def with_its_own_optimizer() -> Any:
    model = gpt2()
    return one(model, optimizers=(torch.optim.AdamW(model.parameters()), None))


@pytest.mark.parametrize(
    ("make_trainer", "options", "message"),
    [
        (with_its_own_optimizer, {}, "makes a model and an optimizer for it, but all rounds train the first model"),
        (lambda: one(gpt2(), bf16_full_eval=True), {}, "round the model itself when it is evaluated"),
        *(
            [(lambda: one(gpt2(), enable_jit_checkpoint=True), {}, "the half-trained round would be recorded")]
            if "enable_jit_checkpoint" in NAMES
            else []
        ),
        (sharding, {}, "FSDP is set in the Trainer's arguments.*gossamer.rounds around fully_shard"),
        (lambda: gpt2(), {}, "what make_trainer returned is a GPT2LMHeadModel; expected a Trainer"),
        (None, {}, "make_trainer is a NoneType; expected a function without arguments that makes"),
        (lambda: one(gpt2()), {"retraining": Retraining(replicates=2)}, "make one in each of round.replicates"),
        (lambda: one(gpt2()), {"target_sparsity": 0.5}, "and stop was given too"),
        (lambda: one(gpt2()), {"stop": 0.5}, "stop is 0.5; expected a gossamer.Stop"),
        (lambda: one(gpt2()), {"stop": None}, "when to stop was not said"),
        (lambda: one(gpt2()), {"keep_checkpoints": "no"}, "keep_checkpoints is 'no'; expected True or False"),
        (lambda: one(gpt2()), {"folder": None}, "folder is None; expected a path"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    make_trainer: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigurationError, TypeError), match=message):
        next(iter(rounds(make_trainer, **{"folder": tmp_path / "run", "stop": Stop(rounds=1)} | options)))


def test_a_round_that_was_not_trained_is_refused(tmp_path: Path) -> None:
    model = gpt2()
    with pytest.raises(ConfigurationError, match="weights of round 0 are, bit for bit"):
        for _ in rounds(lambda: one(model), folder=tmp_path / "idle", stop=Stop(rounds=1)):
            pass
    with pytest.raises(ConfigurationError, match="weights of round 0 are, bit for bit"):
        run(tmp_path / "none", num_train_epochs=0)


# --- metrics --------------------------------------------------------------------------------------------------------


def scores(predictions: Any) -> dict[str, Any]:
    return {"f1": {"macro": 0.25, "micro": 0.5}, "accuracy": 0.75}


def test_a_round_that_is_not_recorded_is_measured_by_the_trainer(tmp_path: Path) -> None:
    model = gpt2()
    test = Rows(drawn(8 * 16, seed=1))
    for _, trainer in rounds(
        lambda: one(model, compute_metrics=scores, eval_dataset=test), folder=tmp_path, stop=Stop(rounds=1)
    ):
        trainer.train()
    record = read_records(tmp_path)[1]
    assert record.metric == "eval_loss"
    assert record.metrics.keys() == {"eval_loss", "eval_f1/macro", "eval_f1/micro", "eval_accuracy"}
    assert record.metrics["eval_f1/micro"] == 0.5


def test_nothing_to_evaluate_on_is_no_metric(tmp_path: Path) -> None:
    model = gpt2()
    for _, trainer in rounds(lambda: one(model), folder=tmp_path, stop=Stop(rounds=1)):
        trainer.train()
    assert [record.metrics for record in read_records(tmp_path)] == [{}, {}]


@pytest.mark.parametrize(
    ("arguments_of", "stop", "expected"),
    [
        ({}, Stop(rounds=1), (None, None)),
        ({"metric_for_best_model": "accuracy"}, Stop(rounds=1), ("eval_accuracy", "higher")),
        ({"metric_for_best_model": "eval_loss"}, Stop(rounds=1), ("eval_loss", "lower")),
        (
            {"metric_for_best_model": "score", "greater_is_better": False},
            Stop(rounds=1, max_drop=0.1),
            ("eval_score", "lower"),
        ),
        ({"metric_for_best_model": "accuracy"}, Stop(rounds=1, metric="eval_f1"), ("eval_f1", None)),
        (
            {"metric_for_best_model": "accuracy"},
            Stop(rounds=1, metric="eval_accuracy", better="lower"),
            ("eval_accuracy", "lower"),
        ),
        ({"load_best_model_at_end": True} | EVERY_STEP, Stop(rounds=1), ("eval_loss", "lower")),
    ],
)
def test_the_metric_that_decides_is_the_trainer_s(
    arguments_of: dict[str, Any], stop: Stop, expected: tuple[str | None, str | None], tmp_path: Path
) -> None:
    import tomllib

    test = Rows(drawn(8 * 16, seed=1))
    model = gpt2()
    next(iter(rounds(lambda: one(model, eval_dataset=test, **arguments_of), folder=tmp_path, stop=stop)))
    found = tomllib.loads((tmp_path / "config.toml").read_text())["rounds"]
    assert (found.get("metric"), found.get("better")) == expected


# --- a round is a model ---------------------------------------------------------------------------------------------


def tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    words = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="a", pad_token="b")


AS_STORED = {} if int(transformers.__version__.split(".")[0]) >= 5 else {"torch_dtype": "auto"}
"""Before version 5 all is loaded in float32 unless it is said otherwise."""


def t5() -> Any:
    torch.manual_seed(0)
    small = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=67, **small))


def llama() -> Any:
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=67, **small)).bfloat16()


@pytest.mark.parametrize(
    ("make", "of"),
    [
        (bert, "AutoModelForMaskedLM"),
        (gpt2, "AutoModelForCausalLM"),
        (t5, "AutoModelForSeq2SeqLM"),
        (llama, "AutoModelForCausalLM"),
        (mixtral, "AutoModelForCausalLM"),
    ],
)
def test_every_round_loads_by_from_pretrained(make: Any, of: str, tmp_path: Path) -> None:
    model = make()
    states = []
    for _, trainer in rounds(
        lambda: one(model, processing_class=tokenizer()), folder=tmp_path, stop=Stop(rounds=1), cut=Cut(per_round=0.5)
    ):
        trainer.train()
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    for number, state in enumerate(states):
        folder = tmp_path / f"round-{number:02d}"
        loaded = getattr(transformers, of).from_pretrained(folder, **AS_STORED)
        assert type(loaded) is type(model)
        found = loaded.state_dict()
        assert found.keys() == state.keys()
        for name, tensor in state.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
        gossamer.check(loaded, masks=gossamer.load_masks(tmp_path, number))
        assert transformers.AutoTokenizer.from_pretrained(folder)("b", add_special_tokens=False).input_ids == [1]
        if loaded.can_generate():
            assert transformers.GenerationConfig.from_pretrained(folder) is not None
    # Nothing of the model was changed for it, and it goes on as any other.
    assert gossamer.load_round(tmp_path, -1, make()).round == 1


def test_a_dense_round_that_is_taken_over_brings_its_configuration(undisturbed: Path, tmp_path: Path) -> None:
    retraining = Retraining("fine-tune")
    model = run(tmp_path, of_rounds={"dense": undisturbed, "retraining": retraining})
    for number, masks in enumerate(gossamer.load_masks(tmp_path, number) for number in (0, 1)):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / f"round-{number:02d}")
        gossamer.check(loaded, masks=masks)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_configuration_that_cannot_be_written_leaves_no_half_of_a_round(tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    class Stubborn:
        def save_pretrained(self, folder: Path) -> None:
            raise Broken

    model = gpt2()
    for round, trainer in rounds(lambda: one(model), folder=tmp_path, stop=Stop(rounds=1)):
        trainer.train()
        processing, trainer.processing_class = trainer.processing_class, Stubborn()
        with pytest.raises(Broken):
            round.record(loss=1.0)
        assert not list(tmp_path.glob("round-*"))
        trainer.processing_class = processing
        round.record(loss=1.0)
        break
    assert (tmp_path / "round-00" / "config.json").exists()


# --- the package ----------------------------------------------------------------------------------------------------


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    monkeypatch.delitem(sys.modules, "gossamer.integrations.transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'gossamer\[transformers\]'"):
        importlib.import_module("gossamer.integrations.transformers")


def test_a_callback_of_one_s_own_may_kill_too() -> None:
    """What the other tests rest on."""
    with pytest.raises(Killed):
        Killer(3).on_step_end(None, transformers.TrainerState(global_step=3), None)
