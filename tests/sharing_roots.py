"""Roots with a finetune of nano of their own, and the command line as their user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

PACKAGE = Path(str(resources.files("reeltune")))
NANO = PACKAGE / "nano"
PROJECT = PACKAGE.parents[1]


def definition_of(name: str) -> dict[str, Any]:
    """A definition in the package."""
    folder = PACKAGE / "definitions" / "data" / "finetunes"
    value: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return value


def glow(root: Path, **model: Any) -> Path:
    """`finetunes/glow.json`, a finetune of nano whose weights are the user's own files."""
    (root / "ckpts").mkdir(parents=True, exist_ok=True)
    (root / "finetunes").mkdir(exist_ok=True)
    for version in ("bf16", "quanto_bf16_int8"):
        shutil.copy(NANO / f"nano_neon_{version}.safetensors", root / "ckpts" / f"glow_{version}.safetensors")
    value = definition_of("nano_neon")
    urls = ["ckpts/glow_bf16.safetensors", "ckpts/glow_quanto_bf16_int8.safetensors"]
    value["model"] |= {"name": "Glow", "URLs": urls, **model}
    path = root / "finetunes" / "glow.json"
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return path


def command(root: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `reeltune` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "reeltune", *words, "--root", str(root)],
        capture_output=True, text=True, cwd=root, check=False, input=stdin, env=environment(),
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}
