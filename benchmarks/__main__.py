"""`python -m benchmarks` lists the tables; `python -m benchmarks NAME [flags]` prints one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.harness import describe

FOLDER = Path(__file__).parent


def tables() -> dict[str, str]:
    """Name of every table and the first line of its file's docstring. A `*_peer.py` runs elsewhere and is no table."""
    own = {"__init__", "__main__", "harness"}
    files = sorted(path for path in FOLDER.glob("*.py") if path.stem not in own and not path.stem.endswith("_peer"))
    return {path.stem: describe(path) for path in files}


def main(argv: list[str]) -> int:
    """Run one table with its flags, or list them all."""
    found = tables()
    name = argv[0] if argv else ""
    if name in found:
        sys.argv = [f"python -m benchmarks {name}", *argv[1:]]
        importlib.import_module(f"benchmarks.{name}").main()
        return 0
    print("python -m benchmarks NAME [flags]; NAME --help tells the flags. The tables:")
    print("\n".join(f"  {known:16} {line}" for known, line in found.items()))
    if name in ("", "-h", "--help"):
        return 0
    print(f"benchmarks: there is no table {name!r}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
