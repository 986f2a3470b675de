"""Files that lie: an error that says so, and nothing written."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sharded import save_shards

from gossamer.errors import CheckpointError, ConfigurationError, GossamerError, NothingToPruneError
from gossamer.files import prune
from gossamer.files.header import read_header


def written(path: Path, header: Any, behind: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + behind)
    return path


def entry(shape: list[Any], start: Any, end: Any, kind: Any = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "no file at all": b"",
    "a header longer than the file": ({}, b"", 2**63),
    "a header longer than any": ({}, b"", 100_000_001),
    "no table": (b"[1]", b""),
    "no JSON": (b"{not}", b""),
    "no text": (b"{\xff}", b""),
    "nested without end": (b'{"w":' + b"[" * 100_000, b""),
    "a name twice": (
        b'{"w":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1,1],'
        b'"data_offsets":[0,4]}}',
        b"1234",
    ),
    "fewer bytes than stated": ({"w": entry([2, 2], 0, 16)}, b"1234"),
    "more bytes than stated": ({"w": entry([1, 1], 0, 4)}, b"12345"),
    "overlapping": ({"a": entry([1, 1], 0, 4), "b": entry([1, 1], 2, 6)}, b"123456"),
    "the same place": ({"a": entry([1, 1], 0, 4), "b": entry([1, 1], 0, 4)}, b"1234"),
    "a hole": ({"a": entry([1, 1], 0, 4), "b": entry([1, 1], 8, 12)}, b"1" * 12),
    "backwards": ({"w": entry([1, 1], 4, 0)}, b"1234"),
    "another size than the shape": ({"w": entry([3, 1], 0, 4)}, b"1234"),
    "a shape beyond all numbers": ({"w": entry([2**62, 2**62], 0, 4)}, b"1234"),
    "a shape below zero": ({"w": entry([-1, -1], 0, 4)}, b"1234"),
    "a shape of fractions": ({"w": entry([1.0, 1], 0, 4)}, b"1234"),
    "a shape of truths": ({"w": entry([True, True], 0, 4)}, b"1234"),
    "offsets below zero": ({"w": entry([1, 1], -4, 0)}, b"1234"),
    "a type that nobody knows": ({"w": entry([1, 1], 0, 4, "F31")}, b"1234"),
    "a type that is none": ({"w": entry([1, 1], 0, 4, 7)}, b"1234"),
    "no entry": ({"w": [0, 4]}, b"1234"),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "w": entry([1, 1], 0, 4)}, b"1234"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "model.safetensors"
    given = LIES[lie]
    path.write_bytes(given) if isinstance(given, bytes) else written(path, *given)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        prune(path, tmp_path / "out", sparsity=0.5)
    assert [found.name for found in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_safetensors_refuses_is_refused(tmp_path: Path) -> None:
    """Single bytes of a file changed, the file cut or made longer."""
    save_file({f"layer.{index}.weight": torch.randn(3, 4) for index in range(3)}, tmp_path / "fine", {"a": "b"})
    fine = (tmp_path / "fine").read_bytes()
    start = 8 + int.from_bytes(fine[:8], "little")
    draw, path, refused = random.Random(0), tmp_path / "changed.safetensors", 0
    for _ in range(200):
        changed = bytearray(fine)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(start)] = draw.randrange(256)
        cut = draw.choice([len(changed), draw.randrange(len(changed))])
        path.write_bytes(bytes(changed[:cut]) + b"more" * draw.choice([0, 0, 1]))
        try:
            read_header(path, path.name)
        except CheckpointError:
            refused += 1
            continue
        try:
            with safe_open(path, framework="pt") as opened:
                opened.keys()
        except SafetensorError as error:
            pytest.fail(f"safetensors refuses what is read here: {error}: {path.read_bytes()[:start]!r}")
    assert 50 < refused < 200


def sharded(tmp_path: Path) -> Path:
    return save_shards(tmp_path / "source", {f"layer.{index}.weight": torch.randn(4, 4) for index in range(3)})


INDICES = {
    "outside the folder": ("../elsewhere.safetensors", "expected the name of a .safetensors file beside it"),
    "from the root": ("/elsewhere.safetensors", "expected the name of a .safetensors file beside it"),
    "below the folder": ("inner/file.safetensors", "expected the name of a .safetensors file beside it"),
    "pickled": ("pytorch_model.bin", "expected the name of a .safetensors file beside it"),
    "no name": (7, "expected the name of a .safetensors file beside it"),
    "not there": ("model-9.safetensors", "cannot be read: No such file"),
    "in another one": ("model-00002-of-00002.safetensors", "says that layer.0.weight is in"),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    source = sharded(tmp_path)
    (tmp_path / "elsewhere.safetensors").write_bytes(b"")
    file, message = INDICES[name]
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["layer.0.weight"] = file
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        prune(source, tmp_path / "out", sparsity=0.5)
    assert not (tmp_path / "out").exists()


def test_one_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    source = sharded(tmp_path)
    save_file(
        {f"layer.{index}.weight": torch.ones(4, 4) for index in (0, 1)}, source / "model-00002-of-00002.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"layer\.0\.weight is in .* and in"):
        prune(source, tmp_path / "out", sparsity=0.5)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    source = sharded(tmp_path)
    (source / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        prune(source, tmp_path / "out", sparsity=0.5)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "pytorch_model.bin")
    for source in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ConfigurationError, match=r"[Pp]ickled weights.*save_pretrained"):
            prune(source, tmp_path.with_name("out"), sparsity=0.5)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_eight_bits_are_refused_by_name(tmp_path: Path, kind: torch.dtype) -> None:
    weights = {"layer.weight": torch.ones(4, 4), "small.weight": torch.ones(4, 4).to(kind)}
    source = save_shards(tmp_path / "source", weights)
    with pytest.raises(ConfigurationError, match=r"small\.weight holds F8_E"):
        prune(source, tmp_path / "out", sparsity=0.5)


def test_parts_of_quantised_weights_stay_as_they_are(tmp_path: Path) -> None:
    weights = {
        "dense.weight": torch.randn(4, 4),
        "packed.qweight": torch.ones(4, 4, dtype=torch.int32),
        "packed.scales": torch.randn(4, 4, dtype=torch.float16),
        "packed.lora": torch.randn(4, 4),
    }
    source = save_shards(tmp_path / "source", weights, number=1)
    pruned = prune(source, tmp_path / "out", sparsity=0.5)
    assert [tensor.name for tensor in pruned.tensors] == ["dense.weight"]
    assert {one.stored.name: one.reason for one in pruned.left} == {
        "packed.qweight": "holds I32",
        "packed.scales": "a part of a quantised weight",
        "packed.lora": "a part of a quantised weight",
    }


def test_nothing_to_prune_says_why(tmp_path: Path) -> None:
    save_file({"norm.weight": torch.ones(4), "steps": torch.ones(2, 2, dtype=torch.int64)}, tmp_path / "w.safetensors")
    with pytest.raises(NothingToPruneError, match=r"norm\.weight \(one axis\), steps \(holds I64\)"):
        prune(tmp_path / "w.safetensors", tmp_path / "out", sparsity=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0}, "between 0 and 1"),
        ({"sparsity": 1.5}, "between 0 and 1"),
        ({"sparsity": 0.01}, "rounds to no weight at all"),
        ({"sparsity": 0.5, "structure": "4:2"}, "expected unstructured, or N:M"),
        ({"sparsity": 0.5, "structure": "channels"}, "expected unstructured, or N:M"),
        ({"sparsity": 0.3, "structure": "2:4"}, "leaves at most 24; expected a sparsity of at least 0.5"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prune(sharded(tmp_path), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_folders_are_not_written_over(tmp_path: Path) -> None:
    source = sharded(tmp_path)
    for out, message in (
        (source, "lies in the source"),
        (source / "pruned", "lies in the source"),
        (tmp_path, "holds the source"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            prune(source, out, sparsity=0.5, overwrite=True)
    out = tmp_path / "out"
    prune(source, out, sparsity=0.5)
    with pytest.raises(ConfigurationError, match="is there already"):
        prune(source, out, sparsity=0.25)
    assert prune(source, out, sparsity=0.25, overwrite=True).kept == 36
    assert json.loads((out / "gossamer-prune.json").read_text())["kept"] == 36
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
    (out / "gossamer-prune.json").unlink()
    with pytest.raises(ConfigurationError, match="was not written by gossamer prune"):
        prune(source, out, sparsity=0.5, overwrite=True)


def test_a_file_that_shrinks_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    source = sharded(tmp_path)
    shard = source / "model-00001-of-00002.safetensors"

    def cut(done: int, work: int) -> None:
        shard.write_bytes(shard.read_bytes()[:-8])

    with pytest.raises(GossamerError, match=r"ends \d+ bytes too early"):
        prune(source, tmp_path / "out", sparsity=0.5, progress=cut)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
