"""Text on sheets, in the font that is built into Pillow."""

from __future__ import annotations

import functools

from PIL import ImageDraw, ImageFont

from reeltune.untrusted import clean_text

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
LINE_HEIGHT = 17  # pixels
FONT_SIZE = 13
_MOST_CHARACTERS = 2000


@functools.cache
def font() -> Font:
    """Pillow's own font; a bitmap font where Pillow was built without FreeType."""
    return ImageFont.load_default(FONT_SIZE)


def wrap(text: str, width: int, lines: int) -> list[str]:
    """A text in at most so many lines of `width` pixels; what doesn't fit is cut off with an ellipsis."""
    words = _drawable(text)[:_MOST_CHARACTERS].split()
    wrapped: list[str] = []
    current = ""
    for word in words:
        longer = f"{current} {word}".strip()
        if _fits(longer, width):
            current = longer
            continue
        if current:
            wrapped.append(current)
        *whole, current = _broken(word, width)
        wrapped += whole
    if current:
        wrapped.append(current)
    if len(wrapped) > lines:
        wrapped = wrapped[:lines]
        wrapped[-1] = _with_ellipsis(wrapped[-1], width)
    return wrapped


def draw_lines(draw: ImageDraw.ImageDraw, left: int, top: int, lines: list[str], color: tuple[int, int, int]) -> None:
    """Draw lines of text, one below the other."""
    for number, line in enumerate(lines):
        draw.text((left, top + number * LINE_HEIGHT), line, fill=color, font=font())


def _fits(text: str, width: int) -> bool:
    return font().getlength(text) <= width


def _broken(word: str, width: int) -> list[str]:
    """A word in pieces that fit; nearly always one."""
    pieces = [""]
    for character in word:
        if pieces[-1] and not _fits(pieces[-1] + character, width):
            pieces.append("")
        pieces[-1] += character
    return pieces


def _with_ellipsis(line: str, width: int) -> str:
    while line and not _fits(line + "...", width):
        line = line[:-1]
    return line + "..."


def _drawable(text: str) -> str:
    """A text without the characters that the font can't draw at all: the bitmap font knows Latin-1 only."""
    clean = clean_text(text)
    if isinstance(font(), ImageFont.FreeTypeFont):
        return clean
    return clean.encode("latin-1", "replace").decode("latin-1")
