"""torchvision's compiled library is found under every name that it has had."""

import importlib.util
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from mixlens.models.torchvision_ops import _compiled_library_loads


@pytest.fixture
def loadable() -> Path:
    """A compiled library that loads in this process."""
    spec = importlib.util.find_spec("numpy.random._common")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@pytest.mark.case
@pytest.mark.parametrize("name", ["_C", "_C_stable"])
@pytest.mark.parametrize("end", EXTENSION_SUFFIXES)
def test_a_library_that_loads_is_found_by_any_name(
    name: str, end: str, loadable: Path, tmp_path: Path
):
    shutil.copy(loadable, tmp_path / f"{name}{end}")
    assert _compiled_library_loads([str(tmp_path)])


def test_a_library_that_does_not_load_is_none(tmp_path: Path):
    assert not _compiled_library_loads([str(tmp_path)])
    (tmp_path / "_C_stable.so").write_bytes(b"no library")
    assert not _compiled_library_loads([str(tmp_path)])
