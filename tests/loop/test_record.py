"""One line of rounds.jsonl."""

import json
from dataclasses import replace

import pytest

from gossamer.errors import CheckpointError
from gossamer.loop.record import RoundRecord

RECORD = RoundRecord(
    round=3,
    density=0.512,
    kept=512,
    prunable=1000,
    parameters=1100,
    val=0.9,
    test=0.1 + 0.2,
    metric="accuracy",
    seconds=1.234,
    lr_rewound_to=0.0,
    weights_rewound_to=None,
    seed=7,
    metrics={"accuracy": 0.9, "test_accuracy": 0.1 + 0.2},
    sha256={"model.safetensors": "00ff"},
).sealed()


def test_the_line_has_the_promised_entries() -> None:
    line = json.loads(RECORD.to_json())
    promised = "round density kept prunable parameters val test metric seconds lr_rewound_to weights_rewound_to seed"
    assert list(line)[:12] == promised.split()
    assert line["kept"] == 512
    assert line["weights_rewound_to"] is None


def test_a_line_comes_back_as_it_was_to_the_last_bit() -> None:
    assert RoundRecord.from_json(RECORD.to_json(), "here") == RECORD


def test_what_is_derived() -> None:
    assert RECORD.sparsity == 0.488
    assert RECORD.compression == 1000 / 512
    assert RECORD.parameters_kept == 612


def test_unknown_entries_of_a_later_version_are_no_damage() -> None:
    line = json.loads(RECORD.to_json())
    assert RoundRecord.from_json(json.dumps({**line, "colour": "blue"}), "here") == RECORD


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "null", "[]", "3", '"x"', "{}", '{"round": 0}', "[" * 100_000, RECORD.to_json()[:-1]],
    ids=lambda text: text[:12],
)
def test_text_that_is_no_record_is_damaged(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"runs/x/round\.json is damaged"):
        RoundRecord.from_json(text, "runs/x/round.json")


def test_every_flipped_bit_is_noticed() -> None:
    line = RECORD.to_json().encode()
    noticed = 0
    for position in range(len(line)):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[position] ^= 1 << bit
            try:
                text = damaged.decode()
            except UnicodeDecodeError:
                noticed += 1
                continue
            try:
                # JSON has several ways to write a thing: what matters is that the record is the same.
                assert RoundRecord.from_json(text, "here") == RECORD, (position, bit, text)
            except CheckpointError:
                noticed += 1
    assert noticed > 0.99 * 8 * len(line)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept": 0},
        {"kept": 1001},
        {"kept": "512"},
        {"kept": None},
        {"prunable": 1101},
        {"round": -1},
        {"round": "3"},
        {"val": "0.9"},
        {"test": [1]},
        {"metrics": {"accuracy": "high"}},
        {"metrics": [1, 2]},
        {"sha256": None},
        {"sha256": []},
        {"sha256": "x"},
    ],
    ids=str,
)
def test_entries_that_contradict_each_other_are_refused_even_if_sealed(wrong: dict[str, object]) -> None:
    record = replace(RECORD, **wrong)  # type: ignore[arg-type]
    if isinstance(record.sha256, dict):
        record = record.sealed()
    with pytest.raises(CheckpointError, match="here is damaged"):
        RoundRecord.from_json(record.to_json(), "here")
