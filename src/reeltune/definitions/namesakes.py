"""Which URLs of all definitions end in the same file name, so that no file is taken for another one's."""

from __future__ import annotations

from collections.abc import Mapping

from reeltune.definitions.model import Definition, Listed, Version
from reeltune.definitions.slots import PRELOAD
from reeltune.errors import DefinitionError
from reeltune.net import file_key


class Namesakes:
    """Files that the definitions of a catalog list, by file name; gathered on first need."""

    def __init__(self, catalog: Mapping[str, Definition]) -> None:
        self._catalog = catalog
        self._by_name: dict[str, dict[str, Listed]] | None = None

    def of(self, version: Version) -> tuple[Listed, ...]:
        """Other files of a version's name. URLs that mean one file (`net.file_key`) count as one."""
        if self._by_name is None:
            self._by_name = self._gather()
        own = file_key(version.url)
        return tuple(row for key, row in self._by_name.get(version.file_name, {}).items() if key != own)

    def _gather(self) -> dict[str, dict[str, Listed]]:
        found: dict[str, dict[str, Listed]] = {}
        for id in self._catalog:
            try:
                definition = self._catalog[id]
            except DefinitionError:
                continue
            for slot, versions in {**definition.slots, PRELOAD: definition.preload}.items():
                for version in versions:
                    row = Listed(version.url, definition.architecture, slot, tuple(definition.slots))
                    found.setdefault(version.file_name, {}).setdefault(file_key(version.url), row)
        return found
