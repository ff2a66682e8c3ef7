"""URLs in all definitions that end in the same file name, so that no file on disk is mistaken for another."""

from __future__ import annotations

from collections.abc import Mapping

from reeltune.definitions.model import Definition, ListedFile, Version
from reeltune.definitions.slots import PRELOAD
from reeltune.errors import DefinitionError
from reeltune.net import file_key


class Namesakes:
    """The files in all definitions of a catalog by file name, collected on first use."""

    def __init__(self, catalog: Mapping[str, Definition]) -> None:
        self._catalog = catalog
        self._by_name: dict[str, dict[str, ListedFile]] | None = None

    def of(self, version: Version) -> tuple[ListedFile, ...]:
        """Other files with a version's file name. Different URLs of the same file (`net.file_key`) count once."""
        if self._by_name is None:
            self._by_name = self._collect()
        own_key = file_key(version.url)
        files = self._by_name.get(version.file_name, {})
        return tuple(file for key, file in files.items() if key != own_key)

    def _collect(self) -> dict[str, dict[str, ListedFile]]:
        by_name: dict[str, dict[str, ListedFile]] = {}
        for id in self._catalog:
            try:
                definition = self._catalog[id]
            except DefinitionError:
                continue
            for slot, versions in {**definition.all_versions, PRELOAD: definition.preload}.items():
                for version in versions:
                    file = ListedFile(version.url, definition.architecture, slot, tuple(definition.slots))
                    files = by_name.setdefault(version.file_name, {})
                    files.setdefault(file_key(version.url), file)
        return by_name
