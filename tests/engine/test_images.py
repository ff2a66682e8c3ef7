"""`image_outputs`: one frame, written as a PNG with the settings inside, by every way of making videos."""

import io
import json

import numpy as np
import pytest
from cases import write_case
from PIL import Image
from typer.testing import CliRunner

from reeltune import Engine, Preferences, load_catalog
from reeltune.cli.app import app
from reeltune.errors import MediaError
from reeltune.media.origin import read_origin
from reeltune.media.png import write_png
from reeltune.media.stills import sprite_sheet, thumbnail
from reeltune.media.tags import read_metadata
from reeltune.request.parse import parse
from reeltune.service.fields import fields_of, inputs_of

FAST = {"num_inference_steps": 2, "seed": 3, "prompt": "a red circle"}


@pytest.fixture
def images(root, define):
    """Nano as a model that makes images."""
    section = json.loads((load_catalog(root)["nano_t2v"].files[0]).read_text(encoding="utf-8"))
    model = {**section.pop("model"), "image_outputs": True}
    define("pictures", model, **section)
    return load_catalog(root)["pictures"]


def make(definition, **settings):
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        return engine.generate(**settings), engine


def test_one_frame_is_written_with_its_settings(images, root, tmp_path):
    video, engine = make(images, **FAST)
    height, width = video.frames.shape[1:3]
    assert video.frames.shape == (1, height, width, 3)
    path = engine.output_path(video)
    assert path.suffix == ".png"
    assert video.save(path) == path
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (width, height))
        assert np.array_equal(np.asarray(image), video.frames[0])
    origin = read_origin(path)
    assert (origin.definition, origin.settings["prompt"], origin.settings["seed"]) == ("pictures", "a red circle", 3)
    assert "video_length" not in origin.settings
    again, _ = make(images, **origin.settings)
    assert np.array_equal(again.frames, video.frames)
    assert read_metadata(path)["files"]["transformer"]["name"].endswith(".safetensors")
    with Image.open(io.BytesIO(thumbnail(path))) as small:
        assert small.format == "WEBP"
    assert sprite_sheet(path)[:2] == b"\xff\xd8"


@pytest.mark.parametrize("case", ["t2v", "i2v", "i2v, end", "vace_14B", "ti2v_2_2, image", "hunyuan",
                                  "hunyuan_i2v_concat", "ltxv_13B"])  # fmt: skip
def test_every_family_makes_images(case, root, define, parts):
    _, settings = write_case(case, root, define, parts)
    path = root / "finetunes" / "mine.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["model"]["image_outputs"] = True
    path.write_text(json.dumps(value), encoding="utf-8")
    settings = {key: value for key, value in settings.items() if key not in ("video_length", "image_end")}
    video, _ = make(load_catalog(root)["mine"], **settings)
    assert len(video.frames) == 1
    assert video.image
    assert video.frames.std() > 0


def test_settings_of_videos_are_not_offered(images, root, define):
    keys = {field.key for field in (*fields_of(images), *inputs_of(images.architecture))}
    assert not {"video_length", "force_fps", "RIFLEx_setting"} & keys
    assert parse(images, FAST).notices == ()
    (notice,) = parse(images, FAST | {"video_length": 33}).notices
    assert "does not use: video_length=33" in notice
    define("mine", {"architecture": "i2v", "URLs": ["https://h/x_bf16.safetensors"], "image_outputs": True})
    mine = load_catalog(root)["mine"]
    assert [accepted.key for accepted in mine.architecture.inputs] == ["image_start"]
    define("ends", {"architecture": "flf2v_720p", "URLs": ["https://h/x_bf16.safetensors"], "image_outputs": True})
    assert load_catalog(root)["ends"].reason == (
        "it makes single images (image_outputs), and its architecture needs an end image"
    )


def test_an_odd_value_is_left_out(root, define):
    define("mine", {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "image_outputs": "yes"})
    definition = load_catalog(root)["mine"]
    assert not definition.architecture.image_outputs
    assert [problem.where for problem in definition.notices] == ["model.image_outputs"]


def test_the_command_line_writes_png(images, root, tmp_path):
    run = CliRunner().invoke
    arguments = ["generate", "pictures", "a red circle", "--set", "num_inference_steps=2", "--root", str(root)]
    result = run(app, [*arguments, "-o", str(tmp_path / "x.png")])
    assert result.exit_code == 0, result.output
    assert read_origin(tmp_path / "x.png").settings["prompt"] == "a red circle"
    result = run(app, [*arguments, "-o", str(tmp_path / "x.mp4")])
    assert result.exit_code != 0
    assert "pictures makes images" in str(result.exception)
    result = run(app, ["generate", "nano_t2v", "--root", str(root), "-o", str(tmp_path / "x.png")])
    assert "doesn't end in .mp4" in str(result.exception)


def test_latents_of_an_image_are_decoded(images, root, monkeypatch):
    from reeltune.errors import DecodeFailed

    expected, _ = make(images, **FAST)
    with Engine(images, preferences=Preferences(quantization="bf16")) as engine:
        with monkeypatch.context() as broken:
            broken.setattr("reeltune.engine.run.VaeAtWork.decode", lambda *rest: 1 / 0)
            with pytest.raises(DecodeFailed) as caught:
                engine.generate(**FAST)
        again = engine.decode(caught.value.latents)
    assert np.array_equal(again.frames, expected.frames)
    assert again.suffix == ".png"


def test_a_png_takes_one_frame_only(root, tmp_path):
    video, _ = make(load_catalog(root)["nano_t2v"], **FAST, video_length=5)
    with pytest.raises(MediaError, match="a PNG image has one frame, and the video 5"):
        video.save(tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_embedded_is_reported(tmp_path):
    frame = np.zeros((4, 6, 3), np.uint8)
    told = []
    write_png(tmp_path / "a.png", frame, {"text": "x" * 5_000_000}, told.append)
    assert "without its settings" in told[0]
    assert read_metadata(tmp_path / "a.png") is None
    write_png(tmp_path / "b.png", frame, {"prompt": "fox 🦊 \ud800"}, told.append)
    assert read_metadata(tmp_path / "b.png")["prompt"].startswith("fox 🦊")
    with pytest.raises(MediaError, match="uint8"):
        write_png(tmp_path / "c.png", frame.astype(float), {})
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match="can't be written"):
        write_png(tmp_path / "file" / "d.png", frame, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "file"]
