"""Whether all nodes of a cluster see one folder: asked before anything is written to it in vain.

A file is written here that each node must read, and each node writes one that must be read here.
Imports little, because every node runs `see` in a fresh process.
"""

import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mixlens.errors import ResourceError, explain

_PATIENCE_S = 10.0  # a network file system may show a new file late
_PAUSE_S = 0.2


@contextmanager
def seen_by(folder: Path) -> Iterator[Path]:
    """A file in `folder` to be seen by others; it and their answers are removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f"seen-{uuid.uuid4().hex[:12]}"
    token.write_text(socket.gethostname())
    try:
        yield token
    finally:
        for file in folder.glob(f"{token.name}*"):
            file.unlink(missing_ok=True)


def see(token: str, answer: str) -> str:
    """What keeps this node from sharing the folder of `token`; empty if nothing does.

    Leaves a file beside it whose name ends in `answer`.
    """
    if problem := check_visible(Path(token)):
        return problem
    try:
        Path(f"{token}-{answer}").touch()
    except OSError as error:
        return f"it cannot write there ({error.strerror})"
    return ""


def check_visible(file: Path, answer: str = "") -> str:
    """That `file`, or the answer of a node to it, does not appear here; empty if it does."""
    path = Path(f"{file}-{answer}") if answer else file
    end = time.monotonic() + _PATIENCE_S
    while not path.is_file():
        if time.monotonic() > end:
            place = "the driver's node" if answer else socket.gethostname()
            return f"{path.name} is not there as {place} sees it"
        time.sleep(_PAUSE_S)
    return ""


def not_shared_by(folder: Path, problems: Sequence[str]) -> ResourceError:
    """What to tell of nodes that do not share `folder`."""
    return ResourceError(
        explain(
            "runs_dir", str(folder.parent), f"nodes of the cluster do not share it with "
            f"{socket.gethostname()}, where the driver runs: {'; '.join(problems)}",
            "Set runs_dir to a folder that all nodes mount at the same path, such as "
            "/mnt/shared/runs.",
        )
    )  # fmt: skip
