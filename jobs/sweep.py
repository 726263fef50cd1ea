"""`mixlens sweep` from a checkout, as `ray job submit --working-dir .` starts it."""

import _path  # noqa: F401  makes mixlens importable
from mixlens.cli import main

if __name__ == "__main__":
    main("sweep")
