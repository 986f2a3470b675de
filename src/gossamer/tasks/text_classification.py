"""A small BERT (Devlin et al., 2019) that classifies the texts of a folder; or the one that the folder holds.

Everything is local: nothing is asked of a hub, and nothing in the folder is imported or unpickled.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from gossamer.tasks import built_in
from gossamer.tasks.classification import AccuracyAndF1
from gossamer.tasks.errors import DataError
from gossamer.tasks.labelled_text import WHERE, Texts, classes_of, find_texts, numbered
from gossamer.tasks.optimizers import AdamW
from gossamer.tasks.requirements import optional_module
from gossamer.tasks.schedules import Linear, WarmUp
from gossamer.tasks.splits import VALIDATION, rows_aside
from gossamer.tasks.task import Data, Metric, Recipe, Task

WIDTH, LAYERS, HEADS = 128, 4, 4
VOCABULARY = 8000
"""Word pieces, at most, of a tokenizer that is made here."""
LONGEST = 128
"""Word pieces of a text; what comes after them is cut off."""
SCRATCH, TRAINED = 5e-4, 5e-5
"""The learning rate at which the way down would begin, of a BERT with random weights, and of one that comes trained."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Encoded(Dataset[dict[str, Tensor]]):
    """Texts as word pieces, padded to one length; each by the names of BERT's arguments."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {
            "input_ids": self.input_ids[row].long(),
            "attention_mask": self.attention_mask[row].long(),
            "labels": self.labels[row],
        }


@dataclass(frozen=True)
class TextFolder:
    """What a folder holds: its texts, and its tokenizer and network if it has them."""

    classes: tuple[str, ...]
    train: Texts
    validation: Texts
    test: Texts | None
    pretrained: Path | None

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The folder's, or one that is made of the training texts: the same one each time."""
        if self.pretrained is None:
            return made_tokenizer(self.train.texts)
        transformers = optional_module("transformers", "transformers")
        with _loading(self.pretrained, "tokenizer"):
            # Asked otherwise, transformers asks in turn on the terminal whether to run a folder's code.
            return transformers.AutoTokenizer.from_pretrained(
                str(self.pretrained), local_files_only=True, trust_remote_code=False
            )

    def model(self) -> nn.Module:
        """The folder's network with a head for these classes, or a small one with random weights."""
        transformers = optional_module("transformers", "transformers")
        if self.pretrained is not None:
            with _loading(self.pretrained, "network"):
                # Never the weights of a pickle, nor code that the folder brings along.
                found: nn.Module = transformers.AutoModelForSequenceClassification.from_pretrained(
                    str(self.pretrained),
                    num_labels=len(self.classes),
                    # A head of other classes is replaced by one with random weights.
                    ignore_mismatched_sizes=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
                return found
        configuration = transformers.BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=LONGEST,
            num_labels=len(self.classes),
        )
        made: nn.Module = transformers.BertForSequenceClassification(configuration)
        return made

    def data(self) -> Data:
        """The splits, as word pieces in memory."""
        longest = min(LONGEST, max(map(len, self.tokenizer(list(self.train.texts))["input_ids"])))
        test = None if self.test is None else self._encoded(self.test, longest)
        return Data(self._encoded(self.train, longest), self._encoded(self.validation, longest), test)

    def _encoded(self, texts: Texts, length: int) -> Encoded:
        pieces = self.tokenizer(list(texts.texts), truncation=True, padding="max_length", max_length=length)
        of = {name: torch.tensor(pieces[name], dtype=torch.int32) for name in ("input_ids", "attention_mask")}
        return Encoded(**of, labels=torch.tensor(numbered(texts, self.classes)))


def find_folder(folder: Path | None) -> TextFolder:
    """What a folder holds.

    Raises:
        DataError: it holds no training texts, or a file is no table of texts and labels.
    """
    train = find_texts(folder, ("train",))
    if folder is None or train is None:
        raise DataError(f"--data {folder}: there is no train.csv, train.tsv or train.jsonl. {WHERE}")
    classes = classes_of(train)
    validation, test = find_texts(folder, VALIDATION), find_texts(folder, ("test",))
    if validation is None:
        train, validation = (train.rows(rows) for rows in rows_aside(len(train)))
    for texts in filter(None, (validation, test)):
        numbered(texts, classes)
    pretrained = folder / "model"
    return TextFolder(classes, train, validation, test, pretrained if pretrained.is_dir() else None)


def made_tokenizer(texts: tuple[str, ...]) -> Any:
    """A WordPiece tokenizer of BERT's kind, in lower case, whose pieces are the letters of these texts and their most
    frequent words.

    Counted here: the trainer of the package tokenizers gives another vocabulary in every process (its order is that of
    a hash table), and a run that is gone on with would have another network.
    """
    tokenizers = optional_module("tokenizers", "transformers")
    transformers = optional_module("transformers", "transformers")
    padding, unknown, first, last, masked = SPECIAL
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary_of(words), unk_token=unknown))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    ends = ((token, tokenizer.token_to_id(token)) for token in (last, first))
    tokenizer.post_processor = tokenizers.processors.BertProcessing(*ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=padding,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        mask_token=masked,
    )


def vocabulary_of(words: Mapping[str, int]) -> dict[str, int]:
    """Piece -> number: the special ones, the letters (alone and inside a word), then words from the most frequent on,
    those that are there once left out; equally frequent ones by their letters."""
    letters = sorted({letter for word in words for letter in word})
    frequent = sorted((word for word, count in words.items() if count > 1), key=lambda word: (-words[word], word))
    pieces = dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *frequent])
    return {piece: number for number, piece in enumerate(islice(pieces, VOCABULARY))}


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Of the logits that a network of transformers returns."""
    return F.cross_entropy(outputs.logits, targets)


def recipe(peak: float) -> Recipe:
    """AdamW, a tenth of the time up to the highest learning rate and then straight down to zero."""
    return Recipe(
        epochs=built_in.TEXT_CLASSIFICATION.epochs,
        batch_size=32,
        learning_rate=WarmUp(Linear(peak), share=0.1),
        optimizer=AdamW(betas=(0.9, 0.999), weight_decay=0.01),
        loss=cross_entropy,
        bfloat16=True,
        fine_tune_rate=peak / 10,
    )


def _for_folder(folder: Path | None) -> Task:
    found = find_folder(folder)
    model: Callable[[], nn.Module] = found.model
    return Task(
        name=TASK.name,
        description=TASK.description,
        model=model,
        data=lambda folder: found.data(),
        recipe=recipe(SCRATCH if found.pretrained is None else TRAINED),
        metric=TASK.metric,
        classes=found.classes,
    )


@contextmanager
def _loading(folder: Path, what: str) -> Iterator[None]:
    """Tells in one line what of a folder cannot be loaded."""
    logging = optional_module("transformers", "transformers").logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        raise DataError(
            f"{folder}: holds no {what} that can be loaded ({' '.join(str(error).split())[:300]}). Expected what "
            f"save_pretrained of transformers writes, weights in safetensors"
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()


TASK = Task(
    name=built_in.TEXT_CLASSIFICATION.name,
    description=built_in.TEXT_CLASSIFICATION.description,
    model=lambda: find_folder(None).model(),
    data=lambda folder: find_folder(folder).data(),
    recipe=recipe(SCRATCH),
    metric=Metric(built_in.TEXT_CLASSIFICATION.metric, "higher", whole_set=AccuracyAndF1),
    for_data=_for_folder,
)
