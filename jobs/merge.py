"""`mixlens merge` from a checkout."""

import _path  # noqa: F401  makes mixlens importable
from mixlens.cli import main

if __name__ == "__main__":
    main("merge")
