"""Training: manifest -> tensors -> Keras hybrid -> run folder (weights, metrics, plots)."""
