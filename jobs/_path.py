"""Make `mixlens` importable from a plain checkout, here and in every Ray process.

`ray job submit --working-dir .` ships the repository but installs nothing: the driver gets the
source root on its path, and Ray workers get it as a `py_modules` entry (sweep/driver.py).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "platform"))
