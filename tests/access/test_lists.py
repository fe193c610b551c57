"""The lists of users and of keys, in a setting and in a file that changes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.access.faults import AccessError
from app.access.keys import Keys, hash_of, new_key
from app.access.passwords import hashed, matches
from app.access.users import Users

PASSWORD = "correct horse battery"
HASH = hashed(PASSWORD)
OTHER = hashed("another password")
KEY = new_key()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "list"


# users


def test_a_user_is_found_by_name_and_nobody_else_is() -> None:
    users = Users(SecretStr(f"ana:{HASH}\n  ben:{OTHER}"), None)
    assert len(users) == 2
    assert users.hash_of("ana") == HASH
    assert users.hash_of("ben") == OTHER
    assert users.hash_of("Ana") is None
    assert users.hash_of("") is None


def test_setting_and_file_add_up_and_the_file_counts_where_both_name_a_user(file: Path) -> None:
    file.write_text(f"# radiology\n\nana:{OTHER}\ncleo:{HASH}\n")
    users = Users(SecretStr(f"ana:{HASH} ben:{HASH}"), file)
    assert [users.hash_of(name) for name in ("ana", "ben", "cleo")] == [OTHER, HASH, HASH]


@pytest.mark.parametrize("name", ["jürgen", "田中", "o'neill@example.org", "x" * 64])
def test_names_are_of_any_script_and_up_to_64_characters(file: Path, name: str) -> None:
    file.write_text(f"{name}:{HASH}\n", encoding="utf-8")
    assert Users(None, file).hash_of(name) == HASH


def test_a_name_written_in_two_ways_is_one_name(file: Path) -> None:
    file.write_text(f"ju\u0308rgen:{HASH}\n", encoding="utf-8")
    assert Users(None, file).hash_of("j\u00fcrgen") == HASH


BROKEN = {
    "no hash": "ana",
    "empty hash": "ana:",
    "plain password": "ana:SECRETpassword",
    "no name": f":{HASH}",
    "white space in the name": f"ana SECRET:{HASH}",
    "too long a name": f"{'x' * 65}:{HASH}",
    "another kind of Argon2": f"ana:{HASH.replace('argon2id', 'argon2i')}",
    "too little memory": f"ana:{HASH.replace('m=19456', 'm=7')}",
    "more memory than there is": f"ana:{HASH.replace('m=19456', 'm=99999999')}",
    "no pass": f"ana:{HASH.replace('t=2', 't=0')}",
    "no lane": f"ana:{HASH.replace('p=1', 'p=0')}",
    "negative costs": f"ana:{HASH.replace('m=19456', 'm=-19456')}",
    "no salt": f"ana:$argon2id$v=19$m=19456,t=2,p=1$${HASH.rpartition('$')[2]}",
    "cut short": f"ana:{HASH[:-30]}",
    "not base64": f"ana:{HASH[:-5]}!SECR",
    "bcrypt": "ana:$2b$12$SECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRET",
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_line_refuses_the_start_and_is_told_by_its_number_only(
    file: Path, line: str
) -> None:
    file.write_text(f"ben:{OTHER}\n\n{line}\n")
    with pytest.raises(AccessError, match="MAMMOSEQ_USERS_FILE: line 3 ") as refused:
        Users(None, file)
    assert "SECRET" not in str(refused.value)
    assert "ana" not in str(refused.value)


def test_a_broken_setting_refuses_the_start_and_is_not_quoted() -> None:
    with pytest.raises(AccessError, match="MAMMOSEQ_USERS: entry 2 ") as refused:
        Users(SecretStr(f"ana:{HASH} SECRET"), None)
    assert "SECRET" not in str(refused.value)


def test_a_file_that_cannot_be_read_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="MAMMOSEQ_USERS_FILE"):
        Users(None, tmp_path)  # a folder


def test_a_file_of_another_system_is_read(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + f"ana:{HASH}\r\nben:{OTHER}\r\n".encode())
    users = Users(None, file)
    assert (users.hash_of("ana"), users.hash_of("ben")) == (HASH, OTHER)


# a file that changes


def rewritten_with_its_old_date(file: Path, text: str) -> None:
    """As tools do that copy dates along; nor do keys or hashes change the size."""
    before = file.stat() if file.exists() else None
    file.write_text(text)
    if before is not None:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewritten_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def replaced(file: Path, text: str) -> None:
    other = file.with_name("new")
    other.write_text(text)
    other.replace(file)


def swapped_as_kubernetes_does(file: Path, text: str) -> None:
    folder = file.with_name(f"..{os.urandom(4).hex()}")
    folder.mkdir()
    (folder / "list").write_text(text)
    link = file.with_name("..tmp")
    link.symlink_to(folder / "list")
    link.replace(file)


@pytest.mark.parametrize(
    "change",
    [rewritten_in_place, rewritten_with_its_old_date, replaced, swapped_as_kubernetes_does],
    ids=lambda f: f.__name__,
)
def test_a_changed_file_holds_at_once(file: Path, change: Callable[[Path, str], None]) -> None:
    change(file, f"ana:{HASH}\nben:{HASH}\n")
    users = Users(None, file)
    change(file, f"cla:{HASH}\nben:{OTHER}\n")  # as long
    assert users.hash_of("ana") is None
    assert users.hash_of("ben") == OTHER


def test_a_file_that_changes_twice_at_one_time_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system may tick every few milliseconds only."""
    stat = Path.stat

    def of_one_time(path: Path, **options: bool) -> os.stat_result:
        status = stat(path, **options)
        return os.stat_result(status, {"st_ctime_ns": changed, "st_mtime_ns": changed})

    file.write_text(f"ana:{HASH}\n")
    changed = stat(file).st_ctime_ns
    monkeypatch.setattr(Path, "stat", of_one_time)
    users = Users(None, file)
    file.write_text(f"ben:{HASH}\n")
    time.sleep(0.11)
    assert users.hash_of("ana") is None
    assert users.hash_of("ben") == HASH


def test_a_file_may_come_later(file: Path) -> None:
    users = Users(None, file)
    assert len(users) == 0
    file.write_text(f"ana:{HASH}\n")
    assert users.hash_of("ana") == HASH


def test_a_line_that_breaks_later_is_left_out_and_told_once_by_its_number(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(f"ana:{HASH}\nben:{HASH}\ncleo:{HASH}\n")
    users = Users(None, file)
    file.write_text(f"ana:{HASH}\nben:SECRET\n")
    with caplog.at_level(logging.INFO):
        found = [users.hash_of(name) for name in ("ana", "ben", "cleo")]
    assert found == [HASH, None, None]
    assert [record.getMessage() for record in caplog.records] == [
        "MAMMOSEQ_USERS_FILE: left out line 2"
    ]


def test_while_a_file_is_gone_what_it_held_last_holds_and_that_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(f"ana:{HASH}\n")
    users = Users(None, file)
    file.unlink()
    with caplog.at_level(logging.INFO):
        assert users.hash_of("ana") == HASH
        assert users.hash_of("ana") == HASH
    assert len(caplog.records) == 1
    file.write_text(f"ben:{HASH}\n")
    assert users.hash_of("ana") is None
    assert users.hash_of("ben") == HASH


# keys


def holder(keys: Keys, key: str) -> str | None:
    who = keys.holder_of(key)
    return who.name if who is not None else None


def test_keys_are_made_of_32_random_bytes_and_look_like_ours() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("mammoseq_") and len(key) >= 9 + 43 for key in made)


def test_a_name_may_have_several_keys_so_that_they_can_be_changed_over(file: Path) -> None:
    new = new_key()
    file.write_text(f"pacs:{hash_of(KEY)}\n")
    keys = Keys(None, file)
    assert (holder(keys, KEY), holder(keys, new)) == ("pacs", None)
    file.write_text(f"pacs:{hash_of(KEY)}\npacs:{hash_of(new)}\n")
    assert (holder(keys, KEY), holder(keys, new)) == ("pacs", "pacs")
    file.write_text(f"pacs:{hash_of(new)}\n")
    assert (holder(keys, KEY), holder(keys, new)) == (None, "pacs")


def test_the_hash_of_a_key_is_no_key() -> None:
    keys = Keys(SecretStr(f"pacs:{hash_of(KEY)}"), None)
    assert holder(keys, hash_of(KEY)) is None
    assert holder(keys, "") is None


@pytest.mark.parametrize(
    "value",
    [KEY, hash_of(KEY)[:-1], hash_of(KEY).upper(), ""],
    ids=["key", "cut short", "upper case", "nothing"],
)
def test_a_key_in_the_list_in_place_of_its_hash_refuses_the_start(value: str) -> None:
    with pytest.raises(AccessError, match="MAMMOSEQ_API_KEYS: entry 1 ") as refused:
        Keys(SecretStr(f"pacs:{value}"), None)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "scopes"),
    [("", {"predict", "read"}), (":read", {"read"}), (":predict,read", {"predict", "read"})],
)
def test_a_key_is_good_for_everything_unless_its_line_says_for_what(
    words: str, scopes: set[str]
) -> None:
    who = Keys(SecretStr(f"pacs:{hash_of(KEY)}{words}"), None).holder_of(KEY)
    assert who is not None
    assert (who.name, who.scopes) == ("pacs", scopes)


@pytest.mark.parametrize("words", [":", ":write", ":read,", ":read write", ":read,write"])
def test_a_scope_that_there_is_not_refuses_the_start(words: str, file: Path) -> None:
    file.write_text(f"pacs:{hash_of(KEY)}{words}\n")
    with pytest.raises(AccessError, match="MAMMOSEQ_API_KEYS_FILE: line 1 "):
        Keys(None, file)


# passwords


@pytest.mark.parametrize("password", ["pässwörter überall", "密码密码密码密码密码密码", "a\0b" * 9])
def test_a_password_may_hold_any_character(password: str) -> None:
    made = hashed(password)
    assert matches(made, password)
    assert not matches(made, password + " ")


def test_a_password_matches_however_a_keyboard_writes_it() -> None:
    assert matches(hashed("pa\u0308sswort, lang genug"), "p\u00e4sswort, lang genug")


def test_hashes_are_as_strong_as_owasp_recommends() -> None:
    assert HASH.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hashed(PASSWORD) != HASH  # salted
