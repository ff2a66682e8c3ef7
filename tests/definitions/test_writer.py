import json

import pytest

from reeltune.definitions.writer import create, edit, replace_urls
from reeltune.errors import DefinitionError, DefinitionInvalid

TEXT = '{\n  "model": {\n    "architecture": "t2v",\n    "future": {"b": 1, "a": 2},\n    "URLs": ["https://old/x.safetensors", "t2v"],\n    "modules": ["vace_14B", ["https://old/m.safetensors"]]\n  },\n  "seed": 1.0\n}'


def test_replace_keeps_everything_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    counts = replace_urls(path, lambda url: url.replace("old", "new"))
    assert counts == {"URLs": 1, "modules": 1}
    after = path.read_bytes()
    assert after.startswith(b"\xef\xbb\xbf")
    text = after.decode("utf-8-sig")
    assert '"future": {"b": 1, "a": 2}' in text
    assert '"seed": 1.0' in text
    assert json.loads(text)["model"]["modules"] == ["vace_14B", ["https://new/m.safetensors"]]


def test_an_edit_that_would_break_the_file_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(DefinitionInvalid):
        edit(path, ("model", "URLs"), 5)
    assert path.read_text(encoding="utf-8") == TEXT
    assert list(tmp_path.iterdir()) == [path]


def test_create_never_overwrites(tmp_path):
    path = tmp_path / "finetunes" / "a.json"
    create(path, {"model": {"architecture": "t2v", "URLs": ["x.safetensors"]}})
    with pytest.raises(DefinitionError, match="exists"):
        create(path, {"model": {}})
