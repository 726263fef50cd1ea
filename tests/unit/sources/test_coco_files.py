"""Files of a data set: read from anywhere, never from outside."""

import http.server
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from mixlens.errors import DataError
from mixlens.sources.files import Files, open_files

CONTENT = {
    "annotations/instances.json": b'{"images": []}',
    "images/a.jpg": bytes(range(256)) * 400,
    "images/empty.jpg": b"",
    "images/deep/er/b c.jpg": b"b" * 10,
    "images/ä.jpg": b"umlaut",
    "images/1#2%20?.jpg": b"odd",
}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _write(root: Path) -> Path:
    for path, data in CONTENT.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _write(tmp_path / "set")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same on a web server that lists folders and sends whole files only."""
    root = _write(tmp_path_factory.mktemp("web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["folder", "relative", "file", "memory", "http"])
def files(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    if request.param == "http":
        return open_files(request.getfixturevalue("served"))
    if request.param == "memory":
        system = fsspec.filesystem("memory")
        for path, data in CONTENT.items():
            system.pipe(f"/coco files/{path}", data)
        return open_files("memory://coco files")
    monkeypatch.chdir(folder.parent)
    return open_files({"folder": f"{folder}/", "relative": "set", "file": f"file://{folder}"}[
        request.param
    ])  # fmt: skip


def test_the_same_from_everywhere(files: Files):
    assert files.listing() == {path: len(data) for path, data in CONTENT.items()}
    assert list(files.listing()) == sorted(CONTENT)
    images = {p: len(d) for p, d in CONTENT.items() if p.startswith("images/")}
    assert files.listing("images") == files.listing("./images/") == images
    assert files.listing("images/deep") == {"images/deep/er/b c.jpg": 10}
    for path, data in CONTENT.items():
        assert files.read(path) == data
        assert files.require(path, "data.x") == data
    assert Path(files.root).is_absolute() or "://" in files.root
    assert files.is_local == ("://" not in files.root or files.root.startswith("file"))


def test_the_ends_of_files(files: Files):
    data = CONTENT["images/a.jpg"]
    assert files.ends("images/a.jpg", 1000, 12) == (data[:1000], data[-12:])
    assert files.ends("images/a.jpg", 10**6, 12) == (data, data[-12:])
    assert files.ends("images/ä.jpg", 4, 100) == (CONTENT["images/ä.jpg"][:4], b"umlaut")
    assert files.ends("images/empty.jpg", 10, 2) == (b"", b"")


def test_what_is_missing(files: Files):
    for path in ("images/zz.jpg", "none/a.jpg"):
        with pytest.raises(FileNotFoundError):
            files.read(path)
        with pytest.raises(FileNotFoundError):
            files.ends(path, 10, 10)
    with pytest.raises(DataError, match=r"data\.x\.train\.annotations: got 'none\.json'.*below"):
        files.require("none.json", "data.x.train.annotations")
    with pytest.raises(DataError, match=r"'none'.*no such folder below"):
        files.listing("none")


def test_a_missing_file_s_message_shows_what_is_there(folder: Path):
    with pytest.raises(DataError, match=r"annotations holds: instances\.json"):
        open_files(str(folder)).require("annotations/none/instances_train.json", "data.x")


def test_names_stay_inside(files: Files):
    inside = partial(files.inside, "images")
    assert inside("a.jpg") == inside("./a.jpg") == "images/a.jpg"
    assert inside("deep/er/b c.jpg") == "images/deep/er/b c.jpg"
    assert inside("deep/../a.jpg") == inside("../images//a.jpg") == "images/a.jpg"
    assert inside("../annotations/instances.json") == "annotations/instances.json"
    assert files.inside("", "images/a.jpg") == "images/a.jpg"
    for name in (
        "..",
        "../..",
        "../../a.jpg",
        "deep/../../../a.jpg",
        "/etc/passwd",
        "//etc/passwd",
        "http://elsewhere/a.jpg",
        "s3://bucket/a.jpg",
        "file:///etc/passwd",
        f"{files.root.rstrip('/')}-other/a.jpg" if "://" in files.root else "/tmp",
    ):
        assert inside(name) is None, name


def test_a_whole_name_below_the_root_is_inside(files: Files):
    if "://" in files.root:
        assert files.inside("images", f"{files.root}/images/a.jpg") == "images/a.jpg"
        assert files.inside("images", f"{files.root}/images/../../a.jpg") is None
    if files.is_local:
        where = str(Path(files.root.removeprefix("file://")).absolute())
        assert files.inside("images", f"{where}/images/a.jpg") == "images/a.jpg"
        assert files.inside("images", f"{where}/../a.jpg") is None
        assert files.inside(f"{where}/images", "a.jpg") == "images/a.jpg"
        assert files.listing(f"{where}/images") == files.listing("images")


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "nul\0.jpg", "n\0/a.jpg", "", "."])
def test_names_that_no_file_can_have_are_only_missing(files: Files, name: str):
    path = files.inside("images", name)
    assert path is not None
    assert path not in files.listing("images")


def test_links_lead_where_the_person_who_made_them_wants(tmp_path: Path, folder: Path):
    disk = _write(tmp_path / "disk")
    images = folder / "images"
    (images / "one.jpg").symlink_to(disk / "images" / "a.jpg")  # a subset made of links
    (images / "away").symlink_to(disk / "images")
    (images / "lost.jpg").symlink_to(images / "nowhere.jpg")
    (folder / "photos").symlink_to(disk / "images")
    (tmp_path / "alias").symlink_to(folder)
    for root in (folder, tmp_path / "alias"):
        files = open_files(str(root))
        listed = files.listing("images")
        for name in ("one.jpg", "away/a.jpg"):
            path = files.inside("images", name)
            assert path == f"images/{name}"
            assert listed[path] == 256 * 400
            assert files.read(path) == (disk / "images" / "a.jpg").read_bytes()
        assert files.inside("images", "lost.jpg") == "images/lost.jpg"  # inside, and missing
        assert "images/lost.jpg" not in listed
        assert files.listing("photos")["photos/a.jpg"] == 256 * 400


def test_links_in_circles_end(folder: Path):
    (folder / "images" / "deep" / "round").symlink_to(folder / "images")
    (folder / "images" / "self").symlink_to(folder / "images")
    (folder / "images" / "twin").symlink_to(folder / "images" / "deep" / "er")
    listed = open_files(str(folder)).listing("images")
    # What two names lead to has both of them.
    assert listed["images/twin/b c.jpg"] == listed["images/deep/er/b c.jpg"] == 10
    assert len(listed) == 6


def test_names_that_are_no_text_are_passed_over(folder: Path):
    # A path of bytes, which pathlib does not take.
    with open(bytes(folder / "images") + b"/\xff.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"x")
    assert open_files(str(folder)).listing() == {p: len(d) for p, d in CONTENT.items()}


def test_images_may_lie_in_another_place_than_annotations(tmp_path: Path, folder: Path):
    other = _write(tmp_path / "other")
    files = open_files(str(folder))
    for place in (str(other / "images"), f"file://{other}/images"):
        listed = files.listing(place)
        path = files.inside(place, "deep/er/b c.jpg")
        assert path == f"{place}/deep/er/b c.jpg"
        assert listed[path] == 10
        assert files.read(path) == b"b" * 10
        assert files.inside(place, "../annotations/instances.json") is None
        assert files.inside(place, "/etc/passwd") is None
    fsspec.filesystem("memory").pipe("/elsewhere/a.jpg", b"far")
    path = files.inside("memory://elsewhere", "a.jpg")
    assert path == "memory://elsewhere/a.jpg"
    assert files.listing("memory://elsewhere/") == {path: 3}
    assert files.read(path) == b"far"
    assert files.inside("memory://elsewhere", "../x.jpg") is None


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("/no/such/folder", "no such folder"),
        ("memory://no-such-bucket", "no such folder"),
        ("nonsense://x", "Protocol not known"),
        ("s3a://bucket", "s3fs"),
    ],
)
def test_a_root_that_is_none(root: str, words: str):
    with pytest.raises(DataError, match=words) as caught:
        open_files(root)
    assert repr(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_root_that_is_a_file(folder: Path):
    with pytest.raises(DataError, match="is a file"):
        open_files(str(folder / "images/a.jpg"))


def test_a_file_that_may_not_be_read_is_no_missing_one(folder: Path, monkeypatch):
    """As on a disk with bad sectors, or a bucket that refuses."""
    from mixlens.sources import files as module

    class Refusing:
        def open_input_stream(self, _place: str) -> None:
            raise RuntimeError("403\nforbidden")  # not every file system raises OSError

    files = open_files(str(folder))
    monkeypatch.setattr(module, "connect", lambda _root: (Refusing(), "bucket"))
    with pytest.raises(OSError, match=r"403$") as caught:
        files.read("images/a.jpg")
    assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(DataError, match=r"data\.x: got 'a\.json': cannot be read .*403"):
        Files("s3://bucket", False).require("a.json", "data.x")


def test_a_server_that_does_not_answer_is_told_as_such():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # where no one listens while it is taken
        with pytest.raises(DataError, match=rf"root: got 'http://127\.0\.0\.1:{port}/x'.*refused"):
            open_files(f"http://127.0.0.1:{port}/x")
