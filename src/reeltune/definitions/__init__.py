"""Finetune definitions: parsing, validation, overrides, references and edits."""

from __future__ import annotations

from reeltune.definitions.catalog import Catalog, Summary, load_catalog, resolve_root
from reeltune.definitions.model import Definition, Version

__all__ = ["Catalog", "Definition", "Summary", "Version", "load_catalog", "resolve_root"]
