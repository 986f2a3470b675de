"""The small GPT: its size, what it may look at, its metric, its training."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gossamer.prune.enforce import attach_masks, check
from gossamer.prune.prunable import count_parameters, prunable_weights
from gossamer.prune.scope import Scope
from gossamer.prune.select import keep_largest
from gossamer.tasks import TASKS, Examples, Task, evaluate, initial_model, train
from gossamer.tasks.char_gpt import CharGpt, mean_nats, nats
from gossamer.tasks.text import windows

TASK = TASKS["char-gpt"]
SMALL = replace(TASK, recipe=replace(TASK.recipe, batch_size=4, bfloat16=False))


def sentences(count: int = 400) -> Examples:
    content = (b"to be, or not to be, that is the question. " * 100)[:count]
    return windows(torch.tensor(list(content), dtype=torch.uint8), context=32, stride=8)


def test_prunable_are_the_linear_layers_and_the_tied_head_once() -> None:
    weights = prunable_weights(CharGpt())
    blocks = 4 * (128 * 3 * 128 + 128 * 128 + 2 * 128 * 4 * 128)
    assert sum(weight.numel() for weight in weights.values()) == blocks + 256 * 128 == 819_200
    assert "819,200 prunable weights" in TASK.description
    assert next(iter(weights)) == "characters.weight"
    assert "head.weight" not in weights
    assert "positions.weight" in prunable_weights(CharGpt(), Scope(embeddings=True))
    # Positions, and the two vectors of nine normalisations.
    assert count_parameters(CharGpt()) == 819_200 + 128 * 128 + 9 * 2 * 128


def test_no_character_sees_those_after_it() -> None:
    model = CharGpt().eval()
    one = torch.randint(256, (2, 128))
    other = one.clone()
    other[:, 70:] = torch.randint(256, (2, 58))
    assert torch.equal(model(one)[:, :70], model(other)[:, :70])
    assert not torch.equal(model(one)[:, 70:], model(other)[:, 70:])


def test_attention_equals_torchs_own() -> None:
    block = CharGpt().blocks[0]
    stream = torch.randn(3, 50, 128)
    query, key, value = (
        part.unflatten(2, (4, 32)).transpose(1, 2) for part in block.query_key_value(stream).chunk(3, dim=2)
    )
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block._attend(stream), expected, atol=1e-5, rtol=1e-4)


def test_an_untrained_network_knows_nothing() -> None:
    model = initial_model(TASK, seed=0)
    assert evaluate(model, sentences(), TASK.metric) == pytest.approx(math.log(256), abs=0.1)


def test_the_metric_is_the_mean_over_characters() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[math.log(7), 0.0], [0.0, 0.0]]])
    targets = torch.tensor([[1, 0], [1, 0]], dtype=torch.uint8)
    expected = [-math.log(3 / 4), math.log(2), math.log(8), math.log(2)]
    assert nats(logits, targets).tolist() == pytest.approx(expected)
    assert mean_nats(logits, targets).item() == pytest.approx(sum(expected) / 4)
    assert TASK.metric.better == "lower"


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    slots = [slot for parameter in model.parameters() for slot in optimizer.state[parameter].values()]
    return [*model.state_dict().values(), *slots]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resuming_with_dropout_ends_with_the_same_bits(precision: str) -> None:
    def start(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = initial_model(task, seed=0)
        assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
        return model, task.recipe.optimizer(model)

    arguments = {"seed": 3, "epochs": 3, "precision": precision}
    whole, whole_optimizer = start(SMALL)
    list(train(whole, whole_optimizer, SMALL.recipe, sentences(), **arguments))  # type: ignore[arg-type]
    first, first_optimizer = start(SMALL)
    for _ in itertools.islice(train(first, first_optimizer, SMALL.recipe, sentences(), **arguments), 1):  # type: ignore[arg-type]
        pass
    torch.rand(5)  # whatever another process has drawn
    second, second_optimizer = start(SMALL)
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    list(train(second, second_optimizer, SMALL.recipe, sentences(), first_epoch=1, **arguments))  # type: ignore[arg-type]
    resumed = state(second, second_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(state(whole, whole_optimizer), resumed, strict=True))


def test_pruned_weights_stay_zero_in_the_embedding_as_in_the_head() -> None:
    model = initial_model(SMALL, seed=0)
    weights = prunable_weights(model)
    masks = keep_largest(weights, 200_000)
    attach_masks(model, weights, masks)
    optimizer = SMALL.recipe.optimizer(model)
    list(train(model, optimizer, SMALL.recipe, sentences(200), seed=0, epochs=1, precision="bfloat16"))
    check(model, optimizer)
    assert model.get_parameter("head.weight") is model.get_parameter("characters.weight")
    assert not model.get_parameter("head.weight")[~masks["characters.weight"]].any()


def test_learns_a_sentence_by_heart() -> None:
    model = initial_model(SMALL, seed=0)
    examples = sentences()
    before = evaluate(model, examples, TASK.metric)
    list(train(model, SMALL.recipe.optimizer(model), SMALL.recipe, examples, seed=0, epochs=6))
    assert evaluate(model, examples, TASK.metric) < before / 2


def test_windows_are_as_long_as_the_network_sees_and_overlap_by_half_in_training(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"to be, or not to be, that is the question. " * 100)
    data = TASK.data(tmp_path)
    # Of 4,300 characters 3,655, 215 and 430, in windows of 129 that begin 64 or 128 apart.
    assert [len(split) for split in (data.train, data.validation, data.test)] == [3526 // 64 + 1, 1, 3]
    assert data.train.inputs.shape[1] == 128


def test_the_real_text(real_data: Path) -> None:
    data = TASK.data(real_data)
    assert bytes(data.train.inputs[0].tolist()).startswith(b"First Citizen:\nBefore we proceed any further")
    # 1,115,394 characters: 948,085 for training in windows of 129 that begin 64 apart, and so on.
    expected = [(948_085 - 129) // 64 + 1, (55_770 - 129) // 128 + 1, (111_539 - 129) // 128 + 1]
    assert [len(split) for split in (data.train, data.validation, data.test)] == expected
