"""Safetensors files, alone or as the shards of a folder."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gossamer.errors import CheckpointError, ConfigurationError
from gossamer.files.architecture import build, judged_by_model
from gossamer.files.by_name import judged_by_name
from gossamer.files.candidates import Candidate
from gossamer.files.header import read_header
from gossamer.files.source import Source
from gossamer.files.stored import Stored
from gossamer.storage.files import read_text, regular

SAFETENSORS = ".safetensors"
INDEX = ".safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHER_WEIGHTS = (*PICKLED, ".h5", ".msgpack", ".gguf", ".ggml", ".onnx", ".onnx_data", ".ot", ".tflite", SAFETENSORS)
"""Files that hold weights, beside those that are pruned; the state of an optimizer among them."""
NOT_COPIED = (".git", ".cache")
"""Folders that tools keep for themselves: git's own copies of all files, marks of downloads."""

SAVE = (
    "Save it as safetensors once, with code that you trust: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW), or "
    "safetensors.torch.save_file(state_dict, FILE)"
)


def open_file(path: Path) -> Source:
    """A single safetensors file."""
    tensors = read_header(path, path.name)
    return Source(path.parent, judged_by_name(tensors), (path.name,), known_by="their names and shapes")


def open_folder(folder: Path) -> Source:
    """A folder with safetensors files, their index, and what else belongs to the network.

    Raises:
        ConfigurationError: it holds no such files, or nobody can say which; or the weights are quantised.
        CheckpointError: a file is damaged, or the index names what is not there or lies elsewhere.
    """
    names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    index, files = _weights_of(folder, names)
    tensors = [tensor for file in files for tensor in read_header(folder / file, file)]
    _check_names(folder, tensors, index)
    others = [file for file in _all_files(folder) if file not in files]
    behind = tuple(file for file in others if file.lower().endswith(OTHER_WEIGHTS))
    candidates, known_by = _judged(folder, tensors)
    return Source(
        folder,
        candidates,
        tuple(files),
        tuple(file for file in others if file not in behind),
        tuple(file for file in behind),
        known_by,
    )


def _judged(folder: Path, tensors: list[Stored]) -> tuple[list[Candidate], str]:
    by_name = "their names and shapes"
    if not (folder / "config.json").is_file():
        return judged_by_name(tensors), by_name
    configuration = _read_json(folder / "config.json")
    quantised = configuration.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise ConfigurationError(
            f"{folder} is quantised ({method or 'by its quantization_config'}): what its tensors hold stands for other "
            f"numbers; expected floating-point weights. Prune the network that it was made from, and quantise what "
            f"comes out"
        )
    model = build(folder, configuration)
    if isinstance(model, str):
        return judged_by_name(tensors), f"{by_name}: {model}"
    return judged_by_model(model, tensors), f"the layers of {type(model).__name__}"


def _weights_of(folder: Path, names: list[str]) -> tuple[dict[str, str] | None, list[str]]:
    """The index, if there is one, and the files of weights."""
    found = [name for name in names if name.endswith(SAFETENSORS)]
    indices = [name for name in names if name.endswith(INDEX)]
    if "model.safetensors" in found:
        # What transformers takes first.
        return None, ["model.safetensors"]
    if len(indices) == 1:
        index = _read_index(folder / indices[0])
        return index, list(dict.fromkeys(index.values()))
    if len(found) == 1 and not indices:
        return None, found
    if len(found) > 1 or indices:
        raise ConfigurationError(
            f"{folder} holds {', '.join(indices or found)}; expected one file of weights, or one index "
            f"(model.safetensors.index.json). Name one of the files, or keep one network in a folder"
        )
    pickled = [name for name in names if name.endswith(PICKLED)]
    if pickled:
        raise ConfigurationError(
            f"{folder} holds pickled weights ({pickled[0]}), which run code when they are read; expected safetensors. "
            f"{SAVE}"
        )
    inner = dict.fromkeys(sorted(path.parent.name for path in folder.glob(f"*/*{SAFETENSORS}")))
    onnx = [name for name in names if name.endswith(".onnx")]
    named = f"Name one of its folders: {', '.join(inner)}" if inner else f"Name the file: {onnx[0]}" if onnx else SAVE
    raise ConfigurationError(f"{folder} holds no safetensors file; expected weights, with an index if many. {named}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path, links=True))
        if not isinstance(found, dict):
            raise ValueError("it is no table")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; expected it as it was written") from error
    return found


def _read_index(path: Path) -> dict[str, str]:
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map; expected the file of each tensor")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(SAFETENSORS) or "\\" in file:
            raise CheckpointError(
                f"{path} says that {name} is in {file!r}; expected the name of a {SAFETENSORS} file beside it"
            )
    return weight_map


def _check_names(folder: Path, tensors: Iterable[Stored], index: dict[str, str] | None) -> None:
    """Each name stands for one tensor, in the file that the index says."""
    found: dict[str, str] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise CheckpointError(f"{tensor.name} is in {found[tensor.name]} and in {tensor.file}; expected it once")
        found[tensor.name] = tensor.file
    for name, file in (index or {}).items():
        if found.get(name) != file:
            raise CheckpointError(
                f"the index of {folder} says that {name} is in {file}, and it is in {found.get(name, 'no file')}; "
                f"expected an index of these files"
            )


def _all_files(folder: Path) -> Iterator[str]:
    """Files in the folder and below, folders of tools left out. Links to files are followed as far as they lead to
    files of the folder, or of the cache of Hugging Face that it is a part of: elsewhere, anything may lie."""
    places = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        places.append(folder.resolve().parents[1] / "blobs")
    for path, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if name not in NOT_COPIED and not (Path(path) / name).is_symlink())
        for name in sorted(names):
            file = Path(path) / name
            try:
                regular(file, links=True)
            except OSError as error:
                raise CheckpointError(f"{file} cannot be copied: {error}; remove it, or mend it") from error
            to = file.resolve()
            if file.is_symlink() and not name.endswith(SAFETENSORS) and not any(map(to.is_relative_to, places)):
                raise ConfigurationError(
                    f"{file} is a link to {to}, outside of the folder; expected files. Remove the link, or put the "
                    f"file in its place"
                )
            yield str(file.relative_to(folder))
