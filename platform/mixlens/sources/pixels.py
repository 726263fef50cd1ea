"""From the bytes of an image file to upright RGB pixels, whatever kind of image it is."""

import io
import struct
import zlib

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from mixlens.errors import DataError, first_line

MAX_PIXELS = 64_000_000  # as RGB 192 MB; what claims to be larger is no photograph, or a bomb
# Sound files carry megabytes of history or colour profile, a bomb much more; 1 MiB is what Pillow
# unpacks of one text by itself, and it has these two to be set.
MAX_TEXT = 2**26  # bytes
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT
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
_SIGNED = 2  # of TIFF's sample formats
# Pictures of 10 to 14 bits are often saved as they are with 16: then they are nearly black.
_DARK = 2**14
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
    transparent becomes white. Of an image with several frames the first one counts. White of 16
    bits is 65,535; integers of 32 bits are pictures of 8 bits (up to 255) or of 16 (above 32,767).
    Where it cannot be told which number is white, there is no picture.

    Args:
        data: all bytes of the file.

    Raises:
        ImageError: it is no picture, is damaged or has more than `MAX_PIXELS` pixels (which its
            header tells, before anything is decoded).
    """
    image = opened(data)
    try:
        turn = None if image.format == "TIFF" else _UPRIGHT.get(orientation(image))
        bits = _bits(image, data)
        image.load()  # turns a TIFF
        picture = _rgb(image, bits)
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


def _bits(image: Image.Image, data: bytes) -> int:
    """Of one value in the file; -8 or -16 if it has a sign. What Pillow scales by itself has 8."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = int(max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))))
        signed = _SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())
        return -bits if signed and bits < 32 else bits
    if image.format == "PNG":
        return data[24]  # its header comes first
    return 16 if image.mode.startswith("I") else 8


def _rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        image = _grey(image, bits)
    else:
        _check_range(image, bits)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        image = Image.new("RGBA", picture.size, "white")
        image.alpha_composite(picture)
    return image.convert("RGB")


def _grey(image: Image.Image, bits: int) -> Image.Image:
    """One channel of more than 8 bits with the 8 bits that are seen of it."""
    values = np.asarray(image)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0:
        raise ValueError(f"its pixels begin at {lowest:,}: they have a sign, or more than 31 bits")
    if highest <= 255 and bits not in (12, 16):
        return Image.fromarray(values.astype(np.uint8))
    if highest > 65535:
        raise ValueError(f"its pixels have more than 16 bits: they end at {highest:,}")
    if bits not in (12, 16) and (bits < 0 or highest < 2**15):
        raise ValueError(
            f"its pixels have {abs(bits)} bits and end at {highest:,}, which is neither the white "
            "of 8 bits nor that of 16; save it with 8"
        )
    if bits == 12:
        values = values << 4
    elif 0 < highest < _DARK:
        raise _too_dark(f"{highest:,}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow turns these over for 8 bits and fewer only.
        if image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            values = 65535 - values
    elif isinstance(clear := image.info.get("transparency"), int):
        values = np.where(values == clear, 65535, values)
    # The upper byte, as Pillow takes it of 16-bit colours.
    return Image.fromarray((values >> 8).astype(np.uint8))


def _check_range(image: Image.Image, bits: int) -> None:
    """Of channels that Pillow has brought to 8 bits."""
    if bits == -8 and np.asarray(image).max() > 127:
        raise ValueError("its pixels have a sign, and some are negative")
    if abs(bits) > 8 and image.mode not in ("1", "P", "PA"):
        colours = image.getbands()[: -1 if image.mode in ("RGBA", "LA", "La", "RGBa") else None]
        highest = max(np.asarray(image.getchannel(name)).max() for name in colours).item()
        if highest < _DARK >> 8:
            raise _too_dark(f"{(highest << 8) + 255:,} or below")
        clear = image.info.get("transparency")
        if isinstance(clear, tuple):  # of 16 bits still, and Pillow compares the lower ones
            image.info["transparency"] = tuple(value >> 8 for value in clear)


def _too_dark(highest: str) -> ValueError:
    return ValueError(
        f"its pixels have 16 bits and end at {highest}: either the picture is nearly black or its "
        "white is not 65,535, as of 12 bits that were not scaled; save it with 8"
    )


def _image_error(error: Exception) -> ImageError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("too_many_pixels", first_line(error))
    text = first_line(error)
    if "MAX_TEXT" in text:
        text = f"its texts or its colour profile have more than {MAX_TEXT >> 20} MiB"
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
