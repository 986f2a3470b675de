"""A small BERT on a folder of labelled texts."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import gossamer

import gossamer as library
from gossamer.job.callbacks import Callback
from gossamer.job.compress import compress
from gossamer.job.training import Training
from gossamer.loop.record import RoundRecord
from gossamer.loop.stop import Stop
from gossamer.tasks import TASKS, DataError
from gossamer.tasks.classification import AccuracyAndF1
from gossamer.tasks.labelled_text import read_texts
from gossamer.tasks.text_classification import SPECIAL, find_folder, vocabulary_of
from gossamer.tasks.training import StepReport, initial_model

transformers = pytest.importorskip("transformers")
TASK = TASKS["text-classification"]
GOOD = ["a fine film", "what a joy to see", "warm, funny and wise", "the best of the year", "I loved every minute"]
BAD = ["a dull film", "what a bore to see", "cold, slow and silly", "the worst of the year", "I hated every minute"]
TEXTS = [(text, "good") for text in GOOD] + [(text, "bad") for text in BAD]
ROWS = [(f"{text} {number}", label) for number in range(8) for text, label in TEXTS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eighty texts of two kinds."""
    path = tmp_path / "data" / "train.csv"
    path.parent.mkdir()
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS))
    return path.parent


def test_what_is_in_a_folder(folder: Path) -> None:
    found = find_folder(folder)
    assert found.classes == ("bad", "good")
    assert (len(found.train), len(found.validation), found.test) == (72, 8, None)
    assert not set(found.train.texts) & set(found.validation.texts)
    data = found.data()
    example = data.train[0]
    assert set(example) == {"input_ids", "attention_mask", "labels"}
    words = found.tokenizer.decode(example["input_ids"], skip_special_tokens=True)
    # Commas are pieces of their own, and so is what is left of a word.
    assert words.replace(" ", "") == found.train.texts[0].lower().replace(" ", "")
    assert example["input_ids"][0] == found.tokenizer.cls_token_id
    assert example["attention_mask"].sum() == (example["input_ids"] != found.tokenizer.pad_token_id).sum()
    assert int(example["labels"]) == ["bad", "good"].index(found.train.labels[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", 'text,label,other\n"one, and ""two""",7,x\nthree,10,y\n'),
        ("train.tsv", 'label\ttext\n7\tone, and "two"\n10\tthree\n'),
        ("train.jsonl", '{"text": "one, and \\"two\\"", "label": 7}\n\n{"label": "10", "text": "three"}\n'),
    ],
)
def test_the_three_kinds_of_files(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    found = read_texts(tmp_path / name)
    assert (found.texts, found.labels) == (('one, and "two"', "three"), ("7", "10"))
    # Numbers in their order, not that of their digits.
    assert find_folder(tmp_path).classes == ("7", "10")


def test_spaces_around_a_label_make_no_other_class(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na, good\nb,good\nc,bad \n")
    assert read_texts(tmp_path / "train.csv").labels == ("good", "good", "bad")


MISTAKES: dict[str, tuple[str, str | bytes, str]] = {
    "no column": ("train.csv", "sentence,label\na,b\n", r"has the columns \['sentence', 'label'\], and no text"),
    "no label": ("train.csv", "text,label\na,b\nc\n", "row 2: expected a text and a label"),
    "an empty label": ("train.csv", "text,label\na,\n", "row 1: expected a text and a label"),
    "no rows": ("train.csv", "text,label\n", "holds no rows"),
    "one class": ("train.csv", "text,label\na,b\nc,b\n", "all 2 labels are 'b'; expected several classes"),
    "no UTF-8": ("train.csv", b"text,label\n\xff\xfe,b\n", "is no UTF-8"),
    "no JSON": ("train.jsonl", "{\n", "row 1: is no JSON"),
    "a list": ("train.jsonl", "[1]\n", "row 1: expected a text and a label"),
    "a truth for a label": ("train.jsonl", '{"text": "a", "label": true}\n', "row 1: expected a text and a label"),
    "deep JSON": ("train.jsonl", "[" * 100_000 + "\n", "cannot be read|is no JSON"),
    "a text with a comma": (
        "train.csv",
        "text,label\nwell, good,b\n",
        "row 1: has more fields than the first line",
    ),
    "a quote that stays open": (
        "train.csv",
        'text,label\na,b\n"c,d\ne,f\n',
        r"row 2: unexpected end",
    ),
    "a quote inside": ("train.csv", 'text,label\n"a" b,c\n', r"row 1: .* expected after.* written twice"),
    "a book": ("train.csv", f"text,label\n{'a' * 140_000},b\n", r"row 1: .*belong into a .jsonl"),
    "half a letter": ("train.jsonl", '{"text": "\\ud800", "label": 1}\n', "row 1: half a letter"),
    "two files": ("train.jsonl", '{"text": "a", "label": 1}\n', "train.csv and train.jsonl are both there"),
    "nothing": ("other.csv", "", "there is no train.csv, train.tsv or train.jsonl"),
    "another label": (
        "test.csv",
        "text,label\na,ugly\n",
        "row 1: the label 'ugly' is none of the training texts'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_files_that_are_no_labelled_texts(mistake: str, folder: Path) -> None:
    name, content, message = MISTAKES[mistake]
    if name != "test.csv" and mistake != "two files":
        (folder / "train.csv").unlink()
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as told:
        TASK.at(folder)
    assert "\n" not in str(told.value)


def test_no_folder(tmp_path: Path) -> None:
    for nothing in (None, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="needs a folder of labelled texts: give it with --data DIR"):
            TASK.at(nothing)


def test_the_vocabulary_is_counted() -> None:
    """Letters in their order, then the words that are there twice, the most frequent first."""
    vocabulary = vocabulary_of({"ba": 2, "a": 3, "ab": 2, "c": 1, "abc": 1})
    pieces = ["a", "b", "c", "##a", "##b", "##c", "ab", "ba"]
    assert vocabulary == {piece: number for number, piece in enumerate([*SPECIAL, *pieces])}


def test_a_word_that_is_not_known_is_spelt(folder: Path) -> None:
    tokenizer = find_folder(folder).tokenizer
    assert tokenizer.tokenize("The FILM wise") == ["the", "film", "wise"]
    assert tokenizer.tokenize("films feel") == ["film", "##s", "f", "##e", "##e", "##l"]
    assert tokenizer.tokenize("q") == ["[UNK]"]


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_it_goes_on_inside_an_epoch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.job.callbacks.LEAST_SECONDS", 0.0)

    class Stopping(Callback):
        def step_finished(self, round: library.Round, report: StepReport) -> None:
            if (round.number, report.epochs_done, report.steps_done) == (1, 2, 1):
                raise Interrupted

    def run(name: str, *callbacks: Callback) -> list[RoundRecord]:
        return compress(
            TASK,
            folder=tmp_path / name,
            data_folder=folder,
            stop=Stop(rounds=1),
            training=Training(epochs=3, checkpoint_seconds=0),
            callbacks=callbacks,
        )

    records = run("whole")
    with pytest.raises(Interrupted):
        run("again", Stopping())
    again = run("again")
    for name in ("model.safetensors", "state.safetensors"):
        assert [record.sha256[name] for record in again] == [record.sha256[name] for record in records]
    assert set(records[0].metrics) == {"accuracy", "f1"}


def test_a_folder_with_a_network_of_its_own(folder: Path) -> None:
    found = find_folder(folder)
    torch.manual_seed(3)
    theirs = found.model()
    theirs.save_pretrained(folder / "model")  # type: ignore[operator]
    found.tokenizer.save_pretrained(folder / "model")
    # A third class: the head is another one then, the rest is theirs.
    with (folder / "train.csv").open("a") as file:
        file.write("neither,so so\nnor,so so\n")
    task = TASK.at(folder)
    ours = initial_model(task, seed=0)
    assert torch.equal(ours.state_dict()["bert.pooler.dense.weight"], theirs.state_dict()["bert.pooler.dense.weight"])
    assert task.recipe.learning_rate(0.1) == pytest.approx(4.5e-5)
    text = "a fine film"
    assert find_folder(folder).tokenizer(text)["input_ids"] == found.tokenizer(text)["input_ids"]


def as_pickle(model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")


def with_code(model: Path) -> None:
    """As a hub's repository names a file of its own to be imported."""
    configuration = json.loads((model / "config.json").read_text())
    configuration["auto_map"] = {"AutoModelForSequenceClassification": "evil.Evil", "AutoConfig": "evil.Evil"}
    configuration["model_type"] = "evil"
    (model / "config.json").write_text(json.dumps(configuration))
    (model / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"})
    )
    (model / "evil.py").write_text("from pathlib import Path\nPath('executed').touch()\nclass Evil: pass\n")


def nothing_there(model: Path) -> None:
    for path in model.iterdir():
        path.unlink()


@pytest.mark.parametrize("spoil", [as_pickle, with_code, nothing_there])
def test_a_network_that_is_not_loaded(
    spoil: Callable[[Path], Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_folder(folder)
    found.model().save_pretrained(folder / "model")  # type: ignore[operator]
    found.tokenizer.save_pretrained(folder / "model")
    spoil(folder / "model")
    with pytest.raises(DataError, match="model: holds no network that can be loaded") as told:
        TASK.at(folder).model()
    assert "\n" not in str(told.value)
    with suppress(DataError):
        _ = find_folder(folder).tokenizer
    assert not (tmp_path / "executed").exists()


def test_accuracy_and_f1() -> None:
    """Classes 0, 1 and 2 of which 1 is never predicted; by hand: F1 of 2/3, 0 and 2/3."""
    metric = AccuracyAndF1()
    logits = torch.eye(4)[[0, 0, 2, 2]]
    metric.update(logits[:2], torch.tensor([0, 1]))
    metric.update(logits[2:], torch.tensor([2, 1]))
    assert metric.compute() == {"accuracy": 0.5, "f1": pytest.approx((2 / 3 + 0 + 2 / 3) / 3)}


@pytest.mark.slow
def test_it_is_exported(folder: Path, tmp_path: Path) -> None:
    data = ("--data", folder)
    done = gossamer(tmp_path, "compress", "text-classification", *data, "--rounds", 1, "--epochs", 1, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    done = gossamer(tmp_path, "export", "run", *data, "-o", "bert.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    import onnx

    graph = onnx.load(tmp_path / "bert.onnx").graph
    assert [value.name for value in graph.input] == ["input_ids", "attention_mask"]
