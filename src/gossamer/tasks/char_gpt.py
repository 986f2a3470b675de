"""A small GPT (Radford et al., 2019) that predicts a text character by character."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.tasks import built_in
from gossamer.tasks.optimizers import AdamW
from gossamer.tasks.schedules import OneCycle
from gossamer.tasks.task import Data, Metric, Recipe, Task
from gossamer.tasks.text import text

CHARACTERS = 256
"""Bytes. Fixed, so that the network does not depend on the text; English uses some 65 of them."""
CONTEXT, WIDTH, HEADS, BLOCKS = 128, 128, 4, 4
STRIDE = CONTEXT // 2
"""Every character is in two windows, so an epoch goes through the text twice."""


class CharGpt(nn.Module):
    """Four pre-norm transformer blocks of width 128 with 4 heads. Inputs (batch, up to 128) of whole numbers below 256
    -> logits (batch, the same, 256) of the character that follows each.

    Prunable are all linear layers: query, key, value and output of attention, both layers of each block's
    perceptron, and the head, which is tied to the embedding of characters: one weight of 256 x 128 that is counted and
    pruned once. The embedding of positions is prunable on request only, like every embedding.
    """

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dropout) for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CHARACTERS, bias=False)
        self.head.weight = self.characters.weight
        _initialise(self)

    def forward(self, characters: Tensor) -> Tensor:
        places = torch.arange(characters.shape[1], device=characters.device)
        stream = self.dropout(self.characters(characters) + self.positions(places))
        return self.head(self.norm(self.blocks(stream)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then a perceptron, each added to the stream. Shapes: (batch, length, width) -> the same."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attended = nn.Linear(WIDTH, WIDTH, bias=False)
        self.perceptron_norm = nn.LayerNorm(WIDTH)
        self.hidden = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.perceived = nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.dropout(self.attended(self._attend(self.attention_norm(stream))))
        hidden = F.gelu(self.hidden(self.perceptron_norm(stream)))
        return stream + self.dropout(self.perceived(hidden))  # type: ignore[no-any-return]

    def _attend(self, stream: Tensor) -> Tensor:
        """Every character's mixture of the values of itself and those before it."""
        projected: Tensor = self.query_key_value(stream)
        query, key, value = projected.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        # Written out: on the CPU, in bfloat16 and this short, `scaled_dot_product_attention` takes three times as long
        # (58 ms forward and backward against 18 on one core of Zen 4).
        length = stream.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=stream.device).triu(1)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
        mixed: Tensor = scores.masked_fill(later, -math.inf).softmax(dim=3) @ value
        return mixed.transpose(1, 2).flatten(2)


def nats(outputs: Tensor, targets: Tensor) -> Tensor:
    """-ln of the probability given to each character. Shapes: (batch, length, 256), (batch, length) -> (all,)."""
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten().long(), reduction="none")


def mean_nats(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of `nats` over a batch."""
    return nats(outputs, targets).mean()


def char_text(source: Path | None) -> Data:
    """See `text.text`."""
    return text(source, CONTEXT, STRIDE)


def _initialise(model: CharGpt) -> None:
    """Initialises as GPT-2 does: normal weights of deviation 0.02; less for the layers that are added to the stream, so
    that its variance does not grow with their number."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            added = name.endswith(("attended.weight", "perceived.weight"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * BLOCKS) if added else 0.02)


TASK = Task(
    name=built_in.CHAR_GPT.name,
    description=built_in.CHAR_GPT.description,
    model=CharGpt,
    data=char_text,
    # On tiny Shakespeare, seed 0: 1.62 nats on validation and 1.79 on test after 1,848 steps (77 s an epoch on two
    # Zen 4 cores that other processes shared); three epochs to a peak of 3e-3 came to 1.69 and 1.84.
    recipe=Recipe(
        epochs=built_in.CHAR_GPT.epochs,
        batch_size=32,
        learning_rate=OneCycle(peak=4e-3, warm_up=0.1),
        optimizer=AdamW(),
        fine_tune_rate=4e-5,
        loss=mean_nats,
        bfloat16=True,
    ),
    metric=Metric(name=built_in.CHAR_GPT.metric, better="lower", score=nats),
)
