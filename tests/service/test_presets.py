"""Named settings of a model: kept as files, with any name, and read whatever became of them."""

import json

import pytest

from reeltune.errors import ReeltuneError, SettingsError
from reeltune.service.presets import delete_preset, load_preset, preset_folder, preset_names, save_preset
from reeltune.service.upload_cleanup import remove_unused


def test_presets_are_saved_listed_replaced_loaded_and_deleted(workspace, root):
    assert preset_names(workspace, "t2v") == []
    assert (
        save_preset(workspace, "t2v", " Slow and Good ", {"num_inference_steps": 40, "seed": 2**60}) == "Slow and Good"
    )
    save_preset(workspace, "t2v", "fast", {"num_inference_steps": 4})
    save_preset(workspace, "i2v", "other", {})
    assert preset_names(workspace, "t2v") == ["fast", "Slow and Good"]
    stored = load_preset(workspace, "t2v", "Slow and Good")
    assert (stored.settings["num_inference_steps"], stored.settings["seed"], stored.unknown) == (40, 2**60, ())
    save_preset(workspace, "t2v", "fast", {"num_inference_steps": 5})
    assert load_preset(workspace, "t2v", "fast").settings["num_inference_steps"] == 5
    delete_preset(workspace, "t2v", "fast")
    assert preset_names(workspace, "t2v") == ["Slow and Good"]
    with pytest.raises(SettingsError, match="no preset 'fast'"):
        load_preset(workspace, "t2v", "fast")
    with pytest.raises(SettingsError, match="Choose a preset"):
        delete_preset(workspace, "t2v", "")


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b\\c", "CON", "x" * 5000, "a\0b", "\ud800x", ".hidden", "ä 🦊 b", "a.json"]
)
def test_any_name_stays_in_the_folder_and_is_found_again(workspace, root, name):
    saved_name = save_preset(workspace, "t2v", name, {"seed": 1})
    assert preset_names(workspace, "t2v") == [saved_name]
    assert load_preset(workspace, "t2v", saved_name).settings["seed"] == 1
    files = [path for path in root.rglob("*.json") if path.is_file()]
    assert [path.parent for path in files] == [root / "settings" / "presets" / "t2v"]
    delete_preset(workspace, "t2v", saved_name)


@pytest.mark.parametrize("name", ["", "  ", "..", "/", "-"])
def test_a_name_must_say_something(workspace, name):
    with pytest.raises(SettingsError, match="needs a name"):
        save_preset(workspace, "t2v", name, {})


def test_damaged_files_are_errors_of_their_own_and_hide_no_other(workspace):
    save_preset(workspace, "t2v", "good", {"seed": 3})
    folder = preset_folder(workspace, "t2v")
    for name, content in (
        ("cut", b"{"),
        ("text", b"no settings"),
        ("odd", b'{"seed": 4, "later": 1}'),
        ("bytes", b"\xff\xfe{"),
    ):
        (folder / f"{name}.json").write_bytes(content)
    (folder / "folder.json").mkdir()
    assert preset_names(workspace, "t2v") == ["bytes", "cut", "folder", "good", "odd", "text"]
    assert load_preset(workspace, "t2v", "good").settings["seed"] == 3
    stored = load_preset(workspace, "t2v", "odd")
    assert (stored.settings["seed"], stored.unknown) == (4, ("later",))
    for name in ("cut", "text", "bytes", "folder"):
        with pytest.raises(ReeltuneError):
            load_preset(workspace, "t2v", name)


def test_an_upload_that_a_preset_names_is_kept(workspace, root):
    for name in ("used.png", "unused.png"):
        (root / "uploads" / name).write_bytes(b"x")
    save_preset(workspace, "i2v", "mine", {"image_start": "uploads/used.png"})
    assert [path.name for path in remove_unused(workspace, max_age_seconds=-1)] == ["unused.png"]
    assert (
        json.loads((preset_folder(workspace, "i2v") / "mine.json").read_text(encoding="utf-8"))["model_type"] == "i2v"
    )
