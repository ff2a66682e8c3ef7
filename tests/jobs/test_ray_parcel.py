"""What travels to a node with a task, and what becomes here of the files that come back."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reeltune.errors import DefinitionNotFound, SettingsError
from reeltune.events import FilesUsed, LatentsStored, Notice, UsedFile
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import RunTask, Saved
from reeltune.jobs.ray_parcel import Returned, contents, pack
from reeltune.library.inventory import PACKAGE_FILES
from reeltune.preferences import Preferences, save_preferences


def task(definition="nano_i2v", settings=None, **options):
    return RunTask(Attempt(1, 1), definition, settings or {}, **options)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "elsewhere" / "start.png"
    path.parent.mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
    return path


def test_an_input_from_elsewhere_becomes_an_upload_whose_path_both_sides_understand(root, image):
    parcel = pack(root, task(settings={"image_start": str(image), "seed": 1}))
    (name,) = parcel.files
    assert name == f"uploads/{parcel.files[name]}/start.png"
    assert parcel.task.settings == {"image_start": name, "seed": 1}
    assert (root / name).read_bytes() == image.read_bytes()
    assert contents(parcel, [name]) == {name: image.read_bytes()}
    assert contents(parcel, []) == {}


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("folder", ["uploads/abc", "outputs"])
def test_an_upload_and_a_video_of_the_root_keep_their_place(root, image, folder, absolute):
    name = f"{folder}/start.png"
    (root / folder).mkdir(parents=True)
    (root / name).write_bytes(image.read_bytes())
    parcel = pack(root, task(settings={"image_start": str(root / name) if absolute else name}))
    assert list(parcel.files) == [name]
    assert parcel.task.settings == {"image_start": name}


def test_a_list_of_inputs_and_the_inputs_of_saved_settings_travel(root, image):
    (root / "settings").mkdir()
    (root / "settings" / "nano_i2v_settings.json").write_text(json.dumps({"image_start": str(image)}))
    parcel = pack(root, task())
    assert len(parcel.files) == 1
    assert parcel.task.settings["image_start"] in parcel.files
    assert set(parcel.texts) == {"settings/nano_i2v_settings.json"}
    parcel = pack(root, task(settings={"image_start": [str(image)]}))
    assert parcel.task.settings["image_start"] == list(parcel.files)


def test_a_missing_input_and_a_url_stay_as_they_are(root):
    for value in ("gone.png", "https://example.org/a.png"):
        parcel = pack(root, task(settings={"image_start": value}))
        assert parcel.task.settings == {"image_start": value}
        assert not parcel.files


def test_uploaded_loras_travel_and_those_of_the_folder_are_found_on_the_node(root):
    for name in ("uploads/abc/own.safetensors", "loras/wan/other.safetensors"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"weights")
    sources = [str(root / "uploads/abc/own.safetensors"), "other.safetensors", "https://h/x.safetensors"]
    parcel = pack(root, task("nano_t2v", {"activated_loras": sources}))
    assert list(parcel.files) == ["uploads/abc/own.safetensors"]
    assert parcel.task.settings["activated_loras"] == ["uploads/abc/own.safetensors", *sources[1:]]


def test_all_definitions_travel_and_the_preferences_that_hold_everywhere(root, define):
    define("mine", {"architecture": "t2v_1.3B", "URLs": "nano_t2v"})
    (root / "finetunes" / "broken.json").write_bytes(b"{")
    preferences = Preferences(quantization="bf16", device="cpu", save_quantized=True, tokens={"hub": "hf_secret"})
    save_preferences(root, preferences)
    parcel = pack(root, task("mine"))
    assert set(parcel.texts) == {"finetunes/mine.json", "finetunes/broken.json"}
    assert parcel.preferences["quantization"] == "bf16"
    assert not {"device", "tokens", "outputs", "model_folders"} & set(parcel.preferences)
    assert "hf_secret" not in repr(parcel)
    assert "save_quantized" in parcel.notices[0]


def test_a_confined_task_sends_no_file_from_outside(root, image, define):
    with pytest.raises(SettingsError, match="outside"):
        pack(root, task(settings={"image_start": str(image)}, confined=True))
    define("mine", {"architecture": "t2v_1.3B", "URLs": "nano_t2v"}, image_start=str(image))
    with pytest.raises(SettingsError, match="outside"):
        pack(root, task("mine", confined=True))
    assert not (root / "uploads").exists()


def test_an_input_that_is_too_large_is_refused_before_it_is_read(root, image, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.ray_parcel.MOST_BYTES", 10)
    with pytest.raises(SettingsError, match="too much to send"):
        pack(root, task(settings={"image_start": str(image)}))


def test_an_unknown_definition_is_an_error_of_this_side(root):
    with pytest.raises(DefinitionNotFound):
        pack(root, task("gone"))


def test_latents_travel_and_those_that_are_gone_are_the_worker_s_to_report(root):
    path = root / "outputs" / "latents" / "a.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"latents")
    for value in (str(path), "outputs/latents/a.safetensors"):
        parcel = pack(root, task("nano_t2v", latents=value))
        assert parcel.task.latents == "outputs/latents/a.safetensors"
        assert contents(parcel, parcel.files) == {"outputs/latents/a.safetensors": b"latents"}
    gone = pack(root, task("nano_t2v", latents=str(root / "gone.safetensors")))
    assert (gone.task.latents, gone.files) == ("outputs/latents/gone.safetensors", {})


# --- what comes back --------------------------------------------------------------------------------------------------

PLACES = {"root": "/tmp/x/1", "weights": "/data/node", "package": "/opt/lib/reeltune/nano"}


def test_videos_are_written_here_under_an_unused_name(root):
    returned = Returned(root, None, PLACES)
    first, second = (returned.stored(Saved("/tmp/x/1/outputs/a b.mp4"), data) for data in (b"one", b"two"))
    assert [Path(event.path).read_bytes() for event in (first, second)] == [b"one", b"two"]
    assert {Path(event.path).parent for event in (first, second)} == {root / "outputs"}
    assert sorted(path.name for path in (root / "outputs").iterdir()) == ["a_b.mp4", "a_b_2.mp4"]


def test_a_name_from_a_node_leads_nowhere_else(root):
    event = Returned(root, None, PLACES).stored(Saved("/x/../../..\\..\\evil:.mp4"), b"video")
    assert Path(event.path).parent == root / "outputs"


def test_latents_are_kept_here_until_their_video_is_written(root, tmp_path):
    returned = Returned(root, tmp_path / "videos", PLACES)
    event = returned.stored(LatentsStored("/tmp/x/1/outputs/latents/n.safetensors"), b"latents")
    assert Path(event.path).parent == tmp_path / "videos" / "latents"
    assert Path(event.path).read_bytes() == b"latents"
    returned.stored(Saved("a.mp4"), b"video")
    assert not Path(event.path).exists()


def test_the_latents_of_an_earlier_try_are_deleted_once_their_video_is_written(root):
    old = root / "old.safetensors"
    old.write_bytes(b"latents")
    Returned(root, None, PLACES, str(old)).stored(Saved("a.mp4"), b"video")
    assert not old.exists()


def test_files_in_use_have_the_paths_that_they_would_have_here(root):
    returned = Returned(root, None, PLACES)
    paths = ("/tmp/x/1/ckpts/a", "/data/node/ckpts/b", "/opt/lib/reeltune/nano/c", "/else/d")
    event = returned.stored(FilesUsed(tuple(UsedFile(path, 1) for path in paths)), b"")
    here = [f"{root}/ckpts/a", f"{root}/ckpts/b", f"{PACKAGE_FILES}/c", "/else/d"]
    assert [file.path for file in event.files] == here
    assert returned.stored(Notice("x"), b"") == Notice("x")
