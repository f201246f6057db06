"""The benchmark: s4raw and its rivals in turn, in one run. ``python -m bench --help``."""
