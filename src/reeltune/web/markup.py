"""Pieces of HTML. Text from files or people must pass through `text` before it becomes part of them."""

from __future__ import annotations

import hashlib
import html
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from reeltune._text import counted, shortened
from reeltune.errors import ReeltuneError
from reeltune.media.kinds import IMAGE_SUFFIX
from reeltune.service.drafts import Message
from reeltune.service.labels import printable
from reeltune.web.words import NO_LABELS, in_words

_MAX_ERROR_LENGTH = 300  # characters of an unexpected error
_MAX_PROMPT_LENGTH = 2_000
_MAX_NOTICES = 50


def asset(name: str) -> str:
    """The content of a text file in the folder `assets`."""
    return (Path(str(resources.files("reeltune.web"))) / "assets" / name).read_text(encoding="utf-8")


def text(value: object) -> str:
    """A value as text for an element or an attribute."""
    return html.escape(printable(value), quote=True)


def button(
    action: str, label: str, *, title: str = "", confirm: str = "", kind: str = "", key: str = "", **data: object
) -> str:
    """A button that triggers an action of the page.

    `confirm`: a question that must be confirmed first. `kind`: another CSS class. `key`: buttons with the same key
    take the place of each other and keep the focus; by default, those with the same action and data. `data`: sent
    along with the action.
    """
    values = {"do": action, "confirm": confirm, **data}
    data_attributes = "".join(f' data-{name}="{text(value)}"' for name, value in values.items() if value != "")
    key = text(key or f"{action}-{'-'.join(str(value) for value in data.values())}")
    titles = f' title="{text(title)}" aria-label="{text(title)}"' if title else ""
    attributes_html = f'class="rt-button {kind}" data-key="{key}"{data_attributes}{titles}'
    return f'<button type="button" {attributes_html}>{text(label)}</button>'


def video(path: Path, *, poster: bool = False, sound: bool = False) -> str:
    """A video that plays, or an image. A `poster` shows its first frame and plays only while the pointer is over it.

    Browsers let a video begin by itself only if it is muted. One with `sound` has a button that turns its sound on.
    """
    source = f"gradio_api/file={quote(os.fsencode(path))}"
    if path.suffix == IMAGE_SUFFIX:
        return f'<img src="{source}" alt="{text(path.name)}"' + (' loading="lazy">' if poster else ">")
    if poster:
        return f'<video src="{source}" preload="metadata" muted loop playsinline tabindex="-1" data-hover></video>'
    if not sound:
        return f'<video src="{source}" controls autoplay muted loop playsinline></video>'
    unmute = '<button type="button" class="rt-button rt-sound" data-unmute>Turn sound on</button>'
    return f'<video src="{source}" controls autoplay muted loop playsinline data-sound></video>{unmute}'


def download_link(path: Path, label: str) -> str:
    """A link that looks like a button and downloads a file."""
    source = f"gradio_api/file={quote(os.fsencode(path))}"
    return f'<a class="rt-button" href="{source}" download="{text(path.name)}">{text(label)}</a>'


def hint(message: str) -> str:
    """A paragraph of less important text."""
    return f'<p class="rt-hint">{text(message)}</p>'


def problem(error: ReeltuneError | str, next_step: str = "", labels: Mapping[str, str] = NO_LABELS) -> str:
    """An error message and the next step. `labels`: those of a form, by setting."""
    message = error.message if isinstance(error, ReeltuneError) else error
    advice = in_words(error.hint if isinstance(error, ReeltuneError) else next_step, labels)
    advice_html = f'<div class="rt-hint">{text(advice)}</div>' if advice else ""
    return f'<div class="rt-problem" role="alert"><div>{text(in_words(message, labels))}</div>{advice_html}</div>'


def calm(message: str, next_step: str) -> str:
    """A message that is no error, and the next step."""
    return f'<div class="rt-good" role="status"><div>{text(message)}</div>{hint(next_step)}</div>'


def prompt_text(prompt: str) -> str:
    """A prompt as text, cut off where it is far too long: it is sent with every change of its part of the page."""
    return text(shortened(prompt, _MAX_PROMPT_LENGTH))


def unexpected(error: Exception) -> str:
    """The message for an error that is a fault of this program."""
    message = f"An unexpected error occurred ({type(error).__name__}: {str(error)[:_MAX_ERROR_LENGTH]})."
    return problem(message, "The terminal shows details. The rest of the page still works.")


def success(message: str) -> str:
    """A message that something has worked."""
    return f'<div class="rt-good" role="status">{text(message)}</div>'


def answer(message: Message, labels: Mapping[str, str] = NO_LABELS) -> str:
    """The answer to an action, with its notices. `labels`: those of a form, by setting."""
    return success(message.text) + notices_list(message.notices, labels)


def notices_list(notices: Iterable[str], labels: Mapping[str, str] = NO_LABELS) -> str:
    """A list of notices. `labels`: those of a form, by setting."""
    every = list(notices)
    messages = [in_words(notice, labels) for notice in every[:_MAX_NOTICES]]
    if len(every) > _MAX_NOTICES:
        messages.append(f"{counted(len(every) - _MAX_NOTICES, 'more notice')}.")
    items = "".join(f"<li>{text(message)}</li>" for message in messages if message)
    return f'<ul class="rt-notes">{items}</ul>' if items else ""


def marked(name: str, content: str) -> str:
    """HTML of a part that is updated by the clock, with a hash that tells whether it has changed."""
    return f'<div class="rt-part" data-part="{text(name)}" data-mark="{hash_of(content)}">{content}</div>'


def hash_of(value: object) -> str:
    """A short hash, the same for equal values."""
    return hashlib.sha1(repr(value).encode("utf-8", "replace")).hexdigest()
