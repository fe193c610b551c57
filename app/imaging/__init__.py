"""Bytes -> pixels -> tensor: one implementation for training, export and serving."""
