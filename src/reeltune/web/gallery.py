"""The gallery over the outputs: newest first, a page at a time, each video with the settings inside it."""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune.errors import MediaError, ReeltuneError
from reeltune.media.origin import Origin, read_origin
from reeltune.web import drafts
from reeltune.web.events import DOWNLOAD, LIVELY, QUIET, Make, Updates, listen, reporting
from reeltune.web.labels import label_of
from reeltune.web.markup import button, good, problem, text, video
from reeltune.web.pick import headline
from reeltune.web.studio import Studio
from reeltune.web.uploads import export_text, settings_of

PAGE = 24
_MOST_VALUE = 400  # characters of a setting that are shown


@dataclass(frozen=True)
class Film:
    """One video of the outputs."""

    path: Path
    changed: float


def films(studio: Studio) -> list[Film]:
    """All videos in the outputs folder, the newest first."""
    found = []
    try:
        with os.scandir(studio.outputs) as entries:
            for entry in entries:
                film = _film(entry)
                if film is not None:
                    found.append(film)
    except (OSError, ReeltuneError):  # no folder yet, or preferences that the configuration tells about
        return []
    return sorted(found, key=lambda row: (-row.changed, row.path.name))


def _film(entry: os.DirEntry[str]) -> Film | None:
    """The video of an entry; None for anything else, and for what can't be looked at."""
    if not entry.name.endswith(".mp4") or entry.name.startswith("."):
        return None
    try:
        facts = entry.stat()
    except OSError:  # removed meanwhile, or a link that leads nowhere
        return None
    if not stat.S_ISREG(facts.st_mode) or not facts.st_size:  # empty: a name taken for a video being written
        return None
    return Film(Path(entry.path), facts.st_mtime)


def grid(rows: list[Film], number: int, chosen: str = "") -> str:
    """One page of the gallery."""
    last = max(0, (len(rows) - 1) // PAGE)
    number = min(max(0, number), last)
    if not rows:
        return '<div class="rt-stage rt-empty">Videos you make gather here.</div>'
    cards = "".join(_card(row, chosen) for row in rows[number * PAGE : (number + 1) * PAGE])
    pages = ""
    if last:
        words = f"<span>Page {number + 1} of {last + 1}, {len(rows):,} videos</span>"
        newer = button("page", "Newer", page=number - 1) if number else ""
        older = button("page", "Older", page=number + 1) if number < last else ""
        pages = f'<div class="rt-line rt-pages">{words}{newer}{older}</div>'
    return f'{pages}<div class="rt-grid">{cards}</div>{pages}'


@functools.lru_cache(maxsize=20 * PAGE)
def _origin(path: Path, changed: float) -> Origin | None:
    """How a video was made, where it tells; read again once it has changed."""
    try:
        return read_origin(path)
    except MediaError:
        return None


def _card(row: Film, chosen: str) -> str:
    name = row.path.name
    origin = _origin(row.path, row.changed)
    prompt = origin.settings.get("prompt") if origin else None
    model = origin.definition if origin else ""
    return (
        f'<button type="button" class="rt-card" data-film data-do="open" data-pick data-name="{text(name)}" '
        f'data-key="open-{text(name)}" aria-current="{str(name == chosen).lower()}">{video(row.path, poster=True)}'
        f'<div><p class="rt-prompt">{text(prompt or name)}</p>'
        f'<span class="rt-hint">{text(model or "no settings inside")}</span></div></button>'
    )


def detail(studio: Studio, name: str) -> str:
    """One video, large, with everything that tells how it was made."""
    path = find(studio, name)
    if path is None:
        return problem("That video isn’t here any more.")
    try:
        origin = read_origin(path)
    except MediaError as error:
        return problem(error)
    shown = f'<div class="rt-stage">{video(path)}</div>'
    if origin is None:
        return f"{shown}<p class='rt-hint'>{text(name)}: no settings inside.</p>"
    acts = button("use", "Use these settings", name=name) + button("export", "Export settings", name=name)
    gone = button("delete", "Delete", sure=f"Delete {name} from the disk?", name=name, kind="rt-stop")
    return f'{shown}<div class="rt-tools">{acts}{gone}</div>{_table(origin, name)}'


def _table(origin: Origin, name: str) -> str:
    rows: dict[str, Any] = {"File": name, "Model": origin.definition, "Made by": origin.program}
    rows |= {label_of(key): value for key, value in origin.settings.items() if value not in ("", None, [])}
    rows |= {slot: file for slot, (file, _) in origin.files.items()}
    lines = "".join(
        f"<tr><th>{text(key)}</th><td>{text(str(value)[:_MOST_VALUE])}</td></tr>" for key, value in rows.items()
    )
    return f'<table class="rt-table">{lines}</table>'


def find(studio: Studio, name: str) -> Path | None:
    """The video of a name in the outputs; None for any other path.

    A name that isn't valid Unicode reaches the browser, and comes back, with a replacement for what can't be shown.
    """
    if not name.endswith(".mp4") or Path(name).name != name:
        return None
    path = studio.confined(studio.outputs / name)
    if (path is None or not path.is_file()) and "\ufffd" in name:
        paths = [film.path for film in films(studio) if unescape(text(film.path.name)) == name]
        path = studio.confined(paths[0]) if len(paths) == 1 else None
    return path if path is not None and path.is_file() else None


def gallery_tab(studio: Studio, draft: gr.State, tabs: gr.Tabs, make: Make) -> tuple[gr.HTML, gr.State]:
    """Draw the tab; returns its grid, and the number of the page that shows."""
    number = gr.State(0)
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=300):
            cards = gr.HTML(grid(films(studio), 0), **LIVELY, elem_id="gallery")
        with gr.Column(scale=2, min_width=300):
            large = gr.HTML('<p class="rt-hint">Pick a video to see how it was made.</p>', **LIVELY, elem_id="film")

    def pressed(event: gr.EventData, page: int) -> tuple[Any, ...]:
        if event._data.get("do") == "page":
            page = int(event._data.get("page") or 0)
            return grid(films(studio), page), gr.skip(), page
        return gr.skip(), detail(studio, str(event._data.get("name", ""))), page

    @reporting(large)
    def acted(event: gr.EventData, given: drafts.Draft, page: int) -> Updates:
        do, name = str(event._data.get("do", "")), str(event._data.get("name", ""))
        path = find(studio, name)
        if path is None:
            return {large: problem("That video isn’t here any more."), cards: grid(films(studio), page)}
        if do == "delete":
            path.unlink(missing_ok=True)
            return {large: '<p class="rt-hint">Deleted.</p>', cards: grid(films(studio), page)}
        try:
            id, settings, unknown = settings_of(path)
        except ReeltuneError as error:
            return {large: detail(studio, name) + problem(error)}
        if do == "export":
            return {make.name: f"{path.stem}_settings.json", make.content: export_text(settings, id)}
        used = id if id in studio.catalog() else given["id"]
        message = good(f"The settings of {name} are in the form.")
        draft_of_it = drafts.of_settings(studio, used, settings, unknown) | {"message": message}
        shown = {draft: draft_of_it, make.about: headline(studio, used), tabs: gr.Tabs(selected="make")}
        return {**shown, make.name: "", make.content: ""}

    listen(cards, pressed, number, [cards, large, number])
    listen(large, acted, [draft, number], [draft, tabs, make.about, cards, large, make.name, make.content]).then(
        None, [make.name, make.content], None, js=DOWNLOAD, **QUIET
    )
    return cards, number
