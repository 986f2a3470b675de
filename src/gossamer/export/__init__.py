"""A pruned network as an ONNX file that runs faster the more zeros it has (docs/to-the-device.md)."""
