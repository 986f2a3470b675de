"""Files of examples that ranges come from, well-meant and hostile."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export.onnx_graphs import network
from onnx import helper

from gossamer.errors import ConfigurationError
from gossamer.export.range_inputs import BATCH, RangeInputs, read_range_inputs

node = helper.make_node
X = np.arange(100 * 3, dtype=np.float32).reshape(100, 3)


def model(**inputs: list[int | str]) -> onnx.ModelProto:
    names = list(inputs)
    return network([node("Sum", names, ["y"])], inputs, {}, ["y"])


ONE, TWO = model(x=["n", 3]), model(x=["n", 3], z=["n", 3])


def together(found: RangeInputs, name: str = "x") -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(feed[name]) for feed in found.feeds])


def test_a_file_is_read_in_batches(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "e.npz", x=X.astype(np.float64))
    found = read_range_inputs(ONE, tmp_path / "e.npz")
    assert [len(feed["x"]) for feed in found.feeds] == [BATCH] * 6 + [100 - 6 * BATCH]
    assert together(found).dtype == np.float32
    np.testing.assert_array_equal(together(found), X)
    assert found.words == f"100 examples of {tmp_path / 'e.npz'}"
    np.save(tmp_path / "e.npy", X)
    np.testing.assert_array_equal(together(read_range_inputs(ONE, tmp_path / "e.npy")), X)


def test_the_first_of_them(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", X)
    found = read_range_inputs(ONE, tmp_path / "e.npy")
    assert found.first(100) is found
    some = found.first(BATCH + 1)
    np.testing.assert_array_equal(together(some), X[: 2 * BATCH])
    assert some.words == f"the first {2 * BATCH} of 100 examples of {tmp_path / 'e.npy'}"


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=X[60:])
    np.save(tmp_path / "a.npy", X[:60])
    (tmp_path / "notes.txt").write_text("not read")
    np.testing.assert_array_equal(together(read_range_inputs(ONE, tmp_path)), X)


def test_a_file_for_each_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "z.npy", -X)
    found = read_range_inputs(TWO, tmp_path)
    np.testing.assert_array_equal(together(found, "z"), -X)
    (tmp_path / "z.npy").unlink()
    with pytest.raises(ConfigurationError, match=r"holds x\.npy; expected .* x\.npy, z\.npy"):
        read_range_inputs(TWO, tmp_path)


def test_inputs_that_count_something_else_are_given_whole(tmp_path: Path) -> None:
    towers = model(x=["users", 3], z=["items", 3])
    np.savez(tmp_path / "e.npz", x=X, z=X[:40])
    (feed,) = read_range_inputs(towers, tmp_path / "e.npz").feeds
    assert (len(feed["x"]), len(feed["z"])) == (100, 40)
    fixed = model(x=[8, 3], z=[1])
    np.savez(tmp_path / "e.npz", x=X, z=np.ones(1, np.float32))
    feeds = read_range_inputs(fixed, tmp_path / "e.npz").feeds
    assert [(len(feed["x"]), len(feed["z"])) for feed in feeds] == [(8, 1)] * 12


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": X}, r"holds the arrays w; expected the network's inputs, as numpy.savez\(FILE, x=ARRAY\)"),
        ({"x": X, "z": X}, "holds the arrays x, z"),
        ({}, "holds the arrays none"),
        ({"x": X[:, :2]}, r"has the shape \[16, 2\]; expected that of x \(float \[n, 3\]\)"),
        ({"x": X[0]}, r"has the shape \[3\]"),
        ({"x": X[:0]}, "holds 0 examples; expected at least 1"),
        ({"x": np.array(1.0)}, r"has the shape \[\]"),
        ({"x": X.astype(complex)}, "is of type complex128"),
        ({"x": np.array([["a", "b", "c"]])}, "is of type <U1"),
        ({"x": np.where(X == 7, np.nan, X)}, "the input x holds infinities or NaN"),
        ({"x": np.where(X == 7, -np.inf, X)}, "the input x holds infinities or NaN"),
        ({"x": np.array([[1e300, 0, 0]])}, "holds numbers beyond the range of float32"),
        ({"x": np.array([[{}, 1, 2]], dtype=object)}, "cannot be read .*; expected arrays of numbers"),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", allow_pickle=True, **arrays)
    with pytest.raises(ConfigurationError, match=message):
        read_range_inputs(ONE, tmp_path / "e.npz")


def test_as_many_of_each_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", x=X, z=X[:10])
    with pytest.raises(ConfigurationError, match="different numbers of examples: 100 of x, 10 of z"):
        read_range_inputs(TWO, tmp_path / "e.npz")
    np.save(tmp_path / "e.npy", X)
    with pytest.raises(ConfigurationError, match="holds one array, and the network has 2 inputs"):
        read_range_inputs(TWO, tmp_path / "e.npy")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        read_range_inputs(ONE, tmp_path / "none.npz")
    with pytest.raises(ConfigurationError, match=r"is no \.npz or \.npy file"):
        read_range_inputs(ONE, tmp_path / "none.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"holds no \.npz or \.npy file"):
        read_range_inputs(ONE, tmp_path / "folder")
    whole = io.BytesIO()
    np.savez(whole, x=X)
    for damaged in (b"", b"PK", whole.getvalue()[:200], whole.getvalue()[:-30], b"\x93NUMPY"):
        (tmp_path / "e.npz").write_bytes(damaged)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_range_inputs(ONE, tmp_path / "e.npz")
    np.save(tmp_path / "e.npy", X)
    (tmp_path / "e.npy").rename(tmp_path / "e.npz")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_range_inputs(ONE, tmp_path / "e.npz")


def test_arrays_of_more_bytes_than_any_example_has(tmp_path: Path) -> None:
    """A header alone can ask for them, and so can what is packed."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 3)})
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_range_inputs(ONE, tmp_path / "e.npz")
    entry = zipfile.ZipInfo("x.npy")
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr(entry, header.getvalue())
    data = bytearray((tmp_path / "e.npz").read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "e.npz").write_bytes(bytes(data))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_range_inputs(ONE, tmp_path / "e.npz")
