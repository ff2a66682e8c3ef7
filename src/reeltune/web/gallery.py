"""The Gallery tab: videos searched, sorted and shown a page at a time, each with the settings it was made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune.errors import MediaError, ReeltuneError
from reeltune.media.origin import Origin, read_origin
from reeltune.media.soundtrack import SoundTrack
from reeltune.service.continuing import continuation_draft
from reeltune.service.drafts import VideoDraft, draft_of_stored
from reeltune.service.gallery import (
    GalleryPage,
    GalleryQuery,
    GalleryVideo,
    SortOrder,
    find_video,
    gallery_page,
    origin_of,
    sound_of,
)
from reeltune.service.labels import label_of, loras_in_words, value_in_words
from reeltune.service.settings_files import read_settings_of
from reeltune.service.workspace import Workspace
from reeltune.settings import settings_text
from reeltune.web.events import DOWNLOAD, LIVELY, QUIET, MakeComponents, Updates, button_data, on_button, reporting
from reeltune.web.gallery_state import GalleryState
from reeltune.web.markup import button, download_link, hint, problem, prompt_text, text, video
from reeltune.web.model_panel import model_description, model_list
from reeltune.web.words import slot_in_words

_SORT_CHOICES = [
    ("Newest first", str(SortOrder.NEWEST)),
    ("Oldest first", str(SortOrder.OLDEST)),
    ("Name", str(SortOrder.NAME)),
    ("Largest file first", str(SortOrder.LARGEST)),
]
_MAX_VALUE_LENGTH = 400  # characters of a setting that are shown
_HIDDEN_SETTINGS = ("model_type", "image_prompt_type", "video_prompt_type")  # the model and the inputs are shown
_EMPTY = '<div class="rt-stage rt-empty">Videos you make appear here.</div>'
_NOTHING_OPEN = hint("Select a video to see how it was made.")
_GONE = "The video no longer exists."
_OPEN_VIDEO_JS = "reeltune.lively(element, trigger, watch, reeltune.opened);"


# --- HTML -------------------------------------------------------------------------------------------------------


def video_grid(workspace: Workspace, state: GalleryState) -> str:
    """One page of the gallery."""
    page = gallery_page(workspace, state.query)
    if not page.total:
        return _EMPTY
    if not page.matches:
        show_all = button("all", "Show all videos")
        message = f"No video matches “{text(state.query.words)}”."
        return f'<div class="rt-none" role="status"><p>{message}</p>{show_all}</div>'
    cards = "".join(_card(video, state.open_video) for video in page.videos)
    pages = _page_buttons(page)
    return f'{pages}<div class="rt-grid">{cards}</div>{pages}'


def _page_buttons(page: GalleryPage) -> str:
    if page.page_count == 1:
        return ""
    label = f"<span>Page {page.page + 1} of {page.page_count}, {page.matches:,} videos</span>"
    previous = button("page", "Previous", page=page.page - 1) if page.page > 0 else ""
    following = button("page", "Next", page=page.page + 1) if page.page + 1 < page.page_count else ""
    return f'<div class="rt-line rt-pages">{label}{previous}{following}</div>'


def _card(gallery_video: GalleryVideo, open_video: str) -> str:
    name = gallery_video.path.name
    origin = origin_of(gallery_video)
    prompt = origin.settings.get("prompt") if origin else None
    loras = loras_in_words(origin.settings) if origin else ""
    model = (f"{origin.definition} + {loras}" if loras else origin.definition) if origin else ""
    sound = " · with sound" if sound_of(gallery_video.path) is not None else ""
    return (
        f'<button type="button" class="rt-card" data-film data-do="open" data-pick data-name="{text(name)}" '
        f'data-key="open-{text(name)}" aria-current="{str(name == open_video).lower()}">'
        f"{video(gallery_video.path, poster=True)}"
        f'<div><p class="rt-prompt">{prompt_text(prompt or name)}</p>'
        f'<span class="rt-hint">{text((model or "no settings stored") + sound)}</span></div></button>'
    )


def video_details(workspace: Workspace, name: str) -> str:
    """A large video with buttons and a table of how it was made."""
    path = find_video(workspace, name)
    if path is None:
        return problem(_GONE)
    try:
        origin = read_origin(path)
    except MediaError as error:
        return problem(error)
    buttons = [
        button("continue", "Continue from this video", name=name),
        download_link(path, "Download"),
        button("delete", "Delete", confirm=f"Delete {name} from the disk?", name=name, kind="rt-stop"),
    ]
    if origin is not None:
        buttons.insert(0, button("use", "Use these settings", name=name))
        buttons.insert(-1, button("export", "Export settings", name=name))
    sound = sound_of(path)
    table = _table(origin, name, sound) if origin is not None else hint(f"{name}: no settings stored.")
    back = '<a class="rt-button rt-back" href="#gallery">Back to the videos</a>'
    player = video(path, sound=sound is not None)
    return f'<div class="rt-stage">{player}</div><div class="rt-tools">{"".join(buttons)}{back}</div>{table}'


def _table(origin: Origin, name: str, sound: SoundTrack | None) -> str:
    cells: dict[str, Any] = {"File": name, "Model": origin.definition, "Made by": origin.program}
    if sound is not None:
        cells["Sound"] = sound
    for key, value in origin.settings.items():
        if value not in ("", None, []) and key not in _HIDDEN_SETTINGS:
            cells[label_of(key)] = value_in_words(key, value)
    for slot, (file_name, _) in origin.files.items():
        cells[f"File of the {slot_in_words(slot)}"] = file_name
    rows = "".join(
        f"<tr><th>{text(label)}</th><td>{text(str(value)[:_MAX_VALUE_LENGTH])}</td></tr>"
        for label, value in cells.items()
        if value != ""
    )
    return f'<table class="rt-table">{rows}</table>'


# --- the tab ----------------------------------------------------------------------------------------------------


def gallery_tab(workspace: Workspace, draft: gr.State, tabs: gr.Tabs, make: MakeComponents) -> tuple[gr.HTML, gr.State]:
    """Draw the tab; returns its cards and the state of the gallery."""
    state = gr.State(GalleryState())
    with gr.Row(elem_classes="rt-columns"):
        with gr.Column(scale=3, min_width=300):
            with gr.Row(elem_classes="rt-finding"):
                search = gr.Textbox(
                    label="Search", placeholder="Prompt, model or file name", elem_id="gallery-search", scale=3
                )
                order = gr.Dropdown(
                    _SORT_CHOICES, value=str(SortOrder.NEWEST), label="Sort", elem_id="gallery-order", scale=2
                )
            cards = gr.HTML(video_grid(workspace, GalleryState()), **LIVELY, elem_id="gallery")
        with gr.Column(scale=2, min_width=300):
            options = {**LIVELY, "js_on_load": _OPEN_VIDEO_JS}
            details = gr.HTML(_NOTHING_OPEN, **options, elem_id="film")

    def searched(words: str, selected_order: str, current: GalleryState) -> tuple[Any, ...]:
        new_state = replace(current, query=GalleryQuery(words.strip(), selected_order))
        return video_grid(workspace, new_state), new_state

    def pressed(event: gr.EventData, current: GalleryState) -> Updates:
        action = button_data(event, "do")
        if action == "open":
            name = button_data(event, "name")
            return {details: video_details(workspace, name), state: replace(current, open_video=name)}
        if action == "all":
            new_state = replace(current, query=replace(current.query, page=0, words=""))
            return {cards: video_grid(workspace, new_state), state: new_state, search: ""}
        page = int(button_data(event, "page") or 0)
        new_state = replace(current, query=replace(current.query, page=page))
        return {cards: video_grid(workspace, new_state), state: new_state}

    for changed in (search.change, order.change):
        changed(searched, [search, order, state], [cards, state], trigger_mode="always_last", **QUIET)
    on_button(cards, pressed, state, [cards, details, state, search])
    _attach_details(workspace, (draft, state), (cards, details, tabs), make)
    return cards, state


def _attach_details(
    workspace: Workspace,
    states: tuple[gr.State, gr.State],
    components: tuple[gr.HTML, gr.HTML, gr.Tabs],
    make: MakeComponents,
) -> None:
    """Attach the buttons of the open video. `states`: draft and gallery; `components`: cards, details and tabs."""
    draft, state = states
    cards, details, tabs = components

    @reporting(details)
    def pressed(event: gr.EventData, current: VideoDraft, gallery: GalleryState) -> Updates:
        action, name = button_data(event, "do"), button_data(event, "name")
        path = find_video(workspace, name)
        if path is None:
            return {details: problem(_GONE), cards: video_grid(workspace, gallery)}
        if action == "delete":
            path.unlink(missing_ok=True)
            return {details: hint(f"{name} was deleted."), cards: video_grid(workspace, gallery)}
        try:
            if action == "export":
                return _exported(make, path)
            new = _draft_of_video(workspace, current, path, action)
        except ReeltuneError as error:
            return {details: video_details(workspace, name) + problem(error)}
        return {
            draft: new,
            make.about: model_description(workspace, new.id),
            make.models: model_list(workspace, new.id),
            tabs: gr.update(selected="make"),
            make.file_name: "",
            make.file_content: "",
        }

    file = [make.file_name, make.file_content]
    outputs = [draft, tabs, make.about, make.models, cards, details, *file]
    on_button(details, pressed, [draft, state], outputs).then(None, file, None, js=DOWNLOAD, **QUIET)


def _exported(make: MakeComponents, path: Path) -> Updates:
    stored = read_settings_of(path)
    content = settings_text(stored.definition, stored.settings)
    return {make.file_name: f"{path.stem}_settings.json", make.file_content: content}


def _draft_of_video(workspace: Workspace, current: VideoDraft, path: Path, action: str) -> VideoDraft:
    """A draft with the settings of a video, or one that continues it. Raises ReeltuneError."""
    if action == "continue":
        return continuation_draft(workspace, current.id, path)
    return draft_of_stored(workspace, current.id, read_settings_of(path), path.name)
