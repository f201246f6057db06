"""``python -m s4raw``."""

from s4raw.cli import run

if __name__ == "__main__":
    run()
