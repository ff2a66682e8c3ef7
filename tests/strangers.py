"""What comes from strangers, by kind: each writes a damaged one into a root, and uses it as far as no weights are read."""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np

from conftest import DATA, head_of, safetensors_bytes
from mutations import (
    VALUES,
    header_and_data,
    mutated_bytes,
    mutated_json,
    mutated_safetensors,
    with_comment,
)
from published import definition, facts
from published_profiles import published
from reeltune import Definition, explain, inspect, load_catalog
from reeltune.definitions import writer
from reeltune.errors import MediaError, ReeltuneError
from reeltune.families.vocabulary import KEYS
from reeltune.jobs import Queue, State
from reeltune.jobs.confine import Confinement
from reeltune.jobs.store import COLUMNS
from reeltune.machine import Machine
from reeltune.media.mp4 import write_mp4
from reeltune.media.origin import Origin, read_origin, read_stored
from reeltune.preferences import FIELDS, load_preferences, save_preferences
from reeltune.profiles import (
    applied_profile,
    apply_profile,
    call_with_profile,
    presets_of,
    profiles_of,
    remove_profile,
    repeated_loras,
)
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings
from reeltune.settings import read_settings_file, settings_text, split_videos, stored_settings
from reeltune.settings.renames import OLD_NAMES

MACHINE = Machine(2**34, 2**33)
MODEL_KEYS = (
    "name", "architecture", "description", "URLs", "URLs2", "preload_URLs", "modules", "loras", "loras_multipliers",
    "auto_quantize", "components", "sha256", "visible", "fps", "resolutions", "model", "settings_version",
)  # fmt: skip
SETTINGS_KEYS = (*KEYS, *OLD_NAMES, "model_type", "settings", "files")
BASELINE = json.loads((DATA / "settings.json").read_text(encoding="utf-8"))


class Stranger(Protocol):
    """One kind of what comes from strangers."""

    def write(self, random: Random) -> bytes:
        """Write a damaged one in the place of the last, and return what was written."""

    def use(self) -> None:
        """Use it as the program does. Raises ReeltuneError where it can't be used."""


def generate(definition: Definition, call: Mapping[str, Any]) -> None:
    """Everything short of loading. Raises ReeltuneError."""
    settings, notices = complete_settings(definition, call)
    valid_text(notices)
    for video in split_videos(settings)[:2]:
        build_request(definition, video)


def valid_text(value: Any) -> None:
    """Raise for what can't be stored, shown or sent."""
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")


def definitions() -> list[dict[str, Any]]:
    """Definitions to start from: the built-in ones of June 2025 and published ones of August 2026."""
    old = json.loads((DATA / "definitions.json").read_text(encoding="utf-8"))
    found = [
        {"model": {key: row[key] for key in row if key != "settings"}, **row.get("settings", {})}
        for row in old.values()
    ]
    return found + [definition(id, row) for id, row in list(facts().items())[::12]]


class Definitions:
    """A definition beside a sound one that isn't over it."""

    def __init__(self, root: Path) -> None:
        self._root, self._samples = root, definitions()
        self._folder = root / "finetunes"
        self._folder.mkdir(parents=True, exist_ok=True)
        good = {"model": {"architecture": "i2v", "URLs": ["https://h/x_bf16.safetensors"]}}
        (self._folder / "good.json").write_text(json.dumps(good), encoding="utf-8")
        self._path = self._folder / "f.json"

    def write(self, random: Random) -> bytes:
        for path in self._folder.iterdir():
            if path.name != "good.json":
                path.unlink()
        self._path = self._folder / f"{random.choice(('f', 't2v', 'vace_14B', 'nano_t2v'))}.json"
        raw = mutated_json(random, random.choice(self._samples), MODEL_KEYS)
        self._path.write_bytes(raw)
        return raw

    def use(self) -> None:
        catalog = load_catalog(self._root)
        runnable = [summary.id for summary in catalog.summaries() if summary.runnable]
        assert {"good", "fun_inp"} <= set(runnable)
        for problem in catalog.problems():
            assert len(str(problem)) < 5000
            valid_text(str(problem))
        if self._path in catalog.broken:
            writer.repair(self._path)
        used = catalog[self._path.stem]
        valid_text([used.name, used.description, used.reason, dict(used.settings)])
        valid_text(explain(used, machine=MACHINE).as_json())
        generate(used, {})


class SettingsFiles:
    """The file of settings that a user saved for a model."""

    def __init__(self, root: Path) -> None:
        (root / "settings").mkdir(parents=True, exist_ok=True)
        self._root, self._path = root, root / "settings" / "nano_t2v_settings.json"
        self._definition = load_catalog(root)["nano_t2v"]
        self._samples = [
            BASELINE,
            json.loads(settings_text("nano_t2v", {"prompt": "a\nb", "seed": 7, "video_length": 9})),
        ]

    def write(self, random: Random) -> bytes:
        raw = mutated_json(random, random.choice(self._samples), SETTINGS_KEYS)
        self._path.write_bytes(raw)
        return raw

    def use(self) -> None:
        with contextlib.suppress(MediaError):  # it doesn't begin as JSON does
            read_stored(self._path)
        stored = read_settings_file(self._path)
        assert stored == stored_settings(self._root, "nano_t2v")
        valid_text(dict(stored.settings))
        valid_text(stored.notices())
        assert all(len(line) < 5000 for line in stored.notices())
        valid_text(settings_text("nano_t2v", stored.settings))
        generate(self._definition, {})


class Profiles:
    """A profile and a LoRA preset among the user's, for a model with saved settings that may be of any kind."""

    def __init__(self, root: Path) -> None:
        self._root, self._samples = root, list(published().values())
        self._definition = load_catalog(root)["t2v_2_2"]
        self._profile = root / "profiles" / "wan_2_2" / "fuzzy.json"
        self._preset = root / "loras" / "wan" / "fuzzy.lset"
        for path in (self._profile, self._preset):
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, random: Random) -> bytes:
        sample = random.choice(self._samples)
        preset = {"loras": sample["activated_loras"], "loras_mult": "1 | 0.5", "prompt": "a fox", "full_prompt": True}
        raw = mutated_json(
            random, {"about": {"architectures": ["t2v_2_2"], "description": "x"}, **sample}, SETTINGS_KEYS
        )
        self._profile.write_bytes(raw)
        self._preset.write_bytes(mutated_json(random, preset, ("activated_loras", "prompt")))
        return raw

    def use(self) -> None:
        offered, presets = profiles_of(self._definition), presets_of(self._definition)
        assert len(offered.profiles) >= 3  # those that are built in
        for problem in (*offered.problems, *presets.problems):
            assert len(str(problem)) < 5000
            valid_text(str(problem))
        own = {"activated_loras": ["mine"], "loras_multipliers": "0.5"}
        for profile in (*offered.profiles, *presets.profiles):
            valid_text(profile.as_json())
            assert all(len(line) < 5000 for line in profile.notices)
            settings = apply_profile(own, profile)
            valid_text(dict(settings))
            assert profile.preset or settings["activated_loras"][-1] == "mine" or repeated_loras(own, profile)
            assert applied_profile(settings, offered.profiles) is not None or profile.preset or not profile.loras
            remove_profile(settings, own, profile)
            valid_text(dict(call_with_profile(self._definition, profile, offered.profiles, {"seed": 1})))
        offered.named("fuzzy")
        presets.named("fuzzy")


class Headers:
    """A safetensors file that a model names; most of its data is a hole."""

    def __init__(self, root: Path) -> None:
        (root / "ckpts").mkdir(parents=True, exist_ok=True)
        (root / "finetunes").mkdir(parents=True, exist_ok=True)
        self._path = root / "ckpts" / "x_bf16.safetensors"
        model = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "auto_quantize": True}
        (root / "finetunes" / "mine.json").write_text(json.dumps({"model": model}), encoding="utf-8")
        self._definition = load_catalog(root)["mine"]
        small = {
            "head.modulation": ("BF16", [1, 2, 4]), "patch_embedding.weight": ("BF16", [4, 16, 1, 2, 2]),
            "head.head.weight": ("BF16", [64, 4]), "text_embedding.0.weight": ("BF16", [4, 8]),
            "blocks.0.ffn.0.weight._data": ("I8", [8, 4]), "blocks.0.ffn.0.weight._scale": ("BF16", [8, 1]),
        }  # fmt: skip
        lora = {f"blocks.0.ffn.0.lora_{side}.weight": ("F32", [2, 4]) for side in "AB"}
        files = [safetensors_bytes(small, {"config": "{}"}), safetensors_bytes(lora, {"format": "pt"})]
        self._samples = [(*header_and_data(raw), 0) for raw in (*files, *files)]
        real = json.loads((DATA / "headers.json").read_text(encoding="utf-8"))
        for entry in list(real.values())[:8]:
            if isinstance(entry, dict):
                start, size = head_of({name.replace("#", "0"): shape for name, shape in entry["tensors"].items()})
                self._samples.append((*header_and_data(start), size - len(start)))

    def write(self, random: Random) -> bytes:
        header, data, hole = random.choice(self._samples)
        raw = mutated_safetensors(random, header, data)
        if random.random() < 0.1:
            raw = mutated_bytes(random, raw)
        with self._path.open("wb") as file:
            file.write(raw)
            file.truncate(len(raw) + hole)
        return raw

    def use(self) -> None:
        valid_text(explain(self._definition, machine=MACHINE).as_json())
        valid_text(inspect(self._path).as_json())


class Comments:
    """The settings inside a video."""

    def __init__(self, root: Path) -> None:
        (root / "outputs").mkdir(parents=True, exist_ok=True)
        self._path = root / "outputs" / "x.mp4"
        self._definition = load_catalog(root)["nano_t2v"]
        settings = {"prompt": "ein Fuchs, 狐", "seed": 7, "video_length": 9, "resolution": "64x64"}
        own = Origin("nano_t2v", "t2v_1.3B", "reeltune 0.1", settings, {"transformer": ("x.safetensors", "0" * 64)})
        self._samples = [own.as_metadata(), {**BASELINE, "model_type": "nano_t2v", "type": "WanGP v8"}]
        write_mp4(self._path, np.zeros((1, 32, 32, 3), np.uint8), 8, own.as_metadata())
        self._video = self._path.read_bytes()

    def write(self, random: Random) -> bytes:
        raw = with_comment(self._video, mutated_json(random, random.choice(self._samples), SETTINGS_KEYS))
        if random.random() < 0.1:
            raw = mutated_bytes(random, raw)
        self._path.write_bytes(raw)
        return raw

    def use(self) -> None:
        origin = read_origin(self._path)
        if origin is None:
            return
        assert origin == read_stored(self._path)
        valid_text(origin.as_metadata())
        valid_text(origin.unknown)
        generate(self._definition, origin.settings)


class PreferencesFiles:
    """`reeltune.json`, or the configuration of WanGP that is read where there is none."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._definition = load_catalog(root)["nano_t2v"]
        save_preferences(root, load_preferences(root)[0])
        own = json.loads((root / "reeltune.json").read_text(encoding="utf-8"))
        own |= {"tokens": {"hub": "hf_x"}, "model_folders": ["models"]}
        other = {
            "transformer_quantization": "bf16",
            "transformer_dtype_policy": "fp16",
            "save_path": "videos",
            "profile": 4,
        }
        self._samples = [("reeltune.json", own)] * 4 + [("wgp_config.json", other)]

    def write(self, random: Random) -> bytes:
        name, sample = random.choice(self._samples)
        for old, _ in self._samples:
            (self._root / old).unlink(missing_ok=True)
        raw = mutated_json(random, sample, (*FIELDS, "tokens", "schema_version", *sample))
        (self._root / name).write_bytes(raw)
        return raw

    def use(self) -> None:
        preferences, notices = load_preferences(self._root)
        valid_text([preferences.outputs, *preferences.model_folders, *notices])
        assert all(len(line) < 5000 for line in notices)
        assert Confinement.of(self._root, preferences).allows("ckpts/x.safetensors")
        valid_text(explain(self._definition, preferences, machine=MACHINE).as_json())
        save_preferences(self._root, preferences)
        assert load_preferences(self._root)[0] == preferences


class QueueRows:
    """A row of the queue's file between two sound ones, and an exported queue."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root, self._path = root, root / "reeltune.sqlite"
        self._remove()
        queue = Queue(root)
        self._ids = [queue.add("nano_t2v", {"prompt": prompt, "seed": 3}).id for prompt in "abc"]
        self._export, self._imported = json.loads(queue.export()), ""
        del queue
        gc.collect()
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._content = self._path.read_bytes()

    def _remove(self) -> None:
        for path in self._root.glob("reeltune.sqlite*"):
            path.unlink()

    def write(self, random: Random) -> bytes:
        self._remove()
        self._path.write_bytes(self._content)
        written = []
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for column in random.sample(COLUMNS[1:], random.randint(1, 4)):
                value = self._value(random, column)
                written.append((column, value))
                with contextlib.suppress(sqlite3.IntegrityError):  # NULL
                    connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, self._ids[1]))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._imported = mutated_json(random, self._export, ("definition", "settings", "jobs")).decode(
            "utf-8", "replace"
        )
        return repr((written, self._imported)).encode("utf-8", "backslashreplace")

    def _value(self, random: Random, column: str) -> Any:
        """A value of any type that SQLite has; mostly of the kind that the column holds."""
        samples = {"settings": {"prompt": "x", **BASELINE}, "outputs": ["a.mp4"], "notices": ["n"], "extra": {"a": 1}}
        if column in samples and random.random() < 0.8:
            raw = mutated_json(random, samples[column], SETTINGS_KEYS)
            return raw if random.random() < 0.2 else raw.decode("utf-8", "replace")
        value = random.choice((*VALUES, *State, -(2**63), 2**63 - 1, b"\xff\xfe", b"queued"))
        if isinstance(value, list | dict):
            return json.dumps(value)
        if isinstance(value, int) and abs(value) >= 2**63:
            return str(value)
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

    def use(self) -> None:
        queue = Queue(self._root)
        assert not queue.notice
        first, middle, last = self._ids
        jobs = {job.id: job for job in queue.jobs()}
        assert (jobs[first].prompt, jobs[last].prompt) == ("a", "c")
        job = jobs[middle]
        assert job.seconds >= 0
        valid_text(
            [job.definition, job.error, job.hint, job.outputs, job.latents, job.prompt, job.notices, job.progress]
        )
        valid_text([dict(job.settings), dict(job.extra)])
        valid_text(queue.export())
        taken = {job.id: job for job in iter(lambda: queue.take("a", 60), None)}
        assert {first, last} <= set(taken)
        queue.finish(taken[first].attempt, State.DONE, outputs=["a.mp4"])
        queue.recover(["a"])
        errors = []
        for change in (lambda: queue.retry(middle), lambda: queue.move(middle, 0), lambda: queue.edit(middle, {}),
                       lambda: queue.import_text(self._imported), lambda: queue.remove(middle)):  # fmt: skip
            try:
                change()
            except ReeltuneError as error:
                errors.append(error)
        assert queue.get(last).prompt == "c"
        if errors:
            raise errors[0]


KINDS: dict[str, type[Stranger]] = {
    "definitions": Definitions,
    "settings files": SettingsFiles,
    "profiles": Profiles,
    "safetensors headers": Headers,
    "comments of MP4s": Comments,
    "preferences": PreferencesFiles,
    "queue rows": QueueRows,
}
