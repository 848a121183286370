"""``python -m arcbackend``: the command ``arcbackend``."""

from __future__ import annotations

import sys

from arcbackend.cli import main

if __name__ == "__main__":
    sys.exit(main())
