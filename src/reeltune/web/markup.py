"""Pieces of HTML. Whatever comes from files or people passes `text` before it becomes markup."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from reeltune.errors import ReeltuneError

CLICKS = """
let kept = '';
const find = () => element.querySelector('[data-search]');
const sift = () => {
  const wanted = kept.toLowerCase().split(/\\s+/).filter(Boolean);
  element.querySelectorAll('[data-words]').forEach(row => {
    row.hidden = !wanted.every(word => row.dataset.words.includes(word));
  });
  element.querySelectorAll('[data-group]').forEach(group => {
    group.hidden = !group.querySelector('[data-words]:not([hidden])');
  });
};
element.addEventListener('input', event => {
  if (event.target.matches('[data-search]')) { kept = event.target.value; sift(); }
});
element.addEventListener('click', event => {
  const button = event.target.closest('[data-do]');
  if (!button || button.disabled) return;
  if (button.dataset.sure && !window.confirm(button.dataset.sure)) return;
  if (button.dataset.pick !== undefined) {
    element.querySelectorAll('[data-pick]').forEach(row => row.setAttribute('aria-current', row === button));
  }
  trigger('click', {...button.dataset});
});
const reveal = () => {
  const current = element.querySelector('[data-scroll] [aria-current="true"]');
  const box = current && current.closest('[data-scroll]');
  if (box) box.scrollTop = current.offsetTop - box.offsetTop - box.clientHeight / 3;
};
reveal();
let focused = null;
element.addEventListener('focusin', event => { focused = event.target.dataset.key || null; });
element.addEventListener('focusout', event => { if (event.relatedTarget) focused = null; });
watch('value', () => {
  if (find()) { find().value = kept; sift(); }
  if (focused && document.activeElement === document.body) {
    const again = element.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (again) again.focus();
  }
});
"""  # for gr.HTML: buttons say what they do in data-do; a search box hides rows; focus outlives a refresh


def text(value: object) -> str:
    """Anything as text between tags or in an attribute; signs that nobody can see are shown."""
    shown = "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in str(value))
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


def problem(error: ReeltuneError | str, hint: str = "") -> str:
    """An error in words, with the next step."""
    message, next_step = (error.message, error.hint) if isinstance(error, ReeltuneError) else (error, hint)
    more = f'<div class="rt-hint">{text(next_step)}</div>' if next_step else ""
    return f'<div class="rt-problem" role="alert"><div>{text(message)}</div>{more}</div>'


def good(message: str) -> str:
    """Something that went well."""
    return f'<div class="rt-good" role="status">{text(message)}</div>'


def notes(lines: Iterable[str]) -> str:
    """Things worth knowing, one a line."""
    rows = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<ul class="rt-notes">{rows}</ul>' if rows else ""
