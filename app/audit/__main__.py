"""``python -m app.audit verify FILE...``: whether audit logs are as they were written.

Several files are one log that was rotated, the oldest first. Prints for each file how many lines it
has and the hash of its last one. A chain cannot tell that lines are missing at its end: compare the
last hash with one that was noted elsewhere, or give an earlier one with --holds. Exit status 1: not
as it was written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.audit.verify import BrokenChainError, verified


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m app.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verify", choices=("verify",))
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("--holds", metavar="HASH", help="of a line that must be there")
    arguments = parser.parse_args()
    last: str | None = None
    met = arguments.holds is None
    for place, file in enumerate(arguments.files):
        try:
            with file.open("rb") as lines:
                log = verified(lines, look_for=arguments.holds)
            if place and log.lines and log.follows != last:
                raise BrokenChainError("line 1 does not follow the file before")
        except (BrokenChainError, OSError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            return 1
        print(f"{file}: {log.lines} lines, from {log.follows or 'nothing'} to {log.last}")
        # One that was emptied, and not written to since, has no line that could follow
        last, met = log.last or last, met or log.met
    if not met:
        print(f"no line has the hash {arguments.holds}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
