"""Definition files that are parsed once, and again when they change."""

import pytest

from reeltune.definitions import Catalog, reader
from reeltune.definitions.reader import DefinitionReader
from reeltune.errors import DefinitionError

GOOD = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"]}


@pytest.fixture
def parsed(monkeypatch):
    """The names of the files that are parsed, as it happens."""
    names = []

    def parse(path):
        names.append(path.name)
        return read_definition(path)

    read_definition = reader.read_definition
    monkeypatch.setattr(reader, "read_definition", parse)
    return names


def test_only_what_is_new_or_changed_is_parsed_again(root, define, parsed):
    define("kept", GOOD)
    define("changed", GOOD | {"name": "before"})
    gone = define("gone", GOOD)
    broken = root / "finetunes" / "broken.json"
    broken.write_text("{", encoding="utf-8")
    first = DefinitionReader()
    catalog = Catalog(root, first.read)
    assert set(catalog) == set(Catalog(root))
    assert list(catalog.broken) == [broken]
    assert {"kept.json", "changed.json", "gone.json", "broken.json"} <= set(parsed)

    parsed.clear()
    gone.unlink()
    define("changed", GOOD | {"name": "afterwards"})
    define("added", GOOD)
    later = first.next()
    catalog = Catalog(root, later.read)
    assert sorted(parsed) == ["added.json", "changed.json"]
    assert catalog["changed"].name == "afterwards"
    assert "gone" not in catalog
    assert [str(error) for error in catalog.broken.values()] == [str(error) for error in Catalog(root).broken.values()]

    parsed.clear()
    define("gone", GOOD)
    broken.write_text('{"model": {"name": "x"}}', encoding="utf-8")
    Catalog(root, later.next().read)
    assert sorted(parsed) == ["broken.json", "gone.json"]


def test_a_file_that_is_not_there_is_an_error_each_time(root):
    first = DefinitionReader()
    for again in (first, first, first.next()):
        with pytest.raises(DefinitionError, match="doesn't exist"):
            again.read(root / "finetunes" / "x.json")
