"""What a file is, by its first bytes and never by its name.

kind_of(Path("x.png")).label  # "a PNG image"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reeltune.errors import FileError, MediaError
from reeltune.files import open_regular
from reeltune.untrusted import clean_text

JSON_FILE = "a JSON file"
HEAD_BYTES = 4096  # enough to recognize every kind

_MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_TS_PACKET, _M2TS_PACKET = 188, 192


@dataclass(frozen=True)
class Kind:
    """A kind of file: `label` with its article; `image`: Pillow's name of the format if it is an image that is read
    here; `container`: FFmpeg's name of the container if it can hold a video that is read here.
    """

    label: str
    image: str = ""
    container: str = ""


_STARTS: tuple[tuple[bytes, Kind], ...] = (
    (b"\xff\xd8\xff", Kind("a JPEG image", image="JPEG")),
    (b"GIF87a", Kind("a GIF image", image="GIF", container="gif")),
    (b"GIF89a", Kind("a GIF image", image="GIF", container="gif")),
    (b"II*\0", Kind("a TIFF image", image="TIFF")),
    (b"MM\0*", Kind("a TIFF image", image="TIFF")),
    (b"\x1a\x45\xdf\xa3", Kind("a WebM or Matroska video", container="matroska")),
    (b"FLV\x01", Kind("an FLV video", container="flv")),
    (b"OggS", Kind("an Ogg file", container="ogg")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("a Windows Media file", container="asf")),
    (b"\0\0\x01\xba", Kind("an MPEG video", container="mpeg")),
    (b"\x06\x0e\x2b\x34", Kind("an MXF video", container="mxf")),
    (b"%PDF", Kind("a PDF file")),
    (b"PK\x03\x04", Kind("a ZIP archive")),
    (b"GGUF", Kind("a GGUF file")),
    (b"#EXTM3U", Kind("a playlist")),
    (b"version https://git-lfs", Kind("a Git LFS pointer")),
)
_PNG = b"\x89PNG\r\n\x1a\n"


def kind_of(path: Path) -> Kind:
    """The kind of a file. Raises MediaError where it isn't there or can't be read."""
    try:
        with open_regular(path) as file:
            return kind_of_bytes(file.read(HEAD_BYTES))
    except FileError as error:
        raise MediaError(clean_text(error.message), hint=error.hint) from error
    except OSError as error:
        raise MediaError(f"{display(path)} can't be read: {error.strerror or error}.") from error


def kind_of_bytes(head: bytes) -> Kind:
    """The kind of a file that begins with `head`."""
    if head.startswith(_PNG):
        return Kind("a PNG image", image="PNG", container="apng" if b"acTL" in head else "")
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind("a WebP image", image="WEBP")
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return Kind("an AVI video", container="avi")
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return Kind("a BMP image", image="BMP")
    if head[4:8] in _MP4_BOXES:
        return _boxed(head)
    if _is_transport_stream(head):
        return Kind("an MPEG transport stream", container="mpegts")
    if head[8:10] == b'{"' and head[5:8] == b"\0\0\0":
        return Kind("a safetensors file")
    return _text(head)


def _boxed(head: bytes) -> Kind:
    """Files made of MP4's boxes: videos, and two kinds of images."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIC_BRANDS:
        return Kind("a HEIC image")
    if brand in (b"avif", b"avis"):
        return Kind("an AVIF image", image="AVIF")
    return Kind("an MP4 or MOV video", container="mov")


def _is_transport_stream(head: bytes) -> bool:
    for first, length in ((0, _TS_PACKET), (4, _M2TS_PACKET)):
        if head[first : first + 1] + head[first + length : first + length + 1] == b"GG":
            return True
    return False


def _text(head: bytes) -> Kind:
    """A kind of text, or an unknown kind."""
    if not head:
        return Kind("an empty file")
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    if "\0" in text or text.count("\ufffd") > max(1, len(text) // 100):  # the last character may be cut in two
        return Kind("a file of an unknown kind")
    if text.startswith("{"):
        return Kind(JSON_FILE)
    if "<svg" in text:
        return Kind("an SVG drawing")
    if text.startswith(("<!doctype html", "<html")):
        return Kind("a web page")
    return Kind("a text file")


def display(path: Path) -> str:
    """A path as messages show it: valid text, even where the file's name isn't."""
    return clean_text(str(path))
