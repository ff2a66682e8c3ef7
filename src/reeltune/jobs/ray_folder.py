"""The working folder of a Ray actor: definitions and inputs that came with the task, links to the weights of the node.

The worker process of the actor runs in this folder as in any root. Weights never travel: `ckpts` and `loras` are links
to those of the node's own root, where downloads go too, with one lock a file as on a single machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from reeltune.errors import FileError, PreferencesError
from reeltune.families.values import Settings
from reeltune.files import expand, make_folder, reason, write_atomic
from reeltune.preferences import load_preferences, save_preferences

TRAVELLING = (  # preferences of the runner that hold on every node; all others are the node's own
    "quantization",
    "dtype",
    "text_encoder_quantization",
    "memory_profile",
    "attention",
    "compile",
    "int8",
    "merge_loras",
)
TEXT_FOLDERS = ("finetunes", "settings")  # what the runner sends completely with each task
NODE_OUTPUTS = "outputs"  # where the worker writes, until the files are sent
_WEIGHT_FOLDERS = ("ckpts", "loras")
_MOST_INPUT_BYTES = 5_000_000_000  # that are kept for later tasks


class NodeFolder:
    """A folder of its own for one actor. `weights`: the root of the node. `device`: what the actor computes on.

    Folders of actors that were killed are removed when the next one is made. Raises FileError.
    """

    def __init__(self, weights: Path, device: str) -> None:
        self.weights = weights
        self._device = device
        base = _base()
        _remove_abandoned(base)
        name = secrets.token_hex(8)
        self._lock = FileLock(base / f"{name}.lock", thread_local=False)
        self._lock.acquire()
        self.path = base / name
        make_folder(self.path)
        for folder in _WEIGHT_FOLDERS:
            make_folder(weights / folder)
            (self.path / folder).symlink_to((weights / folder).absolute(), target_is_directory=True)
        self._inputs: dict[str, str] = {}  # the sha256 of each file by its path, the one that was used last at the end

    # --- before a task ----------------------------------------------------------------------------------------------

    def update(self, texts: Mapping[str, bytes], preferences: Settings) -> None:
        """Take over the definitions, saved settings and preferences of the runner. Raises FileError."""
        for folder in TEXT_FOLDERS:
            for path in sorted((self.path / folder).glob("*")):
                if f"{folder}/{path.name}" not in texts:
                    path.unlink(missing_ok=True)
        for name, content in texts.items():
            path = self.place(name)
            if not (path.is_file() and path.read_bytes() == content):  # unchanged files keep their time
                write_atomic(path, content)
        self._write_preferences(preferences)

    def _write_preferences(self, preferences: Settings) -> None:
        own = load_preferences(self.weights)[0]
        folders = tuple(str((self.weights / expand(folder)).absolute()) for folder in own.model_folders)
        chosen = replace(own, outputs=NODE_OUTPUTS, model_folders=folders, device=self._device, save_quantized=False)
        for name in TRAVELLING:
            if name in preferences:
                with contextlib.suppress(PreferencesError):  # a value of a newer version: the node's own counts
                    chosen = chosen.with_flags(**{name: preferences[name]})
        if load_preferences(self.path)[0] != chosen:
            save_preferences(self.path, chosen)

    def missing(self, files: Iterable[tuple[str, str]]) -> list[str]:
        """Which of these files (path and sha256) have to be sent."""
        return [path for path, sha256 in files if self._inputs.get(path) != sha256 or not self.place(path).is_file()]

    def receive(self, contents: Mapping[str, bytes], used: Iterable[str]) -> None:
        """Store files that came with a task, which uses those in `used`. Raises FileError."""
        used = list(used)
        for name, content in contents.items():
            write_atomic(self.place(name), content)
            self._inputs[name] = hashlib.sha256(content).hexdigest()
        for name in used:
            if name in self._inputs:
                self._inputs[name] = self._inputs.pop(name)  # to the end
        self._forget_inputs(frozenset(used))

    def _forget_inputs(self, used: frozenset[str]) -> None:
        """Delete the files that weren't used for longest, until the others fit the limit."""
        sizes = {name: _bytes(self.place(name)) for name in self._inputs}
        total = sum(sizes.values())
        for name in list(self._inputs):
            if total <= _MOST_INPUT_BYTES:
                return
            if name not in used:
                self.place(name).unlink(missing_ok=True)
                del self._inputs[name]
                total -= sizes[name]

    def place(self, name: str) -> Path:
        """The path of a file that the runner names. Raises FileError for one outside the folder, or in the weights."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or parts[0] in _WEIGHT_FOLDERS or "\0" in name:
            raise FileError(f"{name[:200]!r} can't be stored on a node.")
        return self.path / name

    # --- after a task -----------------------------------------------------------------------------------------------

    def told(self, text: str) -> str:
        """A message of the worker with paths as the node has them, not those of this passing folder."""
        own = f"{self.path}{os.sep}"
        for folder in _WEIGHT_FOLDERS:
            text = text.replace(f"{own}{folder}", str(self.weights / folder))
        return text.replace(own, "")

    def close(self) -> None:
        """Delete the folder; the weights stay."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)


def _base() -> Path:
    """The folder of all actors of this user on this machine. Raises FileError where it is somebody else's."""
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    base = Path(tempfile.gettempdir()) / f"reeltune-ray-{user}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        facts = base.lstat()
    except OSError as error:
        raise FileError(f"{base} can't be created: {reason(error)}.", hint="Set TMPDIR to another folder.") from error
    if not stat.S_ISDIR(facts.st_mode) or (hasattr(os, "getuid") and facts.st_uid != os.getuid()):
        raise FileError(f"{base} belongs to another user.", hint="Set TMPDIR to another folder.")
    return base


def _remove_abandoned(base: Path) -> None:
    """Delete the folders of actors that have ended without doing it."""
    for path in sorted(base.glob("*.lock")):
        lock = FileLock(path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except (Timeout, OSError):  # in use
            continue
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink(missing_ok=True)
        lock.release()


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
