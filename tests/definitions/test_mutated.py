"""Thousands of mutated definitions: each becomes a value or an error of ours, and the catalog stays usable."""

import json
import random

import pytest

from conftest import DATA
from mutations import mutated_text, mutated_value
from published import definition, facts
from reeltune import load_catalog
from reeltune.definitions.schema import parse_definition
from reeltune.errors import DefinitionError, ReeltuneError

TRIES = 2000
KEYS = ("URLs", "URLs2", "modules", "loras", "architecture", "visible", "fps")


def seeds():
    """Definitions to start from: the built-in ones of June 2025 and published ones of August 2026."""
    rows = json.loads((DATA / "definitions.json").read_text(encoding="utf-8"))
    old = [
        {"model": {key: row[key] for key in row if key != "settings"}, **row.get("settings", {})}
        for row in rows.values()
    ]
    return old + [definition(id, row) for id, row in list(facts().items())[::5]]


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_definitions(root, seed):
    rng = random.Random(seed)
    catalog, starts, resolved, refused = load_catalog(root), seeds(), 0, 0
    texts = [json.dumps(row, indent=1) for row in starts]
    for number in range(TRIES):
        text = (
            json.dumps(mutated_value(rng, rng.choice(starts), KEYS))
            if number % 2
            else mutated_text(rng, rng.choice(texts))
        )
        id = rng.choice(["f", "t2v", "vace_14B"])
        try:
            changed = catalog.with_file(parse_definition(root / "finetunes" / f"{id}.json", text))
            found = changed[id]
            resolved += 1
            assert isinstance(found.reason, str)
            str(found.settings).encode("utf-8")
        except DefinitionError as error:
            assert 0 < len(str(error)) < 5000  # noqa: PT017
            refused += 1
            continue
        if number % 50 == 0:
            assert len(changed.summaries()) == len(changed)
            for problem in changed.problems():
                str(problem).encode("utf-8")
    assert resolved > TRIES // 10
    assert refused > TRIES // 10


def test_a_folder_full_of_mutated_definitions(root):
    built_in = len(load_catalog(root))
    rng = random.Random(3)
    texts = [json.dumps(row, indent=1) for row in seeds()]
    for number in range(200):
        text = mutated_text(rng, rng.choice(texts))
        (root / "finetunes" / f"m{number}.json").write_text(text, encoding="utf-8", errors="replace")
    built_in = len(load_catalog(root / "elsewhere"))
    catalog = load_catalog(root)
    assert {row.id for row in catalog.summaries() if row.runnable} >= {"t2v", "nano_t2v", "vace_14B"}
    assert len(catalog) + len(catalog.broken) == built_in + 200
    for id in catalog:
        try:
            assert catalog[id].id == id
        except ReeltuneError as error:
            assert str(error)  # noqa: PT017
