"""WanGP's published definitions of August 2026, as whole files again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import DATA

LISTS = ("URLs", "URLs2", "preload_URLs", "loras", "text_encoder_URLs", "VAE_URLs")
# What the files hold under the keys of which only the names are known.
OTHER_VALUES = {
    "text_encoder_folder": "qwen", "profile_dirs": [""], "attention": ["sage"], "author": "someone",
    "ltx2_pipeline": "distilled",
    "ltx2_lora_distilled": "https://huggingface.co/DeepBeepMeep/X/resolve/main/distilled-lora.safetensors",
}  # fmt: skip


def facts() -> dict[str, dict[str, Any]]:
    """The facts of every definition, by id."""
    rows = json.loads((DATA / "published-2026.json").read_text(encoding="utf-8"))["definitions"]
    assert len(rows) == 217
    return rows


def definition(id: str, row: dict[str, Any]) -> dict[str, Any]:
    """A whole definition: the names of files become URLs, keys of unknown value get one."""
    model: dict[str, Any] = {"name": id, "description": f"What {id} is."}
    for key, value in row.items():
        if key in LISTS:
            model[key] = _urls(value)
        elif key == "modules":
            model[key] = (
                value if isinstance(value, str) else [_urls(item) if isinstance(item, list) else item for item in value]
            )
        elif key not in ("settings", "other keys"):
            model[key] = value
    model |= {key: OTHER_VALUES.get(key, 1) for key in row.get("other keys", ())}
    return {"model": model, "prompt": "A fox in the snow", **row["settings"]}


def _urls(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return [f"https://huggingface.co/DeepBeepMeep/X/resolve/main/{name}" for name in value]


def write_all(root: Path) -> None:
    """Put all of them into a root."""
    for id, row in facts().items():
        path = root / "finetunes" / f"{id}.json"
        path.write_text(json.dumps(definition(id, row), indent=4), encoding="utf-8")
