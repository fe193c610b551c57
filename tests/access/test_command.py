"""``python -m app.access``: lines for the lists, made where the lists are kept."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from app.access.keys import Keys
from app.access.passwords import matches
from app.access.users import Users
from app.access.who import Scope, Who
from tests.serving import REPOSITORY


def ran(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.access", *arguments],
        cwd=REPOSITORY, input=given, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_a_line_for_a_user_is_made_from_a_password_on_stdin(tmp_path: Path) -> None:
    made = ran("user", "ana", given="correct hörse battery\n")
    assert made.returncode == 0
    (tmp_path / "users").write_text(made.stdout)
    kept = Users(None, tmp_path / "users").hash_of("ana")
    assert kept is not None
    assert matches(kept, "correct hörse battery")
    assert "battery" not in made.stdout + made.stderr


def test_at_a_terminal_the_password_is_asked_twice_until_both_agree() -> None:
    own, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.access", "user", "ana"],
        cwd=REPOSITORY, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    assert process.stdout is not None
    assert process.stderr is not None
    told = ""
    for line in ("correct horse battery", "correct horse batery", *["correct horse battery"] * 2):
        while not told.endswith(": "):  # what is typed before it asks is dropped
            told += process.stderr.read(1).decode()
        os.write(own, f"{line}\n".encode())
        told += process.stderr.read(1).decode()
    told += process.stderr.read().decode()
    printed = process.stdout.read().decode()
    assert process.wait(30) == 0, told
    os.close(own)
    assert matches(printed.strip().partition(":")[2], "correct horse battery")
    assert "not the same" in told
    assert "battery" not in told + printed


@pytest.mark.parametrize("password", ["", "elevenchars", "x" * 1025])
def test_a_password_that_is_too_short_or_too_long_makes_no_line(password: str) -> None:
    made = ran("user", "ana", given=f"{password}\n")
    assert made.returncode == 1
    assert made.stdout == ""
    assert "at least 12" in made.stderr


@pytest.mark.parametrize("name", ["", "a b", "a:b", "#a", "x" * 65, "a\tb"])
def test_a_name_that_the_list_could_not_hold_makes_no_line(name: str) -> None:
    made = ran("user", name, given="correct horse battery\n")
    assert made.returncode == 2
    assert made.stdout == ""


def test_a_key_is_shown_once_and_its_line_is_alone_on_stdout(tmp_path: Path) -> None:
    made = ran("key", "pacs")
    assert made.returncode == 0
    (key,) = [word for word in made.stderr.split() if word.startswith("mammoseq_")]
    assert key not in made.stdout
    (tmp_path / "keys").write_text(made.stdout)
    assert Keys(None, tmp_path / "keys").holder_of(key) == Who("pacs", "key")


def test_a_key_may_be_made_for_some_of_what_there_is_only(tmp_path: Path) -> None:
    made = ran("key", "monitor", "--scopes", "read")
    (key,) = [word for word in made.stderr.split() if word.startswith("mammoseq_")]
    (tmp_path / "keys").write_text(made.stdout)
    scopes: frozenset[Scope] = frozenset({"read"})
    assert Keys(None, tmp_path / "keys").holder_of(key) == Who("monitor", "key", scopes)
    assert ran("key", "monitor", "--scopes", "write").returncode == 2
    assert ran("user", "ana", "--scopes", "read").returncode == 2
