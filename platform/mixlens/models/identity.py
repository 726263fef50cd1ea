"""Which model it is: a digest of everything that decides what a model says."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from mixlens.errors import CheckpointError, explain
from mixlens.models.folder import (
    ADAPTER_CONFIG,
    CONFIG,
    base_of,
    read_adapter_config,
    resolve_model,
    weight_files,
)

# Beside the weights: what transformers reads of a whole model's folder. All other files decide
# nothing: notes, logs, provenance, states of an optimizer.
DECIDING = (
    *(CONFIG, "generation_config.json"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)
BLOCK = 1 << 20
REMEMBERED = 1 << 20  # bytes from which a file's digest is worth remembering
SETTLED_S = 2.0  # a file changed so lately may change again without another time of change
PATIENCE_S = 3.0  # reading longer than this is told

Say = Callable[[str], None]


def fingerprint(path: str, say: Say | None = None) -> str:
    """16 hex digits of everything that decides the model at `path`.

    These are all bytes of its weights, its configuration, and the files of its processor, tokenizer
    and chat template; of adapters their configuration and weights, and the fingerprint of their
    base, whose processor they use. A hub id stands for the commit that the hub, or offline the copy
    on this machine, names. The names of files of weights, their times and their place change
    nothing.

    Digests of large files are remembered (`cache_file`) until a file's size, times or inode
    change, so that a second start does not read them again.

    Args:
        path: folder, hub id or builtin name.
        say: told once, in a sentence, when reading takes more than a few seconds.

    Raises:
        CheckpointError: there is no whole model at `path`.
    """
    return _identity(resolve_model(path), say).hexdigest()[:16]


def _identity(source: str, say: Say | None) -> Any:
    digest = hashlib.sha256()
    folder = Path(source)
    if not folder.is_dir():
        digest.update(f"commit {_commit(source)}".encode())
        return digest
    if (folder / ADAPTER_CONFIG).is_file():
        base = _identity(base_of(source), say)
        digest.update(f"base {base.hexdigest()}\nadapters {_settings(folder)}\n".encode())
    else:
        for name, each in _deciding(folder):
            content = hashlib.sha256(each.read_bytes()).hexdigest()
            digest.update(f"{name} {content}\n".encode())
    for content in sorted(file_digests(weight_files(folder), say)):
        digest.update(f"weights {content}\n".encode())
    return digest


def _deciding(folder: Path) -> list[tuple[str, Path]]:
    found = [file for pattern in DECIDING for file in sorted(folder.glob(pattern))]
    return [(str(file.relative_to(folder)), file) for file in found if file.is_file()]


def _settings(folder: Path) -> str:
    """The configuration of adapters, without the place of their base and the order of sets."""
    settings = read_adapter_config(folder)
    del settings["base_model_name_or_path"]
    for name, value in settings.items():
        if isinstance(value, list):
            settings[name] = sorted(value, key=str)
    return json.dumps(sorted(settings.items()))


def _commit(hub_id: str) -> str:
    from transformers.utils import cached_file

    try:
        config = cached_file(hub_id, CONFIG)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            explain("model", hub_id, f"its {CONFIG} cannot be had: {error}",
                    "Check the name, the network and your access to it.")
        ) from error  # fmt: skip
    return Path(config).parent.name  # the hub's cache has a folder a commit


def file_digests(files: Sequence[Path], say: Say | None = None) -> list[str]:
    """32 hex digits of the bytes of each file, read only if none are remembered for it."""
    known, found, new = _remembered(), [], {}
    reading = _Reading(files, say)
    for file in files:
        place, stamp = str(file.resolve()), _stamp(file)
        match known.get(place):
            case [*then, str(content)] if then == stamp and len(content) == 32:
                pass
            case _:
                began = time.time_ns()
                content = reading.digest(file)
                settled = max(stamp[1:3]) < began - SETTLED_S * 1e9
                if settled and stamp[0] >= REMEMBERED and _stamp(file) == stamp:
                    new[place] = [*stamp, content]
        found.append(content)
    if new:
        _remember(new)
    return found


def _stamp(file: Path) -> list[int]:
    """Changes when a file does, also when its time of change is put back."""
    now = file.stat()
    return [now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino]


class _Reading:
    """Reads files through, and tells when that takes long."""

    def __init__(self, files: Sequence[Path], say: Say | None) -> None:
        self._size = sum(file.stat().st_size for file in files)
        self._folder, self._say = files[0].parent if files else "", say
        self._began, self._buffer = time.perf_counter(), bytearray(BLOCK)

    def digest(self, file: Path) -> str:
        # Not against an adversary, but against chance: 128 bits, ten times as fast as SHA-256.
        content, view = xxhash.xxh3_128(), memoryview(self._buffer)
        with file.open("rb", buffering=0) as bytes_of:
            while count := bytes_of.readinto(self._buffer):
                content.update(view[:count])
                if self._say and time.perf_counter() - self._began > PATIENCE_S:
                    self._say(
                        f"{self._folder}: reading all {self._size / 1e9:.1f} GB of weights to tell "
                        "the model from others; the next start remembers them"
                    )
                    self._say = None
        return content.hexdigest()


def cache_file() -> Path:
    """Where digests of files are remembered."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "mixlens" / "digests.json"


_IN_MEMORY: dict[str, Any] = {}  # of this process, for machines that can remember nothing on disk


def _remembered() -> dict[str, Any]:
    """All digests that are known; none if the file of them is damaged."""
    try:
        content = json.loads(cache_file().read_bytes())
    except (OSError, ValueError, RuntimeError):  # the last: there is no home folder
        content = {}
    return (content if isinstance(content, dict) else {}) | _IN_MEMORY


def _remember(new: dict[str, Any]) -> None:
    """Add digests for later starts; where that is impossible, they will be computed again.

    Of two processes that do it at once, one may undo what the other has added, and never more.
    """
    _IN_MEMORY.update(new)
    there = {place: entry for place, entry in _remembered().items() if Path(place).exists()}
    try:
        target = cache_file()
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(there | new, file)
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError):
        return
