"""Folders that contain one component each, as diffusers and transformers write them."""

from __future__ import annotations

from pathlib import Path

from reeltune.checkpoints.formats import loadable_endings
from reeltune.errors import FileError, InvalidJSON
from reeltune.families import Component
from reeltune.files import is_file, read_bytes
from reeltune.untrusted import parse_json

_SUFFIXES = loadable_endings()
_SHARD_INDEX = ".index.json"  # exists only for weights that are split into several files
_MAX_INDEX_BYTES = 20_000_000
_MAX_CONFIG_BYTES = 1_000_000
_BYTES = "ByT5Tokenizer"
_TOKENIZER_OR_PROCESSOR = {"tokenizer.json", "vocab.json", "spiece.model", "preprocessor_config.json"}


def component_files(path: Path, component: Component) -> list[Path]:
    """The files of a component at `path`, which is a folder or a single file."""
    if not path.is_dir():
        return [path]
    return sorted({file for pattern in component.files for file in path.glob(pattern) if file.is_file()})


def is_whole_component(folder: Path) -> bool:
    """Whether a folder in the Hub's cache has all files of its component; an interrupted download may lack some.

    Weights need a config, and every file that their index names. A tokenizer needs its vocabulary.
    """
    try:
        names = {path.name for path in folder.iterdir() if is_file(path)}
    except OSError:
        return False
    index = next((name for name in sorted(names) if name.endswith(_SHARD_INDEX)), "")
    if index:
        return _names_in_index(folder / index) <= names and "config.json" in names
    if any(name.endswith(_SUFFIXES) for name in names):
        return "config.json" in names
    return bool(names & _TOKENIZER_OR_PROCESSOR) or _is_tokenizer_of_bytes(folder)


def _is_tokenizer_of_bytes(folder: Path) -> bool:
    """Whether a folder has the tokenizer of ByT5, which needs no vocabulary."""
    path = folder / "tokenizer_config.json"
    try:
        content = parse_json(read_bytes(path, _MAX_CONFIG_BYTES), path.name)
    except (FileError, InvalidJSON):
        return False
    return isinstance(content, dict) and content.get("tokenizer_class") == _BYTES


def _names_in_index(path: Path) -> set[str]:
    """The files that the index of split weights names; an impossible name if it can't be read."""
    try:
        content = parse_json(read_bytes(path, _MAX_INDEX_BYTES), path.name)
    except (FileError, InvalidJSON):
        return {""}
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        return {""}
    return {name if isinstance(name, str) else "" for name in files.values()}


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has all files of a tokenizer."""
    if is_file(folder / "tokenizer.json"):
        return True
    return is_file(folder / "vocab.json") and is_file(folder / "merges.txt")
