"""Where a merged file, or an extracted LoRA, comes from: what its metadata say of the files that were read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reeltune._version import __version__
from reeltune.checkpoints.header import read_header
from reeltune.checkpoints.metadata import config_if_any
from reeltune.errors import CheckpointError
from reeltune.events import CancelToken, Listener, Progress
from reeltune.files import reason
from reeltune.untrusted import JsonObject, clean_text
from reeltune.weights.draft import known_sha256
from reeltune.weights.lora import Applied
from reeltune.weights.merging.methods import Method
from reeltune.weights.model_file import ModelFile
from reeltune.weights.parts import files_of, name_of_all

MERGE_KEY = "reeltune_merge"
_LORAS_KEY = "reeltune_loras"
_LICENSE_KEYS = ("license", "modelspec.license", "general.license")
_MOST_CHARACTERS = 20_000  # of what a source says of its own sources
_MOST_LICENSE = 200  # characters
_REPORT_SECONDS = 0.2
_CHUNK = 8 * 1024 * 1024
Hashes = Mapping[Path, str]


class Weighted(Protocol):
    """A model and its weight. `license`: what its definition says; empty if it says nothing."""

    @property
    def path(self) -> Path:
        """The file, or one of a set."""

    @property
    def weight(self) -> float:
        """The weight that was given to it."""

    @property
    def license(self) -> str:
        """The license that its definition names."""


def hash_files(paths: Sequence[Path], listener: Listener, cancel: CancelToken) -> Hashes:
    """The sha256 of files, and of all files of the sets among them. Known ones are not computed again.

    Raises CheckpointError for a file that can't be read, and Cancelled.
    """
    files = list(dict.fromkeys(file for path in paths for file in files_of(path)))
    total = sum(file.stat().st_size for file in files if file.is_file())
    done = dict.fromkeys(files, 0)
    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1), "sha256") as pool:
        jobs = {file: pool.submit(_digest, file, done, cancel) for file in files}
        waiting = set(jobs.values())
        while waiting:
            _, waiting = wait(waiting, _REPORT_SECONDS)
            listener(Progress("sha256", sum(done.values()), total, "bytes"))
        return {file: job.result() for file, job in jobs.items()}


def _digest(file: Path, done: dict[Path, int], cancel: CancelToken) -> str:
    """The sha256 of a file; counts its bytes in `done`."""
    known = known_sha256(file)
    if known:
        done[file] = file.stat().st_size
        return known
    digest = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK):
                cancel.check()
                digest.update(chunk)
                done[file] += len(chunk)
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {reason(error)}.") from error
    return digest.hexdigest()


@dataclass(frozen=True)
class Provenance:
    """How a file was merged, and the sha256 of the files that were read."""

    method: Method
    density: float
    models: Sequence[Weighted]
    base: Path | None
    hashes: Hashes

    def metadata(self, opened: Sequence[ModelFile], applied: Sequence[Applied]) -> dict[str, str]:
        """The metadata of the new file: the config of the first model, and `reeltune_merge`, a JSON object.

        `opened`: the models, and then the base model, if any. `applied`: the LoRAs.
        """
        metadata = {"format": "pt", "reeltune_version": __version__}
        config = config_if_any(opened[0].parts.header.metadata)
        if config:
            metadata["config_base64"] = base64.b64encode(json.dumps(config).encode("utf-8")).decode("ascii")
        entries = []
        for model, file in zip(self.models, opened, strict=False):
            entry = {**source_entry(file, self.hashes, model.license), "weight": model.weight}
            entries.append(entry)
        provenance: JsonObject = {"method": str(self.method), "models": entries}
        if self.method is Method.TIES:
            provenance["density"] = self.density
        if self.base is not None:
            provenance["base"] = source_entry(opened[-1], self.hashes)
        loras = [self._lora_entry(lora) for lora in applied]
        if loras:
            provenance["loras"] = loras
        licenses = {str(entry.get("license", "")) for entry in [*entries, *loras]}
        if len(licenses) == 1 and "" not in licenses:
            metadata["license"] = licenses.pop()
        metadata[MERGE_KEY] = json.dumps(provenance)
        return metadata

    def _lora_entry(self, lora: Applied) -> JsonObject:
        path = next(path for path in self.hashes if path.name == lora.name)
        entry: JsonObject = {"name": clean_text(lora.name), "weight": lora.weight, "sha256": self.hashes[path]}
        license = _license(read_header(path).metadata)
        return {**entry, "license": license} if license else entry


def source_entry(file: ModelFile, hashes: Hashes, license: str = "") -> JsonObject:
    """What is told of a model: its name, sha256, license, and what it says it was merged from.

    `license`: what its definition says.
    """
    old = file.parts.header.metadata
    entry: JsonObject = {"name": clean_text(name_of_all(file.path))}
    files = file.parts.files
    if len(files) == 1:
        entry["sha256"] = hashes[files[0]]
    else:
        entry["files"] = {clean_text(part.name): hashes[part] for part in files}
    license = license or _license(old)
    if license:
        entry["license"] = license
    for key, name in ((MERGE_KEY, "merged_from"), (_LORAS_KEY, "loras")):
        told = _parsed(old.get(key, ""))
        if told:
            entry[name] = told
    return entry


def _license(metadata: Mapping[str, str]) -> str:
    """The license that a file's metadata name; empty if they name none."""
    license = next((metadata[key] for key in _LICENSE_KEYS if metadata.get(key)), "")
    return clean_text(license)[:_MOST_LICENSE]


def _parsed(text: str) -> object:
    """A JSON value in a source's metadata; None where it is too long or none at all."""
    if not text or len(text) > _MOST_CHARACTERS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
