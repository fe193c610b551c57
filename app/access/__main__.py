"""``python -m app.access user NAME``, ``key NAME``: a line for the list of users or of keys."""

from __future__ import annotations

import argparse
import sys
from getpass import getpass

from app.access.keys import hash_of, new_key
from app.access.lists import is_name, plain_name
from app.access.passwords import LONGEST, SHORTEST, hashed
from app.access.who import SCOPES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.access", description=__doc__)
    parser.add_argument("what", choices=("user", "key"))
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--scopes",
        metavar="SCOPES",
        help=f"what a key is good for, of {','.join(sorted(SCOPES))}; everything if left out",
    )
    arguments = parser.parse_args()
    scopes = arguments.scopes
    if scopes is not None and (arguments.what != "key" or not set(scopes.split(",")) <= SCOPES):
        parser.error(f"--scopes is for keys, and there are {', '.join(sorted(SCOPES))}")
    if not is_name(arguments.name):
        parser.error("a name has 1 to 64 characters, no white space, no colon, no # in front")
    name = plain_name(arguments.name)
    if arguments.what == "key":
        key = new_key()
        print(f"the key, shown only now: {key}", file=sys.stderr)
        print("the line for MAMMOSEQ_API_KEYS or its file:", file=sys.stderr)
        print(f"{name}:{hash_of(key)}{f':{scopes}' if scopes else ''}")
        return 0
    password = _asked()
    if len(password) < SHORTEST or len(password.encode()) > LONGEST:
        print(f"at least {SHORTEST} characters, at most {LONGEST} bytes", file=sys.stderr)
        return 1
    print("the line for MAMMOSEQ_USERS or its file:", file=sys.stderr)
    print(f"{name}:{hashed(password)}")
    return 0


def _asked() -> str:
    """From the keyboard, twice; else the first line of what comes in."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass()
    while password != getpass("Again: "):
        print("not the same", file=sys.stderr)
        password = getpass()
    return password


if __name__ == "__main__":
    sys.exit(main())
