"""Image files of every kind become upright RGB pixels; damaged ones one kind of error."""

import contextlib
import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from mixlens.errors import DataError
from mixlens.sources.pixels import (
    MAX_PIXELS,
    MAX_TEXT,
    ImageError,
    as_pixels,
    decode,
    opened,
    orientation,
)


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG put together by hand, as the specification says."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(extra[:4], extra[4:]) for extra in chunks),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def with_exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = number
    return exif


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """48 x 32 with detail and no symmetry."""
    random = np.random.default_rng(1)
    small = Image.fromarray(random.integers(0, 256, (8, 12, 3), np.uint8))
    return np.asarray(small.resize((48, 32), Image.Resampling.BICUBIC))


# What a viewer does to the stored array, by the EXIF standard's table of orientations.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("number", UPRIGHT)
def test_every_orientation_is_undone(picture, number, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = np.asarray(Image.open(io.BytesIO(encode(picture, kind, **options))).convert("RGB"))
    data = encode(picture, kind, exif=with_exif(number), **options)
    found = decode(data)
    assert np.array_equal(found, UPRIGHT[number](stored))
    assert orientation(opened(data)) == number


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(picture, number):
    data = encode(picture, exif=with_exif(number))
    assert np.array_equal(decode(data), picture)
    assert orientation(opened(data)) == 1


def test_exif_data_that_are_broken_spoil_no_photograph(picture):
    assert np.array_equal(decode(encode(picture, exif=b"MM\0\xff\0\0\0\x08")), picture)
    plain = encode(picture, "JPEG")
    for junk in (b"", b"junk", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff\x01\x12"):
        body = b"Exif\0\0" + junk
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.array_equal(decode(data), decode(plain))


def test_grey_palette_and_bilevel_images_are_their_colours(picture):
    grey = picture[..., 0]
    assert np.array_equal(decode(encode(grey)), np.stack([grey] * 3, -1))
    few = Image.fromarray(picture).quantize(16)
    assert np.array_equal(decode(encode(few)), np.asarray(few.convert("RGB")))
    bits = Image.fromarray((grey > 100).astype(np.uint8) * 255).convert("1")
    assert np.array_equal(decode(encode(bits))[..., 1], np.where(grey > 100, 255, 0))


def test_sixteen_bits_keep_the_upper_eight():
    values = np.array([[0, 255, 256, 0x1234], [0x7FFF, 0x8000, 0xFF00, 0xFFFF]], ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    expected = (values >> 8).astype(np.uint8)
    assert np.array_equal(decode(png(4, 2, 16, 0, rows)), np.stack([expected] * 3, -1))
    pgm = b"P5 4 2 65535\n" + values.tobytes()
    assert np.array_equal(decode(pgm), np.stack([expected] * 3, -1))
    colours = np.arange(24, dtype=np.uint16).reshape(2, 4, 3) * 2700
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    assert np.array_equal(decode(png(4, 2, 16, 2, rows)), (colours >> 8).astype(np.uint8))


def test_what_is_transparent_becomes_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, :3], pixels[0, :, 3] = (200, 100, 0), (255, 0, 51)
    expected = [[200, 100, 0], [255, 255, 255], [244, 224, 204]]  # 255 + (c - 255) / 5
    assert decode(encode(pixels))[0].tolist() == expected
    assert decode(encode(pixels, "WEBP", lossless=True, exact=True))[0].tolist() == expected
    grey = np.array([[[40, 255], [40, 0]]], np.uint8)
    assert decode(encode(Image.fromarray(grey, "LA")))[0, :, 0].tolist() == [40, 255]
    two = Image.new("P", (2, 1))
    two.putpalette([9, 8, 7, 200, 0, 0])
    two.putpixel((1, 0), 1)
    assert decode(encode(two, transparency=1))[0].tolist() == [[9, 8, 7], [255, 255, 255]]
    # One colour of an RGB image may stand for "transparent".
    rows = b"\0" + bytes([1, 2, 3, 200, 100, 0])
    keyed = png(2, 1, 8, 2, rows, b"tRNS" + struct.pack(">3H", 1, 2, 3))
    assert decode(keyed)[0].tolist() == [[255, 255, 255], [200, 100, 0]]


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 255, 0), (255, 255, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_inks_are_the_colours_that_they_print(ink, colour):
    plate = Image.new("CMYK", (16, 16), ink)
    jpeg = encode(plate, "JPEG", quality=95)
    assert b"Adobe" in jpeg  # whose inks are stored inverted
    for data in (jpeg, encode(plate, "TIFF")):
        assert np.abs(decode(data).astype(int) - colour).max() <= 3


def test_progressive_files_are_the_same_picture(picture):
    progressive = encode(picture, "JPEG", progressive=True)
    assert b"\xff\xc2" in progressive
    assert np.array_equal(decode(progressive), decode(encode(picture, "JPEG")))


def test_of_several_frames_the_first_counts(picture):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (250, 10)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(decode(data)).tolist() == [250]


def test_arrays_are_pictures_already(picture):
    assert as_pixels(picture) is picture
    assert np.array_equal(as_pixels(encode(picture)), picture)


def test_an_image_at_the_limit_is_opened_and_one_above_is_not():
    assert opened(png(8000, 8000, 8, 2, b"")).size == (8000, 8000)
    assert MAX_PIXELS == 64_000_000
    with pytest.raises(ImageError, match="8001 x 8000 pixels") as caught:
        opened(png(8001, 8000, 8, 2, b""))
    assert caught.value.reason == "too_many_pixels"


@pytest.mark.parametrize("side", [12_000, 20_000, 2**31 - 1])
def test_a_bomb_is_told_from_its_header(side, monkeypatch):
    loaded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loaded.append(self))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError) as caught:
            decode(png(side, side, 8, 2, b"\0" * 100))
    assert caught.value.reason == "too_many_pixels"
    assert not loaded


def jpeg_sized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def test_a_jpeg_that_claims_too_much(picture):
    with pytest.raises(ImageError, match="too_many_pixels"):
        decode(jpeg_sized(encode(picture, "JPEG"), 9000, 9000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_a_file_that_ends_early_is_an_error_and_no_half_picture(picture, kind, share):
    data = encode(np.tile(picture, (8, 8, 1)), kind)
    with pytest.raises(ImageError) as caught:
        decode(data[: int(len(data) * share)])
    assert caught.value.reason in ("truncated", "undecodable")
    if kind == "JPEG":
        assert caught.value.reason == "truncated"
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"", "empty_file", "no bytes"),
        (LFS, "pointer_file", "git lfs pull"),
        (b"/annex/objects/SHA256E-s31390--f50d7ac4.jpg\n", "pointer_file", "git annex get"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "pointer_file", "web page"),
        (b'\n <?xml version="1.0"?><Error>AccessDenied</Error>', "pointer_file", "web page"),
        (b'{"error": "no such key"}', "pointer_file", "no such key"),
        (b"x" + "ü".encode() * 400, "pointer_file", "text"),  # a letter lies across byte 512
        (b"x" + "ü".encode() * 100 + b"\xff" * 400, "undecodable", "no image format"),
        (b"\0" * 4000, "undecodable", "no image format"),
        (bytes(range(256)) * 20, "undecodable", "no image format"),
        (b"\xff\xd8\xff", "undecodable", ""),
        (b"\x89PNG\r\n\x1a\n", "undecodable", ""),
        (b"PK\x03\x04" + b"\0" * 99, "undecodable", "no image format"),
        # Pillow would start Ghostscript for this one.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "pointer_file", ""),
    ],
)  # fmt: skip
def test_what_is_no_image_is_called_what_it_is(data, reason, words):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == reason
    assert words in caught.value.detail


def tiff(
    values: np.ndarray, bits: int, *, signed: bool = False, white_is_zero: bool = False
) -> bytes:
    """A grey TIFF put together by hand, as the specification says; bytes ordered as in `values`."""
    order = ">" if values.dtype.byteorder == ">" else "<"
    data = values.tobytes()
    if bits == 12:  # two values in three bytes, the first bit first
        text = "".join(f"{value:012b}" for value in values.ravel().tolist())
        data = int(text, 2).to_bytes(len(text) // 8, "big")
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8,
            277: 1, 278: height, 279: len(data), 339: 2 if signed else 1}  # fmt: skip
    directory = struct.pack(f"{order}H", len(tags))
    for tag, value in tags.items():
        directory += struct.pack(f"{order}HHIHxx", tag, 3, 1, value)
    start = struct.pack(f"{order}HI", 42, 8 + len(data))
    return {"<": b"II", ">": b"MM"}[order] + start + data + directory + bytes(4)


RAMP = np.arange(256).reshape(16, 16)  # what all of these show if they show anything


@pytest.mark.case
@pytest.mark.parametrize(
    "data",
    [
        encode(RAMP.astype(np.int32), "TIFF"),
        tiff(RAMP.astype("<u4"), 32),
        tiff(RAMP.astype(">i4"), 32, signed=True),
        tiff(RAMP.astype("<i2"), 16, signed=True),
        tiff((RAMP * 257).astype("<i4"), 32, signed=True),
        tiff((RAMP * 257).astype("<u2"), 16),
        tiff((RAMP * 257).astype(">u2"), 16),
        tiff((65535 - RAMP * 257).astype("<u2"), 16, white_is_zero=True),
        tiff((255 - RAMP).astype("u1"), 8, white_is_zero=True),
        tiff((RAMP * 16 + RAMP // 16).astype("<u2"), 12),
        b"P5 16 16 4095\n" + (RAMP * 4095 // 255).astype(">u2").tobytes(),
        encode((RAMP * 257).astype(np.uint16), "JPEG2000"),
    ],
    ids=["i4 by Pillow", "u4", "big i4", "i2 of 8 bits", "i4 of 16 bits", "u2", "big u2",
         "u2, white is 0", "u1, white is 0", "12 bits", "12 bits of a PGM", "JPEG 2000"],
)  # fmt: skip
def test_grey_of_every_width_is_the_picture_that_it_holds(data):
    found = decode(data)
    assert (found[..., 0] == found[..., 2]).all()
    assert np.abs(found[..., 0].astype(int) - RAMP).max() <= 1


COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)


def rows_of(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)


@pytest.mark.case
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode((RAMP * 16).astype(np.uint16)), "16 bits and end at 4,080: either"),
        (encode((RAMP * 64).astype(np.uint16), "TIFF"), "16 bits and end at 16,320: either"),
        (encode(RAMP.astype(np.uint16)), "16 bits and end at 255: either"),
        (png(16, 16, 16, 2, rows_of(COLOURS * 16)), "16 bits and end at 4,095 or below"),
        (png(16, 16, 16, 2, rows_of(COLOURS)), "16 bits and end at 255 or below"),
        (tiff((RAMP * 16).astype("<i4"), 32, signed=True), "32 bits and end at 4,080, which is"),
        (tiff((RAMP * 128).astype("<i2"), 16, signed=True), "16 bits and end at 32,640, which"),
        (tiff((RAMP * 300).astype("<i4"), 32, signed=True), "more than 16 bits"),
        (tiff((RAMP - 3).astype("<i4"), 32, signed=True), "begin at -3"),
        (tiff((RAMP - 3).astype("<i2"), 16, signed=True), "begin at -3"),
        (tiff((RAMP * 2**24).astype("<u4"), 32), "more than 31 bits"),
        (tiff((RAMP - 128).astype("i1"), 8, signed=True), "some are negative"),
        (encode((RAMP / 255).astype(np.float32), "TIFF"), "floating-point"),
        (encode(np.full((4, 4), np.nan, np.float32), "TIFF"), "floating-point"),
    ],
)
def test_where_nobody_can_say_what_is_white_there_is_no_picture(data, words):
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == "undecodable"
    assert words in caught.value.detail


def test_black_is_black_of_any_range():
    assert not decode(encode(np.zeros((4, 4), np.uint16))).any()
    assert not decode(encode(np.zeros((4, 4), np.int32), "TIFF")).any()


@pytest.mark.case
def test_a_transparent_value_of_sixteen_bits_is_compared_in_full():
    row = b"\0" + struct.pack(">3H", 0x1234, 0x1299, 0xFFFF)
    assert decode(png(3, 1, 16, 0, row, b"tRNS" + struct.pack(">H", 0x1234)))[0, :, 0].tolist() == [
        255,
        0x12,
        255,
    ]
    row = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0xFFFF, 0x3412, 0x7856, 0xFFFF)
    key = b"tRNS" + struct.pack(">3H", 0x1234, 0x5678, 0xFFFF)
    found = decode(png(2, 1, 16, 2, row, key))[0].tolist()
    assert found == [[255, 255, 255], [0x34, 0x78, 0xFF]]


@pytest.mark.case
@pytest.mark.parametrize("place", ["zTXt", "iTXt", "tEXt", "iCCP"])
def test_a_picture_with_megabytes_of_text_or_profile_is_sound(picture, place):
    info = PngImagePlugin.PngInfo()
    long = "edited " * 700_000
    if place == "iTXt":
        info.add_itxt("history", long, zip=True)
    elif place != "iCCP":
        info.add_text("history", long, zip=place == "zTXt")
    profile = {"icc_profile": bytes(5_000_000)} if place == "iCCP" else {}
    data = encode(picture, pnginfo=info, **profile)
    assert place.encode() in data
    assert np.array_equal(decode(data), picture)


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_bomb_in_the_texts_of_a_picture_is_told(picture, chunks):
    packed = b"zTXt" + b"history\0\0" + zlib.compress(bytes(MAX_TEXT // chunks + 1))
    row = b"\0" * 4
    with pytest.raises(ImageError, match="more than 64 MiB") as caught:
        decode(png(1, 1, 8, 2, row, *[packed] * chunks))
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(mode):
    values = np.full((4, 4), 1e6, np.float32 if mode == "F" else np.int32)
    with pytest.raises(ImageError, match="its pixels") as caught:
        decode(encode(values, "TIFF"))
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("place", ["open", "load"])
@pytest.mark.parametrize(
    "error",
    [OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError, IndexError, KeyError,
     TypeError, OverflowError, RuntimeError, Image.DecompressionBombError,
     Image.DecompressionBombWarning],
)  # fmt: skip
def test_whatever_pillow_raises_becomes_one_error(picture, monkeypatch, error, place):
    def fail(*_args, **_options):
        raise error("first line\nsecond line")

    whole = {"open": Image, "load": ImageFile.ImageFile}[place]
    data = encode(picture, "JPEG")
    monkeypatch.setattr(whole, place, fail)
    with pytest.raises(ImageError, match="first line") as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    assert caught.value.reason == ("too_many_pixels" if "Bomb" in error.__name__ else "undecodable")


def test_errors_are_one_line_and_travel_between_processes():
    with pytest.raises(DataError) as caught:
        decode(LFS)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, ImageError)
    assert (again.reason, again.detail, str(again)) == (
        "pointer_file",
        caught.value.detail,
        str(caught.value),
    )
    assert "\n" not in str(again)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"]
)
def test_no_damage_raises_anything_else(picture, kind):
    """Bytes changed, taken out or cut off at random: a picture or an `ImageError`."""
    random = np.random.default_rng(len(kind))
    data = encode(picture, kind, **({"exif": with_exif(6)} if kind in ("JPEG", "PNG") else {}))
    usable = 0
    for _ in range(150):
        broken = bytearray(data)
        for place in random.integers(0, min(len(data), 400), random.integers(1, 6)):
            broken[place] = random.integers(256)
        if random.random() < 0.3:
            start = int(random.integers(len(data)))
            del broken[start : start + int(random.integers(1, 40))]
        with warnings.catch_warnings(), contextlib.suppress(ImageError):
            warnings.simplefilter("ignore")
            found = decode(bytes(broken))
            assert found.dtype == np.uint8
            assert found.shape[2:] == (3,)
            usable += 1
    assert usable < 150


def test_real_photographs_are_what_pillow_shows(coco_sample):
    paths = sorted((coco_sample / "images").glob("*.jpg"))
    assert paths
    for path in paths[:12]:
        shown = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        assert np.array_equal(decode(path.read_bytes()), np.asarray(shown))
