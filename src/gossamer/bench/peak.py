"""The multiply-add rate that the processor reaches at best, measured."""

from typing import cast

import gossamer_runtime
import numpy as np
from onnx import TensorProto, helper

from gossamer.graph.ops import DOMAIN, DOMAIN_VERSION


def multiply_adds_per_second(threads: int = 1) -> float:
    """The peak of `threads` threads: that of one, measured in registers by the runtime's library,
    times their number.

    Raises:
        NativeLibraryMissing: gossamer-runtime has no native part.
    """
    graph = helper.make_graph(
        [helper.make_node("Peak", ["anything"], ["rate"], domain=DOMAIN)],
        "peak",
        [helper.make_tensor_value_info("anything", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("rate", TensorProto.FLOAT, [1])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = gossamer_runtime.Session(model.SerializeToString(), threads=1)
    return threads * cast(float, session.run(None, {"anything": np.zeros(1, np.float32)})[0].item())
