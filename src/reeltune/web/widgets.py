"""Fields drawn with Gradio, and what people put into them as settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from reeltune.service.fields import Field
from reeltune.service.labels import placeholder_of
from reeltune.service.studio import Studio
from reeltune.web.events import QUIET

_IMAGES = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]


def draw(field: Field, settings: Mapping[str, Any], studio: Studio, turn: str) -> Any:
    """The component of a field, holding its value from the settings. `turn`: a component of another draft is another
    one, so that nothing of what was put into that shows up here.
    """
    value = settings.get(field.key)
    if field.kind in ("image", "images", "video"):
        return _as_entered(_file(field, value, studio, turn))
    common: dict[str, Any] = {**_common(field, turn), "info": field.help or None}
    return _as_entered(_box(field, value, common))


def _common(field: Field, turn: str) -> dict[str, Any]:
    return {
        "label": field.label + (" (required)" if field.required else ""),
        "elem_id": f"field-{field.key}",
        "interactive": True,
        "key": f"{turn}-{field.key}",
    }


def _box(field: Field, value: Any, common: dict[str, Any]) -> Any:
    if field.key == "prompt":
        return gr.Textbox(value, lines=3, max_lines=12, placeholder=placeholder_of(field.key), **common)
    match field.kind:
        case "numbers":
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
            return gr.Textbox(shown, lines=1, **common)
        case "lines" | "text" | "seed":
            return gr.Textbox("" if value is None else str(value), lines=1, max_lines=8, **common)
        case "size":
            sizes = [row for row, _ in field.choices]
            return gr.Dropdown(
                sizes if value in sizes else [value, *sizes], value=value, allow_custom_value=True, **common
            )
        case "choice":
            known = [row for _, row in field.choices]
            return gr.Dropdown(list(field.choices), value=value if value in known else known[0], **common)
        case "slider" if _on_grid(field, value):
            return _slider(field, value, common)
        case "slider" | "whole":
            return gr.Number(value, precision=0, minimum=field.least, **common)
    return gr.Number(value, step=field.step or 1, **common)


def _slider(field: Field, value: int, common: dict[str, Any]) -> gr.Slider:
    slider = gr.Slider(
        field.least, max(field.most or 1, value), value=value, step=field.step, buttons=[], **common,
        elem_classes=f"rt-rate-{field.rate}" if field.rate else None,
    )  # fmt: skip
    if field.rate:
        slider.change(None, slider, None, js="() => reeltune.lengths()", **QUIET)
    return slider


def _as_entered(component: Any) -> Any:
    """The component, which gives a job's settings what was entered as it is.

    Gradio's own conversions raise before any function of the page is called: for an image that can't be read, a number
    out of range. The page's checks say what is wrong, beside the button.
    """
    component.preprocess = _entered
    return component


def _entered(payload: Any) -> Any:
    """A value, or the paths of files."""
    if isinstance(payload, ListFiles):
        return [row.path for row in payload.root]
    return payload.path if isinstance(payload, FileData | ImageData) else payload


def _on_grid(field: Field, value: Any) -> bool:
    """Whether a slider can hold a value without changing it."""
    return type(value) is int and field.step is not None and (value - (field.least or 0)) % field.step == 0


def _file(field: Field, value: Any, studio: Studio, turn: str) -> Any:
    paths = [_existing(path, studio) for path in (value if isinstance(value, list) else [value])]
    kept = [str(path) for path in paths if path is not None]
    takes = "video" if field.kind == "video" else "image"
    options = _common(field, turn) | {"elem_classes": f"rt-takes-{takes}"}
    if field.kind == "image":
        return gr.Image(
            kept[0] if kept else None, type="filepath", sources=["upload", "clipboard"], height=200, **options
        )
    if field.kind == "images":
        return gr.File(kept or None, file_count="multiple", file_types=_IMAGES, type="filepath", height=200, **options)
    return gr.Video(kept[0] if kept else None, sources=["upload"], height=200, **options)


def _existing(path: Any, studio: Studio) -> Path | None:
    found = studio.confined(path) if isinstance(path, str | Path) and path else None
    return found if found is not None and found.is_file() else None


def settings_from(fields: list[Field], values: tuple[Any, ...]) -> dict[str, Any]:
    """What the components hold, by setting."""
    return {field.key: _clean(field, value) for field, value in zip(fields, values, strict=True)}


def _clean(field: Field, value: Any) -> Any:
    if field.kind in ("slider", "whole") and isinstance(value, float) and value.is_integer():
        return int(value)
    if field.kind == "numbers" and isinstance(value, str):
        rows = [row.strip() for row in value.split(",") if row.strip()]
        return [int(row) if row.lstrip("-").isdigit() else row for row in rows]
    if field.kind == "seed" and isinstance(value, str):
        return value.strip()
    return value
