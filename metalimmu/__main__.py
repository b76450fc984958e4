"""`metalimmu` and `python -m metalimmu`."""

from __future__ import annotations

import sys


def main() -> None:
    from metalimmu.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
