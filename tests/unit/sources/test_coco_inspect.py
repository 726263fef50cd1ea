"""Image files judged from their ends: sizes, turns, and every kind of damage."""

import io
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixlens.sources.coco import inspect as module
from mixlens.sources.coco.inspect import HEAD, Header, inspect
from mixlens.sources.files import Files, open_files
from mixlens.sources.pixels import decode


def encode(kind: str = "JPEG", size: tuple[int, int] = (60, 40), seed: int = 0, **options) -> bytes:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (10, 15, 3), np.uint8))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


def turned(number: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[274] = number
    return encode(kind, exif=exif)


def padded(data: bytes, size: int) -> bytes:
    """A JPEG with a comment of this size before its frame header."""
    parts = []
    while size > 0:
        part = b"c" * min(size, 60_000)
        parts.append(b"\xff\xfe" + struct.pack(">H", len(part) + 2) + part)
        size -= len(part)
    return data[:2] + b"".join(parts) + data[2:]


class Counting(Files):
    """Counts what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), True)
        object.__setattr__(self, "reads", Counter())

    def read(self, path: str) -> bytes:
        self.reads[path] += 1
        return super().read(path)


def look(folder: Path, contents: dict[str, bytes]) -> tuple[dict[str, Header], Counter]:
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    files = Counting(folder)
    headers = inspect(files, list(contents), files.listing())
    return dict(zip(contents, headers, strict=True)), files.reads


def bomb() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        sealed = name + data
        return struct.pack(">I", len(data)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


JPEG = encode("JPEG", (900, 700), quality=95)  # longer than its head
PNG = encode("PNG", (300, 200))
assert len(JPEG) > HEAD
FAULTS = {
    "empty": (b"", "empty_file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "pointer_file"),
    "annex": (b"/annex/objects/SHA256E-s3--ab.jpg\n", "pointer_file"),
    "page": (b"<html><body>Not found</body></html>" + b" " * HEAD, "pointer_file"),
    "noise": (np.random.default_rng(0).bytes(5000), "undecodable"),
    "long noise": (np.random.default_rng(0).bytes(HEAD * 2), "undecodable"),
    "marker and zeros": (b"\xff\xd8\xff\xe0" + bytes(4000) + b"\xff\xd9", "undecodable"),
    "jpeg half": (JPEG[: len(JPEG) // 2], "truncated"),
    "jpeg within its head": (JPEG[: HEAD // 2], "truncated"),
    "jpeg without its end": (JPEG[:-2], "truncated"),
    "png half": (PNG[: len(PNG) // 2], "truncated"),
    "png without its last rows": (PNG[:-2000], "truncated"),
    "jpeg and zeros": (JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), "truncated"),
    "bomb": (bomb(), "too_many_pixels"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_damage_has_its_reason(tmp_path: Path, name: str):
    data, reason = FAULTS[name]
    found, _ = look(tmp_path, {"good": JPEG, name: data, "other": PNG})
    assert found[name].problem == reason
    assert found[name].detail
    assert "\n" not in found[name].detail
    assert not found["good"].problem
    assert not found["other"].problem
    assert len(found[name].fingerprint) == 32


def test_a_file_that_is_not_there(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "folder.jpg").mkdir()
    files = open_files(str(tmp_path))
    names = ["none.jpg", "a.jpg", "folder.jpg", "no/such.jpg"]
    found = inspect(files, names, files.listing())
    missing = "missing_file"
    assert [header.problem for header in found] == [missing, "", missing, missing]
    assert found[0] == Header(problem="missing_file", detail="there is no file none.jpg")


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_sizes_are_upright(tmp_path: Path, number: int, kind: str):
    data = turned(number, kind)
    header = look(tmp_path, {"a": data})[0]["a"]
    assert (header.height, header.width) == decode(data).shape[:2]
    assert (header.width, header.height) == ((40, 60) if number >= 5 else (60, 40))
    assert header.turned == (number >= 5)
    assert header.orientation == number
    assert not header.problem


def test_only_ends_are_read_where_they_tell(tmp_path: Path):
    contents = {"jpeg": JPEG, "png": PNG, "small": encode()}
    found, reads = look(tmp_path, contents)
    assert not reads
    assert [(h.width, h.height) for h in found.values()] == [(900, 700), (300, 200), (60, 40)]


def test_all_is_read_where_the_ends_do_not_tell(tmp_path: Path):
    """Each of these is whole, and a program that only trusts ends would not know."""
    contents = {
        "a comment as long as the head": padded(JPEG, HEAD),
        "zeros after the end": JPEG + bytes(100),
        "png without its end, which has all pixels": PNG[:-12],
        "webp": encode("WEBP", (500, 400), lossless=True),
        "tiff": encode("TIFF", (300, 200)),
    }
    found, reads = look(tmp_path, contents)
    for name, data in contents.items():
        assert len(data) > HEAD
        assert not found[name].problem, found[name]
        assert (found[name].height, found[name].width) == decode(data).shape[:2]
        assert reads[name] >= 1
    assert not look(tmp_path, {"gif": encode("GIF"), "bmp": encode("BMP")})[0]["gif"].problem


def test_of_a_bomb_only_the_head_is_read(tmp_path: Path):
    found, reads = look(tmp_path, {"bomb": bomb() + bytes(HEAD)})
    assert found["bomb"].problem == "too_many_pixels"
    assert not reads


def test_a_header_beyond_the_head_may_be_damaged_too(tmp_path: Path):
    data = padded(JPEG, HEAD)
    found, _ = look(tmp_path, {"a": data[:-5000], "b": data[: HEAD + 20]})
    assert found["a"].problem == "truncated"
    assert found["b"].problem in ("truncated", "undecodable")


def test_fingerprints_are_of_contents(tmp_path: Path):
    changed = JPEG[:500] + bytes([JPEG[500] ^ 1]) + JPEG[501:]
    later = JPEG[:-500] + bytes([JPEG[-500] ^ 1]) + JPEG[-499:]
    longer = JPEG + b"\xff\xd9"
    contents = {"a": JPEG, "copy": JPEG, "changed": changed, "later": later, "longer": longer}
    found = {name: h.fingerprint for name, h in look(tmp_path, contents)[0].items()}
    assert found["a"] == found["copy"] == found["later"]  # size and head are what it is of
    assert len({found["a"], found["changed"], found["longer"]}) == 3


def test_order_and_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_CHUNK", 7)
    sizes = [(10 + i, 200 - i) for i in range(100)]
    for width, height in sizes:
        (tmp_path / f"{width}.png").write_bytes(encode("PNG", (width, height)))
    files = open_files(str(tmp_path))
    paths = [f"{width}.png" for width, _ in sizes] + ["none.png", "10.png", "10.png"]
    told: list[tuple[int, int]] = []
    found = inspect(files, paths, files.listing(), lambda *done: told.append(done))
    assert [(h.width, h.height) for h in found] == [*sizes, (0, 0), sizes[0], sizes[0]]
    assert told[-1] == (103, 103)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) == 15
    assert inspect(files, [], {}) == []


class Failing(Files):
    """A network that fails: the first time, or always."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(str(root), True)
        object.__setattr__(self, "left", Counter({"a.jpg": times}))

    def ends(self, path: str, head: int, tail: int) -> tuple[bytes, bytes]:
        if self.left[path] > 0:
            self.left[path] -= 1
            raise OSError("connection reset\nby peer")
        return super().ends(path, head, tail)


def test_a_network_that_fails_for_a_moment_costs_no_image(tmp_path: Path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    sizes = {"a.jpg": len(JPEG), "b.jpg": len(JPEG)}
    once, other = inspect(Failing(tmp_path, 1), ["a.jpg", "b.jpg"], sizes)
    assert once == other
    assert not once.problem
    always, other = inspect(Failing(tmp_path, 9), ["a.jpg", "b.jpg"], sizes)
    assert always.problem == "missing_file"
    assert always.detail == "a.jpg cannot be read: connection reset"
    assert not other.problem


def test_the_same_in_a_bucket(tmp_path: Path):
    import fsspec

    local, _ = look(tmp_path, {name: data for name, (data, _) in FAULTS.items()} | {"good": JPEG})
    system = fsspec.filesystem("memory")
    for name in local:
        system.pipe(f"/inspected/{name}", (tmp_path / name).read_bytes())
    files = open_files("memory://inspected")
    assert inspect(files, list(local), files.listing()) == list(local.values())


def test_real_photographs_are_sound(coco_sample: Path):
    files = open_files(str(coco_sample))
    sizes = files.listing("images")
    assert sizes
    for path, header in zip(sizes, inspect(files, list(sizes), sizes), strict=True):
        assert not header.problem, header
        assert (header.height, header.width) == decode(files.read(path)).shape[:2]
