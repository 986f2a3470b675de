"""An ONNX network, read: its layers, activations, poolings, shapes and constants; and what the runtime's ops are."""
