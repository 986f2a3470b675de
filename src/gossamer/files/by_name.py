"""What the tensors of a file are if nobody knows the network: told by their names and shapes."""

import re
from collections.abc import Iterable

from gossamer.files.candidates import Candidate, Standing
from gossamer.files.stored import Stored

TABLE = re.compile(r"embed(ding)?s?$|_emb$|_embeddings?$|^emb$|^embed_|^wte$|^wpe$|^shared$|_token$|bias_table$")
"""Names of layers (and of parameters that no layer has) that hold one row for each token or position."""
OUTPUT = re.compile(
    r"(.*\.)?(lm_head|embed_out|qa_outputs|proj_out|predictions\.decoder)|head|heads\.head|head\.fc|fc|classifier|"
    r"classifier\.out_proj|output|score|logits"
)
"""Whole names of layers that return the network's result."""
NORMALISATION = re.compile(r"norm\d*$|^ln_|_ln$|^bn\d*$")
SCALES = re.compile(r"(scales?|zeros?|absmax|quant_map|scale_inv|zero_points?)$")
"""What belongs to numbers that stand for others."""
PACKED = ("qweight", "weight_packed", "qzeros", "SCB", "weight.absmax", "weight_scale", "weight.quant_map")


def judged_by_name(tensors: Iterable[Stored]) -> list[Candidate]:
    """Candidates in the order of their names, so that no way to cut a network into files changes which of several equal
    weights are kept."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    quantised = {tensor.name.removesuffix(end) for tensor in ordered for end in PACKED if tensor.name.endswith(end)}
    return [_judged(tensor, quantised) for tensor in ordered]


def _judged(tensor: Stored, quantised: set[str]) -> Candidate:
    standing, reason = _standing(tensor, quantised)
    stacked = len(tensor.shape) == 3 and not tensor.name.endswith(".weight")
    return Candidate(tensor, standing, reason, inputs_axis=None if stacked or len(tensor.shape) < 2 else 1)


def _standing(tensor: Stored, quantised: set[str]) -> tuple[Standing, str]:
    never = why_never(tensor)
    layer, _, own = tensor.name.rpartition(".")
    last = layer.rpartition(".")[2] if own == "weight" else own
    if never is not None:
        return "never", never
    if f"{layer}." in quantised or SCALES.search(own):
        return "never", "a part of a quantised weight"
    if own == "bias" or own.endswith("_bias"):
        return "never", "a bias"
    if NORMALISATION.search(last.lower()):
        return "never", "a normalisation, by its name"
    if len(tensor.shape) < 4 and TABLE.search(last.lower()):
        return "table", "an embedding, by its name (--include takes it)"
    if own == "weight" and OUTPUT.fullmatch(layer):
        return "own", "the output layer, by its name (--include takes it)"
    return "weight", ""


def why_never(tensor: Stored) -> str | None:
    """Why the tensor cannot hold weights that are pruned, whatever the network is; None if it can."""
    if tensor.kind in ("BOOL", "C64") or tensor.kind.startswith(("I", "U")):
        return f"holds {tensor.kind}"
    if tensor.size == 0:
        return "no numbers"
    if len(tensor.shape) < 2:
        return "a single number" if not tensor.shape else "one axis"
    return None
