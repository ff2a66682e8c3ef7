"""The kind of a file, recognized by its first bytes and not by its name.

kind_of(Path("x.png")).label  # "a PNG image"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import FileError, MediaError
from reeltune.files import open_regular
from reeltune.untrusted import clean_text

JSON_FILE = "a JSON file"
SAFETENSORS_FILE = "a safetensors file"
NUMPY_FILE = "a NumPy file"
VIDEO_SUFFIX, IMAGE_SUFFIX = ".mp4", ".png"  # of the files that are written
OUTPUT_SUFFIXES = (VIDEO_SUFFIX, IMAGE_SUFFIX)
HEAD_BYTES = 4096  # enough to recognize every kind

_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_TS_PACKET, _M2TS_PACKET = 188, 192


@dataclass(frozen=True)
class FileKind:
    """A kind of file, such as "a PNG image".

    `label`: its name with an article, for messages. `image`: Pillow's name of the format if it is a supported image.
    `container`: FFmpeg's name of the container if it is a supported video. `mime`: the media type; empty if browsers
    can't show it. `suffixes`: usual endings of file names, the most common first.
    """

    label: str
    image: str = ""
    container: str = ""
    mime: str = ""
    suffixes: tuple[str, ...] = ()


_PNG_IMAGE = FileKind("a PNG image", image="PNG", mime="image/png", suffixes=(".png",))
_ANIMATED_PNG = FileKind("a PNG image", image="PNG", container="apng", mime="image/png", suffixes=(".png",))
_GIF_IMAGE = FileKind("a GIF image", image="GIF", container="gif", mime="image/gif", suffixes=(".gif",))
_TIFF_IMAGE = FileKind("a TIFF image", image="TIFF", suffixes=(".tif", ".tiff"))
_WEBP_IMAGE = FileKind("a WebP image", image="WEBP", mime="image/webp", suffixes=(".webp",))
_BMP_IMAGE = FileKind("a BMP image", image="BMP", mime="image/bmp", suffixes=(".bmp",))
_AVIF_IMAGE = FileKind("an AVIF image", image="AVIF", mime="image/avif", suffixes=(".avif",))
_MP4_VIDEO = FileKind("an MP4 or MOV video", container="mov", mime="video/mp4", suffixes=(".mp4", ".mov", ".m4v"))
_AVI_VIDEO = FileKind("an AVI video", container="avi", suffixes=(".avi",))
_TRANSPORT_STREAM = FileKind("an MPEG transport stream", container="mpegts", suffixes=(".ts", ".m2ts", ".mts"))

_STARTS: tuple[tuple[bytes, FileKind], ...] = (
    (b"\xff\xd8\xff", FileKind("a JPEG image", image="JPEG", mime="image/jpeg", suffixes=(".jpg", ".jpeg"))),
    (b"GIF87a", _GIF_IMAGE),
    (b"GIF89a", _GIF_IMAGE),
    (b"II*\0", _TIFF_IMAGE),
    (b"MM\0*", _TIFF_IMAGE),
    (
        b"\x1a\x45\xdf\xa3",
        FileKind("a WebM or Matroska video", container="matroska", mime="video/webm", suffixes=(".webm", ".mkv")),
    ),
    (b"FLV\x01", FileKind("an FLV video", container="flv", suffixes=(".flv",))),
    (b"OggS", FileKind("an Ogg file", container="ogg", suffixes=(".ogv", ".ogg"))),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", FileKind("a Windows Media file", container="asf", suffixes=(".wmv", ".asf"))),
    (b"\0\0\x01\xba", FileKind("an MPEG video", container="mpeg", suffixes=(".mpg", ".mpeg"))),
    (b"\x06\x0e\x2b\x34", FileKind("an MXF video", container="mxf", suffixes=(".mxf",))),
    (b"%PDF", FileKind("a PDF file")),
    (b"PK\x03\x04", FileKind("a ZIP archive")),
    (b"GGUF", FileKind("a GGUF file")),
    (b"\x93NUMPY", FileKind(NUMPY_FILE, suffixes=(".npy",))),
    (b"#EXTM3U", FileKind("a playlist")),
    (b"version https://git-lfs", FileKind("a Git LFS pointer")),
)
_PNG = b"\x89PNG\r\n\x1a\n"


def kind_of(path: Path) -> FileKind:
    """The kind of a file. Raises MediaError if it doesn't exist or can't be read."""
    return kind_of_bytes(read_head(path))


def read_head(path: Path) -> bytes:
    """The first bytes of a regular file, enough for `kind_of_bytes`. Raises MediaError if it can't be read."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD_BYTES)
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    except OSError as error:
        raise MediaError(f"{display(path)} can't be read: {error.strerror or error}.") from error


def mime_of(head: bytes) -> str:
    """The media type of a file that begins with `head`; empty if browsers can't show it."""
    kind = kind_of_bytes(head)
    if kind is _MP4_VIDEO and not head.startswith(b"\0"):  # text may look like a box of MP4, except for its length
        return ""
    return kind.mime


def kind_of_bytes(head: bytes) -> FileKind:
    """The kind of a file that begins with `head`."""
    if head.startswith(_PNG):
        return _ANIMATED_PNG if b"acTL" in head else _PNG_IMAGE
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _WEBP_IMAGE
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return _AVI_VIDEO
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return _BMP_IMAGE
    if head[4:8] in _MP4_BOXES:
        return _boxed(head)
    if _is_transport_stream(head):
        return _TRANSPORT_STREAM
    if head[8:10] == b'{"' and head[5:8] == b"\0\0\0":
        return FileKind(SAFETENSORS_FILE)
    return _text(head)


def _boxed(head: bytes) -> FileKind:
    """The kind of a file in the MP4 format, which also contains HEIC and AVIF images."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIC_BRANDS:
        return FileKind("a HEIC image")
    if brand in (b"avif", b"avis"):
        return _AVIF_IMAGE
    return _MP4_VIDEO


def _is_transport_stream(head: bytes) -> bool:
    for first, length in ((0, _TS_PACKET), (4, _M2TS_PACKET)):
        if head[first : first + 1] + head[first + length : first + length + 1] == b"GG":
            return True
    return False


def _text(head: bytes) -> FileKind:
    """The kind of a text file, or an unknown kind."""
    if not head:
        return FileKind("an empty file")
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    if "\0" in text or text.count("\ufffd") > max(1, len(text) // 100):  # the last character may be truncated
        return FileKind("a file of an unknown kind")
    if text.startswith("{"):
        return FileKind(JSON_FILE)
    if "<svg" in text:
        return FileKind("an SVG drawing")
    if text.startswith(("<!doctype html", "<html")):
        return FileKind("a web page")
    return FileKind("a text file")


def display(path: Path) -> str:
    """A path as messages show it: valid text, even where the file's name isn't."""
    return clean_text(str(path))
