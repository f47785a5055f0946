"""``python -m bimo``: the same command line as ``bimo``."""

from bimo.cli import main

if __name__ == "__main__":
    main()
