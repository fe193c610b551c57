"""The Keras models: encoders (`paper`, `efficientnet_lite0`), the hybrid, and its baselines."""
