"""Draws the fields of a form as Gradio components, and converts their values back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from reeltune.families.values import Settings
from reeltune.service.fields import FILE_KINDS, FormField, FormValues
from reeltune.service.labels import placeholder_of
from reeltune.service.workspace import Workspace
from reeltune.web.events import QUIET, Options

_IMAGE_SUFFIXES = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]
_FILE_HEIGHT = 200


def draw_field(field: FormField, settings: Settings, workspace: Workspace, version: str) -> Any:
    """The component of a field with its value from the settings.

    `version`: of the draft. The component of another draft is a new one, which keeps nothing that was entered before.
    """
    value = settings.get(field.key)
    common = {
        "label": field.label + (" (required)" if field.required else ""),
        "elem_id": f"field-{field.key}",
        "interactive": True,
        "key": f"{version}-{field.key}",
    }
    if field.kind in FILE_KINDS:
        component = _file_component(field, value, workspace, common)
    else:
        component = _component(field, value, {**common, "info": field.help or None})
    component.preprocess = _unchecked
    return component


def _unchecked(payload: Any) -> Any:
    """The value of a component, or the paths of its files, exactly as entered.

    Gradio's own conversion raises an error before any function of the page is called, for a damaged image or a number
    out of range, for example. The checks of the page report these next to the button instead.
    """
    if isinstance(payload, ListFiles):
        return [file.path for file in payload.root]
    return payload.path if isinstance(payload, FileData | ImageData) else payload


def _component(field: FormField, value: Any, common: Options) -> Any:
    if field.key == "prompt":
        return gr.Textbox(value, lines=3, max_lines=12, placeholder=placeholder_of(field.key), **common)
    match field.kind:
        case "numbers":
            numbers = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
            return gr.Textbox(numbers, lines=1, **common)
        case "loras":
            options = {"multiselect": True, "allow_custom_value": True, **common}
            return gr.Dropdown(list(field.choices), value=value if isinstance(value, list) else [], **options)
        case "lines" | "text" | "seed" | "weights":
            return gr.Textbox("" if value is None else str(value), lines=1, max_lines=8, **common)
        case "size":
            offered = list(field.choices)
            choices = offered if value in [size for _, size in offered] else [(value, value), *offered]
            return gr.Dropdown(choices, value=value, allow_custom_value=True, **common)
        case "choice":
            values = [choice for _, choice in field.choices]
            return gr.Dropdown(list(field.choices), value=value if value in values else values[0], **common)
        case "slider" if _fits_slider(field, value):
            return _slider(field, value, common)
        case "slider" | "whole":
            return gr.Number(value, precision=0, minimum=field.minimum, **common)
    return gr.Number(value, step=field.step or 1, **common)


def _fits_slider(field: FormField, value: Any) -> bool:
    """Whether a slider can show a value without changing it."""
    return type(value) is int and field.step is not None and (value - (field.minimum or 0)) % field.step == 0


def _slider(field: FormField, value: int, common: Options) -> gr.Slider:
    slider = gr.Slider(
        field.minimum,
        max(field.maximum or 1, value),
        value=value,
        step=field.step,
        buttons=[],
        elem_classes=f"rt-rate-{field.rate}" if field.rate else None,
        **common,
    )
    if field.rate:
        slider.change(None, slider, None, js="() => reeltune.lengths()", **QUIET)
    return slider


def _file_component(field: FormField, value: Any, workspace: Workspace, common: Options) -> Any:
    paths = [_existing_path(path, workspace) for path in (value if isinstance(value, list) else [value])]
    files = [str(path) for path in paths if path is not None]
    first_file = files[0] if files else None
    accepted_kind = field.kind if field.kind in ("video", "tracks") else "image"
    options = {**common, "elem_classes": f"rt-takes-{accepted_kind}", "height": _FILE_HEIGHT}
    match field.kind:
        case "image":
            return gr.Image(first_file, type="filepath", sources=["upload", "clipboard"], **options)
        case "images":
            return gr.File(files or None, file_count="multiple", file_types=_IMAGE_SUFFIXES, type="filepath", **options)
        case "tracks":
            return gr.File(first_file, file_types=[".npy"], type="filepath", **options)
    return gr.Video(first_file, sources=["upload"], **options)


def _existing_path(path: Any, workspace: Workspace) -> Path | None:
    real_path = workspace.confined(path) if path else None
    return real_path if real_path is not None and real_path.is_file() else None


def form_values(fields: Sequence[FormField], values: Sequence[Any]) -> FormValues:
    """The values of the components of a form, by setting."""
    return {field.key: _form_value(field, value) for field, value in zip(fields, values, strict=True)}


def _form_value(field: FormField, value: Any) -> Any:
    if field.kind in ("slider", "whole") and isinstance(value, float) and value.is_integer():
        return int(value)
    if field.kind == "numbers" and isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return [int(part) if part.lstrip("-").isdigit() else part for part in parts]
    if field.kind in ("seed", "weights") and isinstance(value, str):
        return value.strip()
    return value
