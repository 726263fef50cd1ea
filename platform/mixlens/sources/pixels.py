"""From the bytes of an image file to upright RGB pixels, whatever kind of image it is."""

import io
import struct
import zlib

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from mixlens.errors import DataError, first_line

MAX_PIXELS = 64_000_000  # as RGB 192 MB; what claims to be larger is no photograph, or a bomb
# Others are passed over: some run programs (EPS), and none holds photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
# What Pillow and its decoders raise for bytes that are not what they seem.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_TEXT = 512  # bytes that tell whether a file is text
_METADATA = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(DataError):
    """The bytes of an image file give no picture.

    Attributes:
        reason: empty_file, pointer_file, undecodable, truncated or too_many_pixels.
        detail: what is wrong, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def decode(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in an image file, upright, as RGB.

    The EXIF orientation is applied. CMYK, grey, palette and 16-bit images become RGB, and what is
    transparent becomes white. Of an image with several frames the first one counts.

    Args:
        data: all bytes of the file.

    Raises:
        ImageError: it is no picture, is damaged or has more than `MAX_PIXELS` pixels (which its
            header tells, before anything is decoded).
    """
    image = opened(data)
    try:
        turn = None if image.format == "TIFF" else _UPRIGHT.get(orientation(image))
        image.load()  # turns a TIFF
        picture = _rgb(image)
        return np.asarray(picture if turn is None else picture.transpose(turn))
    except DAMAGE as error:
        raise _image_error(error) from error


def as_pixels(image: np.ndarray | bytes) -> UInt8[np.ndarray, "height width 3"]:
    """The picture of an example, which is an array or the bytes of an image file."""
    return decode(image) if isinstance(image, bytes) else image


def opened(data: bytes) -> Image.Image:
    """An image of which only the header was read: its size is known, its pixels are not.

    Args:
        data: the file, or as much of its beginning as holds the header.

    Raises:
        ImageError: no image is there, or too large a one.
    """
    if not data:
        raise ImageError("empty_file", "the file has no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unknown(data) from error
    except DAMAGE as error:
        raise _image_error(error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            "too_many_pixels", f"{width} x {height} pixels are more than {MAX_PIXELS:,}"
        )
    return image


def orientation(image: Image.Image) -> int:
    """How the picture lies in the file, from its EXIF or XMP data: 1 (upright) to 8 as in EXIF.

    Data that cannot be read say nothing. An opened TIFF has its upright size already.
    """
    if image.format != "TIFF" and not _METADATA & image.info.keys():
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return int(found) if found in _UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        # The upper byte, as Pillow takes it of 16-bit colours.
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        image = Image.new("RGBA", picture.size, "white")
        image.alpha_composite(picture)
    return image.convert("RGB")


def _image_error(error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("too_many_pixels", first_line(error))
    text = first_line(error)
    return ImageError("truncated" if "truncated" in text.lower() else "undecodable", text)


def _unknown(data: bytes) -> ImageError:
    """Bytes of no image format: often text that stands in for an image."""
    start = data[:_TEXT]
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        # A letter of several bytes may be cut off at the end.
        text = start[: error.start].decode() if error.start > _TEXT - 4 else "\0"
    if "\0" in text:
        return ImageError("undecodable", f"no image format begins with {data[:8]!r}")
    first = text.strip().splitlines()[0] if text.strip() else ""
    if first.startswith("version https://git-lfs"):
        detail = "a Git LFS pointer; `git lfs pull` fetches the image"
    elif "annex/objects/" in first:
        detail = "a git-annex pointer; `git annex get` fetches the image"
    elif first[:5].lower() in ("<html", "<!doc", "<?xml", "<head"):
        detail = "a web page instead of an image"
    else:
        detail = f"text instead of an image: {first[:60]!r}"
    return ImageError("pointer_file", detail)
