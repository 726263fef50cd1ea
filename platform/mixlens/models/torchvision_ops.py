"""Lets torchvision be imported where its compiled operators cannot be loaded.

The image processors of most families come from torchvision when it is installed, those of Molmo2
and all video processors only from there. PyPI has torchvision built for CUDA alone: beside a
CPU-only torch its compiled library finds no CUDA runtime and is left out with a warning at most,
and then `import torchvision` fails all the same, because it describes the results of two operators
(`nms` and `qnms`) that only this library would have declared. Image processing uses neither, nor
any other compiled operator of torchvision. So a declaration without an implementation is enough:
the import works, resizing and normalising work, and a call of `nms` still fails with torch's own
message that there is no implementation.
"""

import functools
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch

UNCONDITIONALLY_DESCRIBED = ("nms", "qnms")
ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def make_torchvision_importable() -> None:
    """Declare what `import torchvision` needs, where its compiled library cannot be loaded.

    To be called before any model or processor class of transformers is imported: with torchvision
    installed, all of them import it. Does nothing where torchvision is absent or its library loads.
    Neither imports torchvision nor takes more than milliseconds; further calls are free.
    """
    found = find_spec("torchvision")
    if found is None or _compiled_library_loads(found.submodule_search_locations or ()):
        return
    for name in UNCONDITIONALLY_DESCRIBED:
        if not hasattr(torch.ops.torchvision, name):
            _library().define(name + ARGUMENTS)


def _compiled_library_loads(folders: Iterable[str]) -> bool:
    """Whether torch can load torchvision's operators; loading is what torchvision itself does.

    The library is `_C` up to torchvision 0.28 and `_C_stable` from 0.29 on. One that is overlooked
    would be loaded after our declarations, and a second declaration ends the process.
    """
    files = (path for folder in folders for path in Path(folder).glob("_C*"))
    library = next((path for path in files if path.name.endswith(tuple(EXTENSION_SUFFIXES))), None)
    if library is None:
        return False
    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


@functools.cache
def _library() -> torch.library.Library:
    """The declarations; they vanish with this object, hence one that is kept."""
    return torch.library.Library("torchvision", "FRAGMENT")
