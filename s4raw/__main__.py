"""``python -m s4raw``."""

import sys

from s4raw.cli import main

if __name__ == "__main__":
    sys.exit(main())
