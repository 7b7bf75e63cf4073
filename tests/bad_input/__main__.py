"""`python -m tests.bad_input` writes expected.txt anew (then read the difference); `--configs N`, `--images N` mutate."""

from __future__ import annotations

import sys

from segkit import runtime

runtime.require_paddle()

if __name__ == "__main__":
    from tests.bad_input.play import main

    sys.exit(main())
