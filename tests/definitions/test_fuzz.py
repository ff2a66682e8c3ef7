"""Thousands of mutated definitions: each becomes a value or an error of ours, and the catalog stays usable."""

import json
import random
import string

import pytest
from published import definition, facts

from conftest import DATA
from reeltune import load_catalog
from reeltune.definitions.schema import MODEL_KEY, parse_definition
from reeltune.errors import DefinitionError, ReeltuneError

TRIES = 2000
VALUES = [
    None, True, False, 0, -1, 1e308, 10**18, "", "x", "t2v", "f", "t2v#URLs", "t2v#", "#", "nano_t2v", "\ud800", "a\0",
    [], {}, [[]], [[[]]], ["t2v"], [["t2v"]], [None], "9" * 5000, {"a": {"b": []}}, ["https://[x"], "\u2028", "G" * 9999,
]  # fmt: skip


def seeds():
    """Definitions to start from: the built-in ones of June 2025 and published ones of August 2026."""
    rows = json.loads((DATA / "definitions.json").read_text(encoding="utf-8"))
    old = [
        {"model": {key: row[key] for key in row if key != "settings"}, **row.get("settings", {})}
        for row in rows.values()
    ]
    return old + [definition(id, row) for id, row in list(facts().items())[::5]]


def mutate_value(rng, value):
    """The value with one thing in it changed, added or removed."""
    value = json.loads(json.dumps(value))
    place = value if rng.random() < 0.3 else value[MODEL_KEY]
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*place, "URLs", "URLs2", "modules", "loras", "architecture", "zzz", "visible", "fps"])
        action = rng.random()
        if action < 0.2:
            place.pop(key, None)
        elif action < 0.3 and isinstance(place.get(key), list):
            place[key] = [*place[key], rng.choice(VALUES)]
        else:
            place[key] = rng.choice(VALUES)
        if place is value and not isinstance(value.get(MODEL_KEY), dict):
            break
    return value


def mutate_text(rng, text):
    """The text with characters replaced, removed, doubled or cut off."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(text))
        stop = min(len(text), start + rng.choice([1, 1, 1, 5, 50]))
        new = rng.choice(["", rng.choice(string.printable), rng.choice('{}[]",:\\'), text[start:stop] * 2, "\\ud800"])
        text = text[:start] + new + text[stop:]
    return text if rng.random() < 0.9 else text[: rng.randrange(len(text))]


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_definitions(root, seed):
    rng = random.Random(seed)
    catalog, starts, resolved, refused = load_catalog(root), seeds(), 0, 0
    texts = [json.dumps(row, indent=1) for row in starts]
    for number in range(TRIES):
        text = json.dumps(mutate_value(rng, rng.choice(starts))) if number % 2 else mutate_text(rng, rng.choice(texts))
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
    rng = random.Random(3)
    texts = [json.dumps(row, indent=1) for row in seeds()]
    for number in range(200):
        text = mutate_text(rng, rng.choice(texts))
        (root / "finetunes" / f"m{number}.json").write_text(text, encoding="utf-8", errors="replace")
    catalog = load_catalog(root)
    assert {row.id for row in catalog.summaries() if row.runnable} >= {"t2v", "nano_t2v", "vace_14B"}
    assert len(catalog) + len(catalog.broken) == 225
    for id in catalog:
        try:
            assert catalog[id].id == id
        except ReeltuneError as error:
            assert str(error)  # noqa: PT017
