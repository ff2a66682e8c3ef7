"""What stands behind the page, without a browser: files that may be named, finetunes written, settings checked."""

import dataclasses
import json
import os
import time

import pytest
from PIL import Image

from conftest import workspace_of
from reeltune.errors import DefinitionError, MediaError, PreferencesError, SettingsError
from reeltune.preferences import Preferences, load_preferences, save_preferences
from reeltune.service import finetunes, model_states
from reeltune.service.drafts import check_draft, draft_with_settings
from reeltune.service.finetunes import NewFinetune
from reeltune.service.gallery import find_video
from reeltune.service.model_states import folder_facts
from reeltune.service.preference_fields import preferences_from_form
from reeltune.service.settings_files import read_settings_of
from reeltune.web.model_panel import model_description, model_list


def test_only_outputs_and_uploads_may_be_named(workspace, root):
    (root / "outputs" / "a.mp4").write_bytes(b"x")
    (root / "secret.mp4").write_bytes(b"x")
    (root / "outputs" / "link.mp4").symlink_to(root / "secret.mp4")
    assert workspace.confined("outputs/a.mp4") == root / "outputs" / "a.mp4"
    assert workspace.confined(root / "uploads" / "b.png") == root / "uploads" / "b.png"
    for name in (
        "secret.mp4",
        "outputs/../secret.mp4",
        "/etc/passwd",
        "outputs/link.mp4",
        "",
        "a\0b",
        "x" * 5000,
        "~/x",
    ):
        assert workspace.confined(name) is None, name
    assert find_video(workspace, "a.mp4") == root / "outputs" / "a.mp4"
    for name in ("link.mp4", "../secret.mp4", "a.txt", "x/a.mp4", ""):
        assert find_video(workspace, name) is None


def test_inputs_are_looked_into_and_stay_inside(workspace, root):
    definition = workspace.catalog()["i2v"]
    Image.new("RGB", (32, 32)).save(root / "uploads" / "a.png")
    (root / "uploads" / "no.png").write_bytes(b"no image")
    Image.new("RGB", (32, 32)).save(root / "private.png")
    settings, _ = check_draft(workspace, definition, {"prompt": "x", "image_start": str(root / "uploads" / "a.png")})
    assert (settings["image_start"], settings["image_prompt_type"]) == ("uploads/a.png", "S")
    with pytest.raises(MediaError, match="not an image"):
        check_draft(workspace, definition, {"prompt": "x", "image_start": "uploads/no.png"})
    with pytest.raises(SettingsError, match="not among the uploads"):
        check_draft(workspace, definition, {"prompt": "x", "image_start": str(root / "private.png")})
    with pytest.raises(SettingsError, match="needs image_start"):
        check_draft(workspace, definition, {"prompt": "x"})


def test_settings_of_a_file_go_into_the_form_and_what_is_gone_is_said(workspace, root):
    draft = draft_with_settings(
        workspace, "ti2v_2_2", {"seed": 3, "image_start": "uploads/gone.png", "image_refs": []}, ("of_later",)
    )
    assert draft.settings["seed"] == 3
    assert "image_refs" not in draft.settings
    assert ["of_later" in notice or "image_start" in notice for notice in draft.notices] == [True, True]
    odd = {
        "video_length": "2s",
        "sample_solver": "ddim",
        "skip_steps_cache_type": "mag",
        "multi_prompts_gen_type": "PW",
    }
    shown = draft_with_settings(workspace, "ti2v_2_2", odd).settings  # in the form of the page's fields
    assert {key: shown[key] for key in odd} == {
        "video_length": 49, "sample_solver": "euler", "skip_steps_cache_type": "tea", "multi_prompts_gen_type": "PG"
    }  # fmt: skip
    path = root / "uploads" / "s.json"
    path.write_text('\ufeff{"model_type": "t2v", "seed": 5, "odd": 1}', encoding="utf-8")
    stored = read_settings_of(path)
    assert (stored.definition, stored.unknown) == ("t2v", ("odd",))
    assert stored.settings == {"model_type": "t2v", "seed": 5}
    for content in ("{", "[1]", "film"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises((SettingsError, MediaError)):
            read_settings_of(path)


def test_finetunes_are_written_changed_and_deleted_losslessly(workspace, root):
    base = workspace.catalog()["t2v"]
    wanted = NewFinetune(
        "", "Water Colour", "Soft.", "https://example.org/water_bf16.safetensors\n\nckpts/water_fp16.safetensors\n"
    )
    id = finetunes.create_finetune(workspace, base, wanted, {"seed": 4})
    path = root / "finetunes" / "t2v_water_colour.json"
    assert id == path.stem
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["model"]["architecture"] == "t2v"
    assert len(value["model"]["URLs"]) == 2
    assert value["seed"] == 4
    with pytest.raises(DefinitionError, match="already"):
        finetunes.create_finetune(workspace, base, wanted, {})
    with pytest.raises(DefinitionError, match="name"):
        finetunes.create_finetune(workspace, base, dataclasses.replace(wanted, name=" "), {})
    with pytest.raises(DefinitionError):
        finetunes.create_finetune(workspace, base, dataclasses.replace(wanted, name="Odd", urls="ftp://x/y"), {})
    odd = path.read_text(encoding="utf-8").replace('"seed": 4', '"seed": 4,\n    "of_later": {"a": 1}')
    finetunes.save_finetune_text(workspace, id, odd)
    assert finetunes.change_finetune(workspace, id, {"name": "Other", "description": "Soft."}) == ["name"]
    assert path.read_text(encoding="utf-8") == odd.replace("Water Colour", "Other")
    for bad in ("{", '{"model": {"name": 3}}', '{"model": {"architecture": "nothing", "URLs": ["x"]}}'):
        with pytest.raises(DefinitionError):
            finetunes.save_finetune_text(workspace, id, bad)
        assert path.read_text(encoding="utf-8") == odd.replace("Water Colour", "Other")
    given = root / "uploads" / "mine.json"
    given.write_bytes(b'{ "model": {"name": "Mine", "architecture": "t2v", "URLs": "t2v"},  "odd" : 1 }')
    assert finetunes.import_finetune(workspace, given) == "mine"
    assert (root / "finetunes" / "mine.json").read_bytes() == given.read_bytes()
    with pytest.raises(DefinitionError, match="already"):
        finetunes.import_finetune(workspace, given)
    finetunes.delete_finetune(workspace, "mine")
    assert list(finetunes.own_files(workspace)) == [id]
    with pytest.raises(DefinitionError, match="not one of your finetunes"):
        finetunes.delete_finetune(workspace, "t2v")
    with pytest.raises(DefinitionError, match="not one of your finetunes"):
        finetunes.own_file(workspace, "../outside")


def test_whoever_comes_from_elsewhere_names_no_files_of_this_machine_and_no_folders(root):
    workspace = workspace_of(root, local=False)
    for path in ("/etc/passwd", "../x.safetensors", "~/x.safetensors"):
        with pytest.raises(DefinitionError, match="outside"):
            finetunes.allowed_source(workspace, path)
    assert finetunes.allowed_source(workspace, "ckpts/x.safetensors") == "ckpts/x.safetensors"
    assert finetunes.allowed_source(workspace, "https://example.org/x") == "https://example.org/x"
    given = {"outputs": "/", "model_folders": "/etc", "dtype": "fp16"}
    built = preferences_from_form(workspace, given, {})
    assert (built.outputs, built.model_folders, built.dtype) == ("outputs", (), "fp16")


def test_configuration_keeps_what_it_does_not_know_and_refuses_what_cannot_be(workspace, root):
    save_preferences(root, Preferences(tokens={"hub": "hf_1"}, extra={"of_later": 1}))
    built = preferences_from_form(workspace, {"model_folders": "", "dtype": "bf16"}, {"hub": "", "civitai": "new"})
    assert (built.tokens, built.extra, built.dtype) == ({"hub": "hf_1", "civitai": "new"}, {"of_later": 1}, "bf16")
    save_preferences(root, built)
    assert load_preferences(root)[0] == built
    assert (root / "reeltune.json").stat().st_mode & 0o077 == 0
    assert "hf_1" not in repr(built)
    assert preferences_from_form(workspace, {"model_folders": ""}, {"hub": "-"}).tokens == {"civitai": "new"}
    for values in (
        {"outputs": "."},
        {"outputs": ".."},
        {"outputs": "/"},
        {"model_folders": "nowhere"},
        {"connections": 99},
        {"dtype": "fp4"},
    ):
        with pytest.raises(PreferencesError):
            preferences_from_form(workspace, {"model_folders": "", **values}, {})
    with pytest.raises(PreferencesError, match="tokens"):
        preferences_from_form(workspace, {"model_folders": ""}, {"hub": "two words"})


def test_new_changed_and_broken_files_show_without_asking(workspace, root, define):
    assert "t2v_own" not in workspace.catalog()
    define("t2v_own", {"name": "Own", "architecture": "t2v", "URLs": "t2v"})
    assert workspace.catalog()["t2v_own"].name == "Own"
    define("t2v_own", {"name": "Own, changed", "architecture": "t2v", "URLs": "t2v"})
    assert workspace.catalog()["t2v_own"].name == "Own, changed"
    (root / "finetunes" / "bad.json").write_text("{")
    shown = model_list(workspace, "t2v")
    assert "bad.json" in shown
    assert "ends too early" in shown
    end = time.monotonic() + 120
    while not workspace.model_states().get("nano_t2v"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert workspace.model_states()["nano_t2v"].ready
    assert not workspace.model_states()["t2v"].ready


def test_folders_are_looked_through_once_for_all_models(workspace, root, monkeypatch):
    folder = root / "models"
    folder.mkdir()
    (root / "reeltune.json").write_text(json.dumps({"model_folders": [str(folder)]}))
    made = []

    class Counted(model_states.Inventory):
        def __init__(self, *given):
            made.append(given)
            super().__init__(*given)

    monkeypatch.setattr(model_states, "Inventory", Counted)
    for id in ("t2v", "i2v", "nano_t2v", "ti2v_2_2"):
        workspace.explain(workspace.catalog()[id])
    assert len(made) == 1
    (root / "ckpts").mkdir(exist_ok=True)
    (root / "ckpts" / "new.safetensors").write_bytes(b"")
    workspace.explain(workspace.catalog()["t2v"])
    assert len(made) == 2


def test_while_a_file_is_downloaded_no_model_is_explained_again(workspace, root, monkeypatch):
    asked = []
    explain = model_states.explain
    monkeypatch.setattr(
        model_states, "explain", lambda *given, **more: (asked.append(given[0].id), explain(*given, **more))[1]
    )
    settled(workspace)
    first = len(asked)
    assert first == len([row for row in workspace.catalog().summaries() if row.runnable])
    (root / "ckpts").mkdir()
    for count in range(1, 20):
        (root / "ckpts" / "big.safetensors.partial").write_bytes(bytes(count))
        (root / "ckpts" / "big.safetensors.journal.partial").write_bytes(bytes(count))
        (root / "ckpts" / ".index.sqlite").write_bytes(bytes(count))
        shown = model_list(workspace, "t2v") + model_description(workspace, "nano_t2v")
    assert "Ready" in shown
    assert len(asked) == first + 1  # the one that is looked at, once
    (root / "ckpts" / "sub").mkdir()
    (root / "ckpts" / "sub" / "big.safetensors").write_bytes(b"finished")
    settled(workspace)
    assert len(asked) == 2 * first + 1


def settled(workspace):
    """Wait until the states of all models are found out anew."""
    before, end = workspace._states._states, time.monotonic() + 120
    while workspace.model_states() is before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_facts_of_files_notice_every_change_and_survive_links_in_circles(root):
    folder = root / "ckpts"
    folder.mkdir()
    (folder / "circle").symlink_to(folder)
    (folder / "gone").symlink_to(root / "nothing")
    seen = [folder_facts(folder)]
    path = folder / "a.safetensors"
    path.write_bytes(b"1")
    seen.append(folder_facts(folder))
    path.write_bytes(b"12")
    seen.append(folder_facts(folder))
    other = root / "other"
    other.write_bytes(b"34")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)  # same size and time, another file
    seen.append(folder_facts(folder))
    assert len(set(seen)) == len(seen)
    assert folder_facts(root / "nothing") == ()
