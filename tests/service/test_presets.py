"""Named settings of a model: kept as files, with any name, and read whatever became of them."""

import json
from types import SimpleNamespace

import pytest

from reeltune.errors import ReeltuneError, SettingsError
from reeltune.jobs import Queue
from reeltune.service import presets
from reeltune.service.cleanup import remove_unused
from reeltune.service.studio import Studio


@pytest.fixture
def studio(root):
    (root / "uploads").mkdir()
    return Studio(root, SimpleNamespace(queue=Queue(root), running=list, trouble=None, wake=lambda: None), local=True)


def test_presets_are_saved_listed_replaced_loaded_and_deleted(studio, root):
    assert presets.names(studio, "t2v") == []
    assert presets.save(studio, "t2v", " Slow and Good ", {"num_inference_steps": 40, "seed": 2**60}) == "Slow and Good"
    presets.save(studio, "t2v", "fast", {"num_inference_steps": 4})
    presets.save(studio, "i2v", "other", {})
    assert presets.names(studio, "t2v") == ["fast", "Slow and Good"]
    settings, unknown = presets.load(studio, "t2v", "Slow and Good")
    assert (settings["num_inference_steps"], settings["seed"], unknown) == (40, 2**60, [])
    presets.save(studio, "t2v", "fast", {"num_inference_steps": 5})
    assert presets.load(studio, "t2v", "fast")[0]["num_inference_steps"] == 5
    presets.delete(studio, "t2v", "fast")
    assert presets.names(studio, "t2v") == ["Slow and Good"]
    with pytest.raises(SettingsError, match="no preset 'fast'"):
        presets.load(studio, "t2v", "fast")
    with pytest.raises(SettingsError, match="Choose a preset"):
        presets.delete(studio, "t2v", "")


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b\\c", "CON", "x" * 5000, "a\0b", "\ud800x", ".hidden", "ä 🦊 b", "a.json"]
)
def test_any_name_stays_in_the_folder_and_is_found_again(studio, root, name):
    kept = presets.save(studio, "t2v", name, {"seed": 1})
    assert presets.names(studio, "t2v") == [kept]
    assert presets.load(studio, "t2v", kept)[0]["seed"] == 1
    files = [row for row in root.rglob("*.json") if row.is_file()]
    assert [row.parent for row in files] == [root / "settings" / "presets" / "t2v"]
    presets.delete(studio, "t2v", kept)


@pytest.mark.parametrize("name", ["", "  ", "..", "/", "-"])
def test_a_name_must_say_something(studio, name):
    with pytest.raises(SettingsError, match="needs a name"):
        presets.save(studio, "t2v", name, {})


def test_damaged_files_are_errors_of_their_own_and_hide_no_other(studio):
    presets.save(studio, "t2v", "good", {"seed": 3})
    folder = presets.folder(studio, "t2v")
    for name, content in (
        ("cut", b"{"),
        ("text", b"no settings"),
        ("odd", b'{"seed": 4, "later": 1}'),
        ("bytes", b"\xff\xfe{"),
    ):
        (folder / f"{name}.json").write_bytes(content)
    (folder / "folder.json").mkdir()
    assert presets.names(studio, "t2v") == ["bytes", "cut", "folder", "good", "odd", "text"]
    assert presets.load(studio, "t2v", "good")[0]["seed"] == 3
    settings, unknown = presets.load(studio, "t2v", "odd")
    assert (settings["seed"], unknown) == (4, ["later"])
    for name in ("cut", "text", "bytes", "folder"):
        with pytest.raises(ReeltuneError):
            presets.load(studio, "t2v", name)


def test_an_upload_that_a_preset_names_is_kept(studio, root):
    for name in ("used.png", "unused.png"):
        (root / "uploads" / name).write_bytes(b"x")
    presets.save(studio, "i2v", "mine", {"image_start": "uploads/used.png"})
    assert [row.name for row in remove_unused(studio, kept_seconds=-1)] == ["unused.png"]
    assert json.loads((presets.folder(studio, "i2v") / "mine.json").read_text(encoding="utf-8"))["model_type"] == "i2v"
