"""`segkit data check` without installing segkit."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["data", "check", *sys.argv[1:]]))
