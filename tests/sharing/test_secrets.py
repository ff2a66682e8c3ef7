"""Nothing of the user's machine gets into what is published: tokens, paths, names of users."""

import getpass
import json
from pathlib import Path

import numpy as np
import pytest

from hub import TOKEN
from reeltune import load_catalog
from reeltune.errors import PublishError
from reeltune.media.mp4 import read_frames, write_mp4
from reeltune.media.origin import Origin, read_origin
from reeltune.media.sound import Sound
from reeltune.media.soundtrack import sound_track
from reeltune.sharing.leaks import Secrets
from reeltune.sharing.licenses import License
from reeltune.sharing.plan import PublishOptions
from reeltune.sharing.publishing import open_repository, publish
from sharing_roots import glow


def run(root, tmp_path, **options):
    catalog = load_catalog(root)
    chosen = PublishOptions(**{"license": License("mit"), **options})
    return publish(catalog, "glow", chosen, open_repository(catalog, "me/glow"), tmp_path / "copies", lambda plan: plan)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("hf_" + "a1B2" * 9, "a token"),
        ("my-own-token", "a token"),
        ("/home/anna/models/x.safetensors", "a path of this machine"),
        ("C:\\Users\\Anna\\x", "a path of this machine"),
        ("C:\\\\Users\\\\Anna\\\\x", "a path of this machine"),
        ("C:/Users/Anna/x", "a path of this machine"),
        ("see /srv/videos/finetunes", "a path of this machine"),
        ("/srv/videos2 is another folder", ""),
        ("a red circle at home, and/or users", ""),
        ("https://huggingface.co/me/glow", ""),
    ],
)
def test_what_is_secret(text, secret):
    secrets = Secrets(("my-own-token",), ("/srv/videos",))
    assert secrets.find(text) == secret
    assert secrets.find_in({"model": {"list": [text]}}) == (f"model.list[0]: {secret}" if secret else "")
    if secret:
        assert secrets.find(secrets.remove(text)) == ""


def test_the_lora_of_the_second_pass_is_shared_without_secrets(hub, root, tmp_path):
    path = glow(root)
    value = json.loads(path.read_text())
    url = "https://example.org/ltx-2-19b-distilled-lora-384.safetensors"
    value["model"]["ltx2_lora_distilled"] = f"{url}?token=SECRET123"
    path.write_text(json.dumps(value))
    run(root, tmp_path)
    published = hub.repositories["me/glow"].files["glow.json"].decode()
    assert "SECRET123" not in published
    assert json.loads(published)["model"]["ltx2_lora_distilled"] == url


def test_settings_with_input_files_are_left_out(hub, root, tmp_path):
    path = glow(root)
    value = json.loads(path.read_text())
    value |= {"image_start": f"{root}/private/me.png", "video_guide": ["https://example.org/v.mp4"], "seed": 3}
    path.write_text(json.dumps(value))
    run(root, tmp_path)
    published = json.loads(hub.repositories["me/glow"].files["glow.json"])
    assert "image_start" not in published
    assert published["video_guide"] == ["https://example.org/v.mp4"]
    assert json.loads(path.read_text())["image_start"] == f"{root}/private/me.png"


@pytest.mark.parametrize("place", ["description", "prompt", "unknown"])
def test_a_secret_in_a_definition_is_refused(hub, root, tmp_path, place):
    path = glow(root)
    value = json.loads(path.read_text())
    if place == "prompt":
        value["prompt"] = f"as in {root}/x.png"
    else:
        value["model"][place] = f"trained with {TOKEN}"
    path.write_text(json.dumps(value))
    with pytest.raises(PublishError, match="contains a") as caught:
        run(root, tmp_path)
    assert TOKEN not in str(caught.value)
    assert str(root) not in str(caught.value)
    assert hub.received == 0


def test_paths_in_the_metadata_of_weights_are_refused(hub, root, tmp_path):
    glow(root)
    weights = root / "ckpts" / "glow_bf16.safetensors"
    raw = weights.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = {"ss_train_data_dir": "/home/anna/pictures"}
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    with pytest.raises(PublishError, match=r"The metadata of glow_bf16\.safetensors has a path of this machine under"):
        run(root, tmp_path)
    run(root, tmp_path, keep_metadata=True)


def video(root, name, prompt, **settings):
    frames = np.full((9, 64, 64, 3), len(name) * 20, np.uint8)
    origin = Origin("glow", "t2v_1.3B", "reeltune", {"prompt": prompt, **settings}, {})
    sound = Sound(np.zeros((2, 27_000), np.float32), 48_000)
    return write_mp4(root / "outputs" / f"{name}.mp4", frames, 16, origin.as_metadata(), sound=sound)


def test_example_videos_show_prompts_and_nothing_else(hub, root, tmp_path):
    glow(root)
    source = video(root, "one", "a red circle", image_start=f"{root}/me.png", seed=7)
    video(root, "two", "a red circle")
    video(root, "three", f"secret {root}")
    video(root, "four", "a blue square", activated_loras=["my_friend.safetensors"])
    run(root, tmp_path)
    files = hub.repositories["me/glow"].files
    published = {name: content for name, content in files.items() if name.startswith("examples/")}
    assert len(published) == 2
    for name, content in published.items():
        copy = tmp_path / Path(name).name
        copy.write_bytes(content)
        origin = read_origin(copy)
        assert origin.settings["prompt"] in ("a red circle", "a blue square")
        assert "image_start" not in origin.settings
        assert b"my_friend" not in content
        assert read_frames(copy).shape == read_frames(source).shape
        assert sound_track(copy) == sound_track(source) is not None
        assert name in files["README.md"].decode()
    received = hub.received
    run(root, tmp_path)
    assert hub.received == received  # the copies have the same bytes each time
    run(root, tmp_path, examples=0)
    assert "examples/" not in hub.repositories["me/glow"].files["README.md"].decode()


def test_no_request_contains_a_path_or_the_name_of_the_user(hub, root, tmp_path):
    glow(root)
    video(root, "one", "a red circle", image_start=f"{root}/me.png")
    run(root, tmp_path)
    sent = b"\n".join(hub.bodies) + "\n".join(hub.requests).encode()
    assert str(root).encode() not in sent
    assert str(tmp_path).encode() not in sent
    home = str(Path.home()).encode()
    assert len(home) < 5 or home + b"/" not in sent
    assert f"/home/{getpass.getuser()}".encode() not in sent
    assert TOKEN.encode() not in sent


def test_components_in_a_folder_are_refused(hub, root, tmp_path):
    (root / "parts").mkdir()
    glow(root, components="parts")
    with pytest.raises(PublishError, match="components from a folder of this machine"):
        run(root, tmp_path)
