"""A BERT and a GPT-2 on Shakespeare's text by the real Trainer: beside plain torch, and killed by the system."""

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Started
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import gossamer

transformers = pytest.importorskip("transformers")

from small_trainer import Rows, arguments, bert, gpt2  # noqa: E402

from gossamer.integrations.transformers import rounds  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")  # Of torch, without a GPU.

ROUNDS = 3
EPOCHS = 2
BATCH = 8
RATE = 3e-3
WITHOUT_CHANCE = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "bert": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
PRUNABLE = {
    "gpt2": ["transformer.wte.weight"]
    + [
        f"transformer.h.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ],
    "bert": ["bert.embeddings.word_embeddings.weight"]
    + [
        f"bert.encoder.layer.{layer}.{part}.weight"
        for layer in range(2)
        for part in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        )
    ]
    + ["cls.predictions.transform.dense.weight"],
}
"""The linear layers, and the embedding of the letters, which is the last layer too."""


class InOrder(transformers.Trainer):  # type: ignore[misc]
    """Reads the text from its beginning to its end, with a loss of its own: some versions of the Trainer divide the one
    of a GPT-2 by all letters, and not by those that are foretold."""

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *arguments: Any, **named: Any) -> Tensor:
        return loss_of(model, inputs["input_ids"], inputs["labels"])


def loss_of(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The mean over the letters that are to be told, in the place of those that are hidden, or next."""
    outputs = model(input_ids=inputs).logits
    if isinstance(model, transformers.GPT2LMHeadModel):
        outputs, labels = outputs[:, :-1], labels[:, 1:]
    return functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1))


def letters_of(real_data: Path, count: int) -> Tensor:
    text = (real_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    vocabulary = sorted(set(text))
    assert len(vocabulary) == 65
    return torch.tensor([vocabulary.index(letter) for letter in text[:count]])


def model_of(kind: str) -> Any:
    return {"gpt2": gpt2, "bert": bert}[kind](**WITHOUT_CHANCE[kind])


def chosen(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
    """The largest of the weights that are left, by a sort in numpy."""
    names = list(masks)
    magnitudes = np.concatenate([weights[name].detach().abs().numpy().ravel() for name in names])
    magnitudes[~np.concatenate([masks[name].numpy().ravel() for name in names])] = -1
    flat = np.zeros(len(magnitudes), bool)
    flat[np.argsort(-magnitudes, kind="stable")[:kept]] = True
    parts = np.split(flat, np.cumsum([masks[name].numel() for name in names])[:-1])
    return {name: torch.from_numpy(part).reshape(masks[name].shape) for name, part in zip(names, parts, strict=True)}


def by_hand(kind: str, data: Rows) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Learning-rate rewinding written out: AdamW, a line to zero, gradients clipped. (masks, weights) a round."""
    model: nn.Module = model_of(kind)
    parameters = dict(model.named_parameters())
    masks = {name: torch.ones_like(parameters[name], dtype=torch.bool) for name in PRUNABLE[kind]}
    count = sum(mask.numel() for mask in masks.values())
    batches = [slice(first, first + BATCH) for first in range(0, len(data), BATCH)]
    steps = EPOCHS * len(batches)
    found = []
    for number in range(ROUNDS + 1):
        if number > 0:
            masks = chosen(parameters, masks, math.ceil(count * 0.8**number))
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name] *= mask
        optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.0)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * (steps - step) / steps
            batch = batches[step % len(batches)]
            optimizer.zero_grad()
            loss_of(model, data.inputs[batch], data.labels[batch]).backward()
            for name, mask in masks.items():
                gradient = parameters[name].grad
                assert gradient is not None
                gradient *= mask
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
        found.append((masks, {name: parameter.detach().clone() for name, parameter in parameters.items()}))
    return found


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_rounds_of_the_trainer_are_those_of_a_plain_loop(kind: str, real_data: Path, tmp_path: Path) -> None:
    data = Rows(letters_of(real_data, 16 * 8 * BATCH), hidden=kind == "bert")
    expected = by_hand(kind, data)
    model = model_of(kind)

    def make_trainer() -> Any:
        options = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "learning_rate": RATE}
        made = InOrder(model=model, args=arguments(save_strategy="no", **options), train_dataset=data)
        made.remove_callback(transformers.PrinterCallback)
        return made

    for round, trainer in rounds(make_trainer, folder=tmp_path, stop=gossamer.Stop(rounds=ROUNDS)):
        trainer.train()
        assert round.steps == EPOCHS * len(data) // BATCH
        zeros = sum(int((parameter == 0).sum()) for name, parameter in model.named_parameters() if name in round.masks)
        assert zeros == round.prunable - round.kept
    before: dict[str, Tensor] = {}
    for number, (masks, weights) in enumerate(expected):
        found = gossamer.load_masks(tmp_path, number)
        stored = load_file(tmp_path / f"round-{number:02d}" / "model.safetensors")
        assert set(found) == set(masks)
        for name, mask in masks.items():
            assert torch.equal(found[name], mask), (number, name)
            assert not stored[name][~mask].any()
        for name, weight in weights.items():
            # Keys' biases have no gradient but rounding, of which Adam makes steps, here of up to 3e-3.
            torch.testing.assert_close(stored[name], weight, rtol=1e-4, atol=1e-4)
        if number > 0:
            # Equal masks from equal weights, without any rounding between.
            last = gossamer.load_masks(tmp_path, number - 1)
            kept = sum(int(mask.sum()) for mask in found.values())
            ordered = {name: last[name] for name in masks}
            assert all(torch.equal(mask, found[name]) for name, mask in chosen(before, ordered, kept).items())
        before = stored
    gossamer.check(model)


PROGRAM = """
    import json, os, random, signal, sys, time, traceback
    from pathlib import Path
    import torch
    import transformers
    import gossamer
    from gossamer.integrations.transformers import rounds
    sys.path.insert(0, sys.argv[4])
    from small_trainer import Rows, arguments, bert, gpt2

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    root, text, least = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")[:1024], int(sys.argv[3])
    vocabulary = sorted(set(text))
    letters = torch.tensor([vocabulary.index(letter) for letter in text])

    def train(kind, folder):
        model = {"bert": bert, "gpt2": gpt2}[kind]()
        data = Rows(letters, hidden=kind == "bert")

        def make_trainer():
            made = transformers.Trainer(model=model, args=arguments(save_steps=4), train_dataset=data)
            made.remove_callback(transformers.PrinterCallback)
            return made

        for round, trainer in rounds(make_trainer, folder=folder, stop=gossamer.Stop(rounds=2)):
            trainer.train()
            round.record(loss=torch.rand(()).item())

    def in_a_process(kind, folder):
        child = os.fork()
        if child:
            return child
        try:
            train(kind, folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(4)

    def wait(child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def results(folder):
        "Every byte of the run, apart from the time that it took; with the steps of every round."
        found = {}
        for path in sorted(folder.rglob("*")):
            if path.is_dir() or path.name == ".lock":
                continue
            name = str(path.relative_to(folder))
            if path.name in ("cost.json", "ledger.jsonl"):
                found[name] = [json.loads(line)["steps"] for line in path.read_text().splitlines()]
            elif path.name in ("round.json", "rounds.jsonl"):
                found[name] = [json.loads(line) for line in path.read_text().splitlines()]
                for line in found[name]:
                    line.pop("seconds")
                    line["sha256"].pop("round.json")
            else:
                found[name] = path.read_bytes()
        return found

    moments = random.Random(3)
    killed = 0
    inside = set()
    for kind in sys.argv[5:]:
        started = time.monotonic()
        assert wait(in_a_process(kind, root / kind)) == 0
        duration = time.monotonic() - started
        expected = results(root / kind)
        assert expected["ledger.jsonl"] == [16, 16, 16], expected["ledger.jsonl"]
        kills = 0
        for attempt in range(20):
            folder = root / f"{kind}-{attempt}"
            while True:
                child = in_a_process(kind, folder)
                time.sleep(moments.uniform(0.1, 0.7) * duration)
                os.kill(child, signal.SIGKILL)
                code = wait(child)
                assert code in (0, -signal.SIGKILL), code
                if code == 0:
                    break
                kills += 1
                inside |= {path.parts[-2] for path in folder.glob("trainer/round-*/checkpoint-*")}
            assert results(folder) == expected, f"{kind}: attempt {attempt}, {kills} kills"
            if kills >= least:
                break
        killed += kills
    print(killed, len(inside))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "least"),
    [(["gpt2"], 1), pytest.param(["bert", "gpt2"], 12, marks=pytest.mark.slow)],
    ids=["once", "often"],
)
def test_killed_by_the_system_it_ends_with_the_same_bytes(
    kinds: list[str], least: int, real_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_bytes((real_data / "text" / "tinyshakespeare.txt").read_bytes())
    own = [tmp_path, tmp_path / "text.txt", least, Path(__file__).parents[1], *kinds]
    done = Started(tmp_path, *own, script=textwrap.dedent(PROGRAM)).completed()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    killed, inside = map(int, done.stdout.split()[-2:])
    assert killed >= least * len(kinds)
    assert inside >= 1
