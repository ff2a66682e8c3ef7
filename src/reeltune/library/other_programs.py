"""Folders of other programs: which folders have the files of a WanGP or ComfyUI installation that the user names.

The user names an installation or its folder of models in the preference `model_folders`. ComfyUI's
`extra_model_paths.yaml` names more folders, which are searched as well. Nothing is ever written into any of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from reeltune.errors import FileError
from reeltune.files import expand, is_file, is_folder, read_bytes, reason

_EXTRA_PATHS = "extra_model_paths.yaml"
_MAX_YAML_BYTES = 1_000_000
_MAX_FOLDERS = 200
_OTHER_KINDS = frozenset(  # folders of ComfyUI that have neither weights nor LoRAs of video models
    {
        "controlnet", "custom_nodes", "embeddings", "hypernetworks", "upscale_models", "style_models", "gligen",
        "configs", "photomaker", "classifiers", "vae_approx", "ipadapter", "is_default", "base_path",
    }
)  # fmt: skip


@dataclass(frozen=True)
class SearchFolders:
    """The folders to search for weights, in this order, and notices about files that name such folders.

    `sources`: the source folders of ComfyUI installations, which have its tokenizers.
    """

    folders: tuple[Path, ...] = ()
    sources: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()


def search_folders(root: Path, model_folders: Sequence[str]) -> SearchFolders:
    """The folders that the preference `model_folders` stands for. A folder that doesn't exist stays in the list."""
    folders: list[Path] = []
    sources: list[Path] = []
    notices: list[str] = []
    for text in model_folders:
        named = root / expand(text)
        folders.append(_weights_folder(named))
        for home in (named, named.parent):
            if not _is_comfyui(home):
                continue
            sources.append(home)
            if is_file(home / _EXTRA_PATHS):
                folders += _folders_in_yaml(home / _EXTRA_PATHS, notices)
    unique = list(dict.fromkeys(folders))
    if len(unique) > _MAX_FOLDERS:
        notices.append(f"Only the first {_MAX_FOLDERS} of {len(unique)} model folders are searched.")
    return SearchFolders(tuple(unique[:_MAX_FOLDERS]), tuple(dict.fromkeys(sources)), tuple(notices))


def _weights_folder(named: Path) -> Path:
    """The folder with the weights of an installation; the folder itself if it isn't one."""
    if _is_comfyui(named) and is_folder(named / "models"):
        return named / "models"
    if is_file(named / "wgp.py") and is_folder(named / "ckpts"):
        return named / "ckpts"
    return named


def _is_comfyui(folder: Path) -> bool:
    """Whether a folder is an installation of ComfyUI."""
    return is_folder(folder / "comfy") or is_file(folder / _EXTRA_PATHS)


def _folders_in_yaml(path: Path, notices: list[str]) -> list[Path]:
    """The folders that an `extra_model_paths.yaml` names; adds a notice for a file that can't be read."""
    try:
        content = yaml.safe_load(read_bytes(path, _MAX_YAML_BYTES).decode("utf-8-sig"))
    except FileError as error:
        notices.append(f"{path} is not used: {error.message}")
        return []
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        notices.append(f"{path} is not used, because it is no valid YAML: {reason(error).splitlines()[0]}.")
        return []
    if not isinstance(content, Mapping):
        if content is not None:
            notices.append(f"{path} is not used: it has no sections.")
        return []
    folders: list[Path] = []
    for section in content.values():
        if isinstance(section, Mapping):
            folders += _folders_in_section(section, path.parent)
    return folders


def _folders_in_section(section: Mapping[object, object], home: Path) -> Iterator[Path]:
    """The folders of one section: each key has one path, or one per line, relative to `base_path`."""
    base_path = section.get("base_path")
    base = home
    if isinstance(base_path, str) and base_path.strip():
        base = home / expand(os.path.expandvars(base_path.strip()))
    for kind, paths in section.items():
        if kind in _OTHER_KINDS or not isinstance(paths, str):
            continue
        for line in paths.splitlines():
            text = line.partition(" #")[0].strip()  # in a block of lines, YAML keeps what was meant as a comment
            if text and "\0" not in text:
                yield Path(os.path.normpath(base / expand(os.path.expandvars(text))))
