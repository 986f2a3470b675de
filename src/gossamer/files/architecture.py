"""What the tensors of a Hugging Face folder are to their network: it is built without numbers, and asked.

Only classes of transformers itself are built, never code that lies in the folder.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.errors import first_line
from gossamer.files.by_name import why_never
from gossamer.files.candidates import Candidate, Standing
from gossamer.files.stored import Stored

if TYPE_CHECKING:
    from torch import nn

MOST_LAYERS = 10_000
"""A configuration that asks for more would take longer to build than to prune."""

Rename = Callable[[str], tuple[str, bool]]
"""Name in a file -> (name of the parameter that it becomes, whether as a part of it or in another form)."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the network, under all its names."""

    standing: Standing
    reason: str
    shape: tuple[int, ...]
    inputs_axis: int | None
    names: tuple[str, ...]
    position: int
    """In the network's order."""


def build(folder: Path, configuration: Mapping[str, Any]) -> "nn.Module | str":
    """The network on the meta device; or why there is none, for people."""
    if find_spec("transformers") is None:
        return "transformers is not installed (pip install 'gossamer[transformers]')"
    named = configuration.get("architectures")
    name = named[0] if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) else None
    if name is None:
        return "config.json names no architecture"
    numbers = [value for key, value in configuration.items() if "layers" in key and isinstance(value, int)]
    if max(numbers, default=0) > MOST_LAYERS:
        return f"config.json asks for {max(numbers):,} layers"
    import torch
    import transformers

    found: Any = getattr(transformers, name, None) if name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        return f"transformers has no {name}"
    architecture: Any = found
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    try:
        logging.set_verbosity_error()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = architecture.config_class.from_pretrained(folder, local_files_only=True)
            with torch.device("meta"):
                model: nn.Module = architecture(settings)
        return model
    except Exception as error:  # whatever their code raises for such a configuration
        return f"{name} cannot be built: {first_line(error)}"
    finally:
        logging.set_verbosity(verbosity)


def judged_by_model(model: "nn.Module", tensors: Iterable[Stored]) -> list[Candidate]:
    """Candidates in the network's own order, what it does not have at the end."""
    parameters, rename = _parameters(model), _renaming(model)
    unknown = len(parameters)
    found: list[tuple[tuple[int, list[Any]], Candidate]] = []
    whole: dict[int, int] = {}
    for tensor in tensors:
        name, is_part = rename(tensor.name)
        parameter = parameters.get(name)
        position = unknown if parameter is None else parameter.position
        candidate = _judged(tensor, parameter, is_part, type(model).__name__)
        if candidate.standing != "never" and not is_part:
            if position in whole:
                key, first = found[whole[position]]
                if (first.stored.shape, first.stored.kind) == (tensor.shape, tensor.kind):
                    found[whole[position]] = key, replace(first, copies=(*first.copies, tensor))
                    continue
            else:
                whole[position] = len(found)
        found.append(((position, _natural(tensor.name)), candidate))
    return [candidate for _, candidate in sorted(found, key=lambda entry: entry[0])]


def _judged(tensor: Stored, parameter: Parameter | None, is_part: bool, network: str) -> Candidate:
    never = why_never(tensor)
    if never is None and parameter is None:
        never = f"no parameter of {network}"
    if never is None and parameter is not None and not is_part and parameter.shape != tensor.shape:
        never = f"of another shape in {network}: {' x '.join(map(str, parameter.shape))}"
    if never is not None or parameter is None:
        return Candidate(tensor, "never", never or "")
    # Matrices of single experts, which the network stacks, are those of linear layers.
    axis = 1 if is_part and len(tensor.shape) == 2 else parameter.inputs_axis
    return Candidate(tensor, parameter.standing, parameter.reason, axis, parameter.names)


def _parameters(model: "nn.Module") -> dict[str, Parameter]:
    """By all names."""
    from gossamer.prune.layers import computed_tensors, has_outputs_second, kind_of
    from gossamer.prune.prunable import left_out, prunable_weights
    from gossamer.prune.scope import Scope

    computed = [
        f"{path}.{attribute}" if path else attribute
        for path, module in model.named_modules(remove_duplicate=False)
        for attribute in computed_tensors(module)
    ]
    # What a parametrization computes is not in the files.
    scope = Scope(exclude=tuple(computed))
    weights = prunable_weights(model, scope)
    prunable = {id(weight) for weight in weights.values()}
    able = {id(parameter) for parameter in left_out(model, scope, weights).values()}
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    shapes = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{path}.{attribute}" if path else attribute
                owners.setdefault(id(parameter), []).append((name, module, attribute))
                shapes[id(parameter)] = tuple(parameter.shape)
    found = {}
    for position, (identity, owned) in enumerate(owners.items()):
        _, module, attribute = owned[0]
        kind = kind_of(module, attribute)
        standing: Standing = "weight" if identity in prunable else "never"
        reason = f"a bias or normalisation of {type(module).__name__}"
        if kind == "source":
            reason = "the network computes a weight from it"
        if identity in able:
            standing = "table" if kind == "table" else "own"
            what = "an embedding" if kind == "table" else f"of {type(module).__name__}, no known layer"
            reason = f"{what} (--include takes it)"
        seconds = [has_outputs_second(module, attribute) for _, module, attribute in owned]
        axis = None if None in seconds else 0 if all(seconds) else 1
        names = tuple(name for name, _, _ in owned)
        for name in names:
            found[name] = Parameter(standing, reason, shapes[identity], axis, names, position)
    return found


def _renaming(model: "nn.Module") -> Rename:
    """As transformers renames what it reads from files."""
    names = dict(model.named_parameters(remove_duplicate=False))
    prefix = str(getattr(model, "base_model_prefix", ""))
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
    except ImportError:
        # Before version 5 files had the network's names.
        return lambda name: (_with_or_without(prefix, name, names), False)
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]

    def rename(name: str) -> tuple[str, bool]:
        if name in names:
            return name, False
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, names)
        return renamed, pattern is not None

    return rename


def _with_or_without(prefix: str, name: str, names: Mapping[str, Any]) -> str:
    changed = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
    return next((one for one in changed if one in names), name)


def _natural(name: str) -> list[Any]:
    """Orders numbers in names as numbers: experts.2 before experts.10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
