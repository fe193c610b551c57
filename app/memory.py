"""How the process takes memory from the system: told to the C library before threads start."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # mallopt(3), glibc


def use_one_heap() -> None:
    """Let all threads share one heap. Does nothing where the C library is not glibc.

    By default each thread gets a heap of its own, and each keeps what the largest image it has seen
    took. Threads hardly wait for each other: images are few and large, Python has an allocator of
    its own for what is small, and ONNX Runtime its arena.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
