"""Tensors -> probabilities and maps: ONNX sessions, batching, and the series logic."""
