"""`python -m segkit` is the `segkit` command."""

import sys

from segkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
