"""Export: a trained Keras hybrid -> a verified, self-describing ONNX bundle."""
