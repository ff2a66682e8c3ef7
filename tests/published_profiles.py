"""Profiles for tests: the published ones as files, and small ones by hand."""

import json
from pathlib import Path
from typing import Any

from conftest import DATA


def published() -> dict[str, dict[str, Any]]:
    """The published profiles by path: folder/name.json."""
    rows = json.loads((DATA / "profiles-2026.json").read_text(encoding="utf-8"))["profiles"]
    assert len(rows) == 25
    return rows


def write(place: Path, profiles: dict[str, Any]) -> None:
    """Write profiles, by path, to a folder that contains folders of profiles."""
    for name, content in profiles.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(raw)
