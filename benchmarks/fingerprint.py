"""How fast a model is told from others by all of its bytes: `python benchmarks/fingerprint.py`.

GB a second of reading and hashing a file of random bytes that the system holds in memory, beside
reading it alone and beside SHA-256, one core; and the time of two starts with a model of 15 GB in
three sparse files. The last line is one JSON object.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FILE_BYTES = 1 << 30
SHARDS, SHARD_BYTES = 3, 5_000_000_000
ROUNDS = 3  # the best counts: other work on the machine can only slow a round down


def gb_a_second(read: Callable[[], object]) -> float:
    """Of a file of `FILE_BYTES`: the best of the rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - start)
    return FILE_BYTES / min(seconds) / 1e9


def plain_read(file: Path) -> None:
    buffer = bytearray(1 << 20)
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def sha256(file: Path) -> None:
    with file.open("rb", buffering=0) as stream:
        hashlib.file_digest(stream, "sha256")


def write_sparse_model(folder: Path) -> None:
    """The built-in model's folder with 15 GB for its weights, of which the disk holds nothing."""
    from mixlens.models.folder import BUILTIN

    (built_in,) = BUILTIN.values()
    shutil.copytree(built_in, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    names = [f"model-{number}.safetensors" for number in range(SHARDS)]
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(SHARD_BYTES)
    index = {"weight_map": {f"tensor.{name}": name for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def main() -> None:
    # Here, so that the time of importing torch counts in no figure.
    from mixlens.models import identity

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        file = root / "weights"
        with file.open("wb") as stream:
            for _ in range(FILE_BYTES >> 26):
                stream.write(os.urandom(1 << 26))
        plain_read(file)
        reading = identity._Reading([file], None)
        result = {
            "plain read, GB/s": gb_a_second(lambda: plain_read(file)),
            "read and hashed, GB/s": gb_a_second(lambda: reading.digest(file)),
            "read and hashed by SHA-256, GB/s": gb_a_second(lambda: sha256(file)),
        }
        result["hashed / plain read, time"] = (
            result["plain read, GB/s"] / result["read and hashed, GB/s"]
        )
        write_sparse_model(root / "model")
        time.sleep(identity.SETTLED_S + 0.5)
        for start in ("first", "second"):
            identity._IN_MEMORY.clear()  # as in another process
            began = time.perf_counter()
            identity.fingerprint(str(root / "model"), print)
            result[f"{start} start with 15 GB, s"] = time.perf_counter() - began
    for name, value in result.items():
        print(f"{name:36} {value:9.4f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
