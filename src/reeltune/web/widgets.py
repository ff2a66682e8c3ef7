"""Fields drawn with Gradio, and what people put into them as settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from reeltune.web.fields import Field
from reeltune.web.studio import Studio

_IMAGES = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]
_VIDEOS = [".mp4", ".webm", ".mov", ".mkv", ".gif"]


def draw(field: Field, settings: Mapping[str, Any], studio: Studio, turn: str) -> Any:
    """The component of a field, holding its value from the settings. `turn`: a component of another draft is another
    one, so that nothing of what was put into that shows up here.
    """
    value = settings.get(field.key)
    label = field.label + (" (needed)" if field.required else "")
    common: dict[str, Any] = {
        "label": label,
        "info": field.help,
        "elem_id": f"field-{field.key}",
        "interactive": True,
        "key": f"{turn}-{field.key}",
    }
    if field.key == "prompt":
        return gr.Textbox(value, lines=3, max_lines=12, autofocus=True, **common)
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
            return gr.Slider(
                field.least, max(field.most or 1, settings[field.key]), value=value, step=field.step, **common
            )
        case "slider" | "whole":
            return gr.Number(value, precision=0, minimum=field.least, **common)
        case "number":
            return gr.Number(value, step=field.step, **common)
    return _file(field, value, studio, label, turn)


def _on_grid(field: Field, value: Any) -> bool:
    """Whether a slider can hold a value without changing it."""
    return type(value) is int and field.step is not None and (value - (field.least or 0)) % field.step == 0


def _file(field: Field, value: Any, studio: Studio, label: str, turn: str) -> Any:
    paths = [_existing(path, studio) for path in (value if isinstance(value, list) else [value])]
    kept = [str(path) for path in paths if path is not None]
    options: dict[str, Any] = {
        "label": label,
        "elem_id": f"field-{field.key}",
        "interactive": True,
        "key": f"{turn}-{field.key}",
    }
    if field.kind == "image":
        return gr.Image(
            kept[0] if kept else None, type="filepath", sources=["upload", "clipboard"], height=200, **options
        )
    if field.kind == "images":
        return gr.File(kept or None, file_count="multiple", file_types=_IMAGES, type="filepath", **options)
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
