"""What was seen before: the values used last, within a limit."""

from __future__ import annotations

from app.inference.remembered import Remembered


def known(memory: Remembered[bytes], keys: str) -> str:
    return "".join(key for key in keys if memory.get(key) is not None)


def test_value_is_found_again() -> None:
    memory: Remembered[bytes] = Remembered(100, len)
    assert memory.get("a") is None
    memory.put("a", b"value")
    assert memory.get("a") == b"value"


def test_what_was_not_used_for_the_longest_time_is_forgotten_first() -> None:
    memory: Remembered[bytes] = Remembered(30, len)
    for key in "abc":
        memory.put(key, bytes(10))
    memory.get("a")
    memory.put("d", bytes(10))
    assert known(memory, "abcd") == "acd"


def test_large_value_makes_room_for_itself_and_one_too_large_changes_nothing() -> None:
    memory: Remembered[bytes] = Remembered(30, len)
    for key in "abc":
        memory.put(key, bytes(10))
    memory.put("too large", bytes(31))
    assert known(memory, "abc") == "abc"
    memory.put("large", bytes(20))
    assert known(memory, "abc") == "c"


def test_putting_the_same_again_costs_no_room() -> None:
    memory: Remembered[bytes] = Remembered(20, len)
    memory.put("a", bytes(10))
    for _ in range(5):
        memory.put("b", bytes(10))
    assert known(memory, "ab") == "ab"


def test_memory_of_nothing_remembers_nothing() -> None:
    memory: Remembered[bytes] = Remembered(0, len)
    memory.put("a", b"x")
    assert memory.get("a") is None
