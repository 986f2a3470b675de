"""What a file says of itself to whoever opens it without gossamer: what it is, and what runs it."""

from collections.abc import Mapping
from importlib.metadata import version

import onnx

from gossamer.graph.messages import copied, replace_items

PRODUCER = "gossamer"
RUNTIME = "gossamer-runtime"
SOURCE = "gossamer.source"
"""Key of a file's metadata: what made the network that it was written from."""
NEEDS = "gossamer.needs"
"""What has to be installed to run it."""
STORED = "Weights are stored without their zeros."
STORED_INT8 = "Its layers compute in int8, quantised after training (QuantizeLinear and DequantizeLinear)."


def with_provenance(
    model: onnx.ModelProto, *, sparse_ops: bool, stored: str = STORED, facts: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The same network, which says what wrote it, from what, and what it needs; its own words stay.

    Args:
        sparse_ops: whether it has ops of gossamer's domain.
        stored: how its weights are, in a sentence.
        facts: what its metadata say besides.
    """
    result = copied(model)
    before = " ".join(filter(None, (model.producer_name, model.producer_version)))
    result.producer_name, result.producer_version = PRODUCER, version(PRODUCER)
    result.doc_string = "\n\n".join(filter(None, (_words(sparse_ops, stored), model.doc_string)))
    told = {**({SOURCE: before} if before else {}), **(facts or {})}
    if sparse_ops:
        told[NEEDS] = f"{RUNTIME} {version(RUNTIME)}"
    kept = [entry for entry in model.metadata_props if entry.key not in (SOURCE, NEEDS)]
    replace_items(result.metadata_props, kept)
    return with_facts(result, told)


def with_facts(model: onnx.ModelProto, facts: Mapping[str, str]) -> onnx.ModelProto:
    """The same network, whose metadata say these things."""
    result = copied(model)
    replace_items(result.metadata_props, [entry for entry in model.metadata_props if entry.key not in facts])
    for key, value in facts.items():
        result.metadata_props.add(key=key, value=value)
    return result


def _words(sparse_ops: bool, stored: str) -> str:
    if not sparse_ops:
        return f"A pruned network, written by {PRODUCER}. {stored} Any ONNX runtime of this opset runs it."
    return (
        f"A pruned network, written by {PRODUCER}. {stored} Its nodes of the domain 'gossamer' are sparse ops for ONNX "
        f"Runtime, which {RUNTIME} adds: it stands beside {PRODUCER} (folder runtime, pip install ./runtime, or its "
        f"wheel) and needs no torch. Then: gossamer_runtime.Session('model.onnx'), or: gossamer-run model.onnx. For "
        f"other runtimes: gossamer export --dense."
    )
