"""Pieces of HTML. Whatever comes from files or people passes `text` before it becomes markup."""

from __future__ import annotations

import hashlib
import html
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from reeltune._text import counted, shortened
from reeltune.errors import ReeltuneError
from reeltune.web.words import in_words

_MOST_ERROR = 300  # characters of an unforeseen error that are shown
_MOST_PROMPT = 2_000
_MOST_NOTES = 50


def asset(name: str) -> str:
    """A text file that ships with the page."""
    return (Path(str(resources.files("reeltune.web"))) / "assets" / name).read_text(encoding="utf-8")


def text(value: object) -> str:
    """Anything as text between tags or in an attribute; characters that nobody can see are shown."""
    shown = "".join(
        character if character.isprintable() or character in "\n\t" else "\ufffd" for character in str(value)
    )
    return html.escape(shown, quote=True)


def button(do: str, label: str, *, title: str = "", sure: str = "", kind: str = "", **data: object) -> str:
    """A button that tells the page what to do; `sure`: asked before; `data`: what it is about."""
    given = {"do": do, "sure": sure, **data}
    attributes = "".join(f' data-{name}="{text(value)}"' for name, value in given.items() if value != "")
    key = text(f"{do}-{'-'.join(str(value) for value in data.values())}")
    named = f' title="{text(title)}" aria-label="{text(title)}"' if title else ""
    return f'<button type="button" class="rt-button {kind}" data-key="{key}"{attributes}{named}>{text(label)}</button>'


def video(path: Path, *, poster: bool = False) -> str:
    """A video that plays; as a `poster` only its first frame shows until somebody points at it."""
    source = f"gradio_api/file={quote(os.fsencode(path))}"
    if poster:
        return f'<video src="{source}" preload="metadata" muted loop playsinline tabindex="-1" data-hover></video>'
    return f'<video src="{source}" controls autoplay muted loop playsinline></video>'


def download_link(path: Path, label: str) -> str:
    """A link that saves a file; it looks like a button."""
    source = f"gradio_api/file={quote(os.fsencode(path))}"
    return f'<a class="rt-button" href="{source}" download="{text(path.name)}">{text(label)}</a>'


def problem(error: ReeltuneError | str, hint: str = "") -> str:
    """An error in words, with the next step."""
    message, next_step = (error.message, error.hint) if isinstance(error, ReeltuneError) else (error, hint)
    next_step = in_words(next_step)
    more = f'<div class="rt-hint">{text(next_step)}</div>' if next_step else ""
    return f'<div class="rt-problem" role="alert"><div>{text(in_words(message))}</div>{more}</div>'


def failed(error: Exception) -> str:
    """An error that nobody foresaw."""
    message = f"Something went wrong here ({type(error).__name__}: {str(error)[:_MOST_ERROR]})."
    return problem(message, "The terminal shows where. The rest of the page goes on.")


def prompt_text(prompt: str) -> str:
    """A prompt as text; one may have hundreds of thousands of characters, and is sent with every change of its part."""
    return text(shortened(prompt, _MOST_PROMPT))


def good(message: str) -> str:
    """Something that went well."""
    return f'<div class="rt-good" role="status">{text(message)}</div>'


def marked(name: str, value: str) -> str:
    """HTML of a part of the page that changes by itself, with a mark that tells one content from another."""
    return f'<div class="rt-part" data-part="{text(name)}" data-mark="{mark_of(value)}">{value}</div>'


def mark_of(value: object) -> str:
    """A short mark, the same for the same content."""
    return hashlib.sha1(repr(value).encode("utf-8", "replace")).hexdigest()


def notes(lines: Iterable[str]) -> str:
    """Things worth knowing, one a line."""
    given = list(lines)
    shown = [words for line in given[:_MOST_NOTES] if (words := in_words(line))]
    if len(given) > _MOST_NOTES:
        shown.append(f"{counted(len(given) - _MOST_NOTES, 'more note')}.")
    rows = "".join(f"<li>{text(row)}</li>" for row in shown)
    return f'<ul class="rt-notes">{rows}</ul>' if rows else ""
