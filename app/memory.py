"""How the process takes memory from the system, and gives it back: told to the C library."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # mallopt(3), glibc


def use_one_heap() -> None:
    """Let all threads share one heap; before there are any. Does nothing where the C library is
    not glibc, as ``give_back``.

    By default each thread gets a heap of its own, and each keeps what the largest image it has seen
    took. Threads hardly wait for each other: images are few and large, Python has an allocator of
    its own for what is small, and ONNX Runtime its arena.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        os.environ["MALLOC_ARENA_MAX"] = "1"  # for processes that this one starts


def give_back() -> None:
    """Return the pages that nothing uses. While requests come, keeping them is faster."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
