"""The gallery over the outputs: searched, sorted, a page at a time, each video with the settings inside it."""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune.errors import MediaError, ReeltuneError
from reeltune.media.origin import Origin, read_origin
from reeltune.service import continuing, drafts
from reeltune.service.labels import label_of, value_in_words
from reeltune.service.studio import Studio
from reeltune.service.uploads import export_text, settings_of
from reeltune.web.events import DOWNLOAD, LIVELY, QUIET, Make, Updates, listen, reporting
from reeltune.web.look import Look
from reeltune.web.markup import button, download_link, problem, prompt_text, text, video
from reeltune.web.pick import headline, model_list
from reeltune.web.words import slot_words

PAGE = 24
ORDERS = (("Newest first", "new"), ("Oldest first", "old"), ("Name", "name"), ("Largest file first", "size"))
_MOST_VALUE = 400  # characters of a setting that are shown
_NOT_SHOWN = ("model_type", "image_prompt_type", "video_prompt_type")  # the model and the files tell the same
_MOST_SEARCHED = 20_000  # videos whose words are kept in memory
_EMPTY = '<div class="rt-stage rt-empty">Videos you make appear here.</div>'
_PICK = '<p class="rt-hint">Pick a video to see how it was made.</p>'
_GONE = "That video isn’t here any more."


@dataclass(frozen=True)
class Film:
    """One video of the outputs. `bytes`: of its file."""

    path: Path
    changed: float
    bytes: int = 0


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
    return Film(Path(entry.path), facts.st_mtime, facts.st_size)


def arranged(rows: list[Film], look: Look) -> list[Film]:
    """The videos that hold every searched word in their name, prompt or model, in the chosen order."""
    words = look.words.lower().split()
    if words:
        rows = [row for row in rows if all(word in _searched(row.path, row.changed) for word in words)]
    match look.order:
        case "old":
            return sorted(rows, key=lambda row: (row.changed, row.path.name))
        case "name":
            return sorted(rows, key=lambda row: row.path.name.lower())
        case "size":
            return sorted(rows, key=lambda row: (-row.bytes, row.path.name))
    return rows


@functools.lru_cache(maxsize=_MOST_SEARCHED)
def _searched(path: Path, changed: float) -> str:
    """What a search looks in, in small letters; read again once the video has changed."""
    origin = _origin(path, changed)
    own = [origin.definition, str(origin.settings.get("prompt", ""))] if origin is not None else []
    return "\n".join([path.name, *own]).lower()


def grid(rows: list[Film], look: Look) -> str:
    """One page of the gallery."""
    if not rows:
        return _EMPTY
    found = arranged(rows, look)
    if not found:
        return (
            f'<div class="rt-none" role="status"><p>No video matches “{text(look.words)}”.</p>'
            f"{button('all', 'Show all videos')}</div>"
        )
    last = max(0, (len(found) - 1) // PAGE)
    number = min(max(0, look.page), last)
    cards = "".join(_card(row, look.chosen) for row in found[number * PAGE : (number + 1) * PAGE])
    pages = ""
    if last:
        words = f"<span>Page {number + 1} of {last + 1}, {len(found):,} videos</span>"
        before = button("page", "Previous", page=number - 1) if number else ""
        after = button("page", "Next", page=number + 1) if number < last else ""
        pages = f'<div class="rt-line rt-pages">{words}{before}{after}</div>'
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
        f'<div><p class="rt-prompt">{prompt_text(str(prompt or name))}</p>'
        f'<span class="rt-hint">{text(model or "no settings inside")}</span></div></button>'
    )


def detail(studio: Studio, name: str) -> str:
    """One video, large, with everything that tells how it was made."""
    path = find(studio, name)
    if path is None:
        return problem(_GONE)
    try:
        origin = read_origin(path)
    except MediaError as error:
        return problem(error)
    acts = [button("use", "Use these settings", name=name)] if origin is not None else []
    acts.append(button("continue", "Continue from this video", name=name))
    acts.append(download_link(path, "Download"))
    if origin is not None:
        acts.append(button("export", "Export settings", name=name))
    acts.append(button("delete", "Delete", sure=f"Delete {name} from the disk?", name=name, kind="rt-stop"))
    about = _table(origin, name) if origin is not None else f"<p class='rt-hint'>{text(name)}: no settings inside.</p>"
    return f'<div class="rt-stage">{video(path)}</div><div class="rt-tools">{"".join(acts)}</div>{about}'


def _table(origin: Origin, name: str) -> str:
    rows: dict[str, Any] = {"File": name, "Model": origin.definition, "Made by": origin.program}
    rows |= {
        label_of(key): value_in_words(key, value)
        for key, value in origin.settings.items()
        if value not in ("", None, []) and key not in _NOT_SHOWN
    }
    rows |= {f"File of the {slot_words(slot)}": file for slot, (file, _) in origin.files.items()}
    lines = "".join(
        f"<tr><th>{text(key)}</th><td>{text(str(value)[:_MOST_VALUE])}</td></tr>"
        for key, value in rows.items()
        if value != ""
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
    """Draw the tab; returns its grid, and the state that holds what is looked at."""
    look = gr.State(Look())
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=300):
            with gr.Row(elem_classes="rt-finding"):
                words = gr.Textbox(
                    label="Search", placeholder="Prompt, model or file name", elem_id="gallery-search", scale=3
                )
                order = gr.Dropdown(list(ORDERS), value="new", label="Sort", elem_id="gallery-order", scale=2)
            cards = gr.HTML(grid(films(studio), Look()), **LIVELY, elem_id="gallery")
        with gr.Column(scale=2, min_width=300):
            large = gr.HTML(_PICK, **LIVELY, elem_id="film")

    def searched(written: str, order: str, seen: Look) -> tuple[Any, ...]:
        now = replace(seen, words=written.strip(), order=order, page=0)
        return grid(films(studio), now), now

    def pressed(event: gr.EventData, seen: Look) -> tuple[Any, ...]:
        data = event._data
        if data.get("do") == "page":
            now = replace(seen, page=int(data.get("page") or 0))
            return grid(films(studio), now), gr.skip(), now, gr.skip()
        if data.get("do") == "all":
            now = replace(seen, page=0, words="")
            return grid(films(studio), now), gr.skip(), now, ""
        name = str(data.get("name", ""))
        return gr.skip(), detail(studio, name), replace(seen, chosen=name), gr.skip()

    for event in (words.change, order.change):
        event(searched, [words, order, look], [cards, look], trigger_mode="always_last", **QUIET)
    listen(cards, pressed, look, [cards, large, look, words])
    _acting(studio, draft, tabs, make, (cards, large, look))
    return cards, look


def _acting(studio: Studio, draft: gr.State, tabs: gr.Tabs, make: Make, parts: tuple[Any, ...]) -> None:
    """What the buttons below the large video do."""
    cards, large, look = parts

    @reporting(large)
    def acted(event: gr.EventData, given: drafts.Draft, seen: Look) -> Updates:
        do, name = str(event._data.get("do", "")), str(event._data.get("name", ""))
        path = find(studio, name)
        if path is None:
            return {large: problem(_GONE), cards: grid(films(studio), seen)}
        if do == "delete":
            path.unlink(missing_ok=True)
            return {large: '<p class="rt-hint">Deleted.</p>', cards: grid(films(studio), seen)}
        try:
            if do == "export":
                id, settings, _ = settings_of(path)
                return {make.name: f"{path.stem}_settings.json", make.content: export_text(settings, id)}
            new = continuing.continued(studio, given["id"], path) if do == "continue" else _used(studio, given, path)
        except ReeltuneError as error:
            return {large: detail(studio, name) + problem(error)}
        return {
            draft: new, make.about: headline(studio, new["id"]), make.models: model_list(studio, new["id"]),
            tabs: gr.Tabs(selected="make"), make.name: "", make.content: "",
        }  # fmt: skip

    changed = [draft, tabs, make.about, make.models, cards, large, make.name, make.content]
    listen(large, acted, [draft, look], changed).then(None, [make.name, make.content], None, js=DOWNLOAD, **QUIET)


def _used(studio: Studio, given: drafts.Draft, path: Path) -> drafts.Draft:
    id, settings, unknown = settings_of(path)
    origin = read_origin(path)
    like = origin.architecture if origin is not None else ""
    return drafts.of_file(studio, (id, like, given["id"]), settings, unknown, path.name)
