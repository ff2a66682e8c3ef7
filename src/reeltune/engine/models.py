"""The transformers of an engine: loaded from the files a definition's choice names, kept, and filled anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reeltune.engine.placing import Places, fits, release
from reeltune.engine.speed import speed_up
from reeltune.engine.stamps import Seen, Stamps
from reeltune.events import CancelToken, Listener
from reeltune.planning.plan import Explanation
from reeltune.weights.load import load_transformer, peek_config

SLOTS = ("transformer", "transformer_2")
_Files = tuple[Path, ...]  # of the transformer, and of the modules merged into it
_Loaded = tuple[Stamps, ...]  # of these files


class Models:
    """Loaded transformers by slot. What the preferences ask of their speed is set up while loading."""

    def __init__(self, listener: Listener, say: Callable[[str], None], seen: Seen) -> None:
        self._listener, self._say, self._seen = listener, say, seen
        self._loaded: dict[str, tuple[_Loaded, nn.Module]] = {}
        self._configs: dict[_Loaded, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._loaded)

    def config(self, explanation: Explanation, slot: str = SLOTS[0]) -> Any:
        """The config of a slot's transformer, which need not be loaded."""
        path, *modules = _files(explanation, slot)
        stamps = self._stamps(explanation, slot)
        if stamps not in self._configs:
            self._configs = {**self._configs, stamps: peek_config(path, modules, _architecture(explanation).config)}
        return self._configs[stamps]

    def files(self, explanation: Explanation) -> list[Path]:
        """The files of the transformers that are loaded."""
        return list(dict.fromkeys(file for slot in self._loaded for file in _files(explanation, slot)))

    def _stamps(self, explanation: Explanation, slot: str) -> _Loaded:
        return tuple(self._seen.of(file) for file in _files(explanation, slot))

    def load(self, explanation: Explanation, slot: str, places: Places, cancel: CancelToken) -> nn.Module:
        """The transformer of a slot: as it is, where its files are those that were loaded, else filled with them."""
        files, stamps = _files(explanation, slot), self._stamps(explanation, slot)
        before, old = self._loaded.get(slot, ((), None))
        if old is not None and before == stamps:
            return old
        self._loaded.pop(slot, None)
        for was, now in zip(before, stamps, strict=False):
            if was != now and was[0].path == now[0].path:
                self._say(f"{now[0].path.name} changed on the disk: its weights are loaded again.")
        if old is not None:
            places.forget(old, weights=False)
        device = places.device if places.profile.name == "resident" else torch.device("cpu")
        if self._loaded and not fits(sum(file.stat().st_size for file in files), device):
            self._say(f"{', '.join(self._loaded)} makes room for {slot}: both don't fit.")
            self.drop(places)
        choices = explanation.selection.choices
        parts = [choice for other, choice in choices.items() if other == slot or other.startswith("modules")]
        path, *modules = files
        model = load_transformer(
            path, choices[slot].dtype, modules=modules, config=_architecture(explanation).config,
            quantize=any(choice.quantize_on_load for choice in parts), into=old,
            listener=self._listener, cancel=cancel,
        )  # fmt: skip
        speed_up(model, explanation.preferences, places.device, self._say)
        self._loaded[slot] = stamps, model
        if old is not None and old is not model:
            del old
            release()  # modules hold on to each other: only this lets go of their weights
        return model

    def drop(self, places: Places | None) -> None:
        """Let go of all weights."""
        for _, model in self._loaded.values():
            if places is not None:
                places.forget(model, weights=False)
        self._loaded.clear()
        release()


def _files(explanation: Explanation, slot: str) -> _Files:
    places = {item.subject: item.path for item in explanation.items}
    return places[slot], *(path for subject, path in places.items() if subject.startswith("modules"))


def _architecture(explanation: Explanation) -> Any:
    return explanation.definition.architecture
