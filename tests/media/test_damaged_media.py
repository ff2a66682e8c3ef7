"""2,000 calls with damaged, cut, empty and odd files: an answer or a MediaError, never anything else."""

import io
import json
import time
from random import Random

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mutations import mutated_bytes
from reeltune.errors import MediaError
from reeltune.media.inputs import read_clip, read_image
from reeltune.media.kinds import kind_of
from reeltune.media.mp4 import read_frames, read_metadata
from reeltune.media.origin import read_origin
from reeltune.media.remuxing import copy_video
from reeltune.media.soundtrack import sound_track

CALLS = (
    read_image,
    lambda path: read_clip(path, 9, 16, (32, 32)),
    read_metadata,
    read_origin,
    read_frames,
    kind_of,
    sound_track,
    lambda path: copy_video(path, path.with_name("copy.mp4"), {}),
)
COMMENT = json.dumps({"model_type": "t2v", "prompt": "ein Fuchs, 狐", "seed": 7, "settings": {"prompt": "x"}})
ROUNDS = 36  # of each sample; with four seeds more than 2,000 calls
LONGEST = 5.0  # seconds of the processor, of one call


def video(name, codec, sound=None):
    content = io.BytesIO()
    with av.open(content, "w", format=name) as container:
        container.metadata["comment"] = COMMENT
        stream = container.add_stream(codec, rate=16)
        stream.width, stream.height = 48, 32
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        if sound is not None:
            audio = container.add_stream(sound, rate=48_000)
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 18_000), np.float32), format="fltp", layout="stereo")
            silence.sample_rate = 48_000
            container.mux([*audio.encode(silence), *audio.encode()])
        for number in range(6):
            picture = np.full((32, 48, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return content.getvalue()


def image(name, **options):
    content = io.BytesIO()
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(content, name, **options)
    return content.getvalue()


@pytest.fixture(scope="module")
def samples():
    info = PngInfo()
    info.add_text("comment", COMMENT)
    data = Image.Exif()
    data.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + COMMENT.encode("utf-16-le")
    videos = [video(*row) for row in (
        ("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("gif", "gif"),
        ("mpegts", "mpeg2video"), ("flv", "flv1"), ("asf", "wmv2"), ("ogg", "libtheora"), ("apng", "apng"),
        ("mp4", "libx264", "aac"), ("matroska", "libx264", "ac3"),
    ) if row[1] in av.codecs_available and row[1] != "apng"]  # fmt: skip
    images = [image("PNG", pnginfo=info), image("JPEG", comment=COMMENT.encode(), exif=data), image("WEBP", exif=data),
              image("TIFF"), image("BMP"), image("AVIF"), image("GIF")]  # fmt: skip
    return videos + images


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_give_an_answer_or_a_typed_error(tmp_path, samples, seed, capfd):
    random = Random(seed)
    path = tmp_path / "x"
    calls, messages = 0, []
    for content in samples:
        for _ in range(ROUNDS):
            path.write_bytes(mutated_bytes(random, content))
            call = random.choice(CALLS)
            begun = time.process_time()
            try:
                call(path)
            except MediaError as error:
                messages.append(str(error))
            assert time.process_time() - begun < LONGEST
            calls += 1
    assert calls >= 500
    assert len(messages) > calls // 5
    assert all(message.encode("utf-8") for message in messages)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("tag", ["[" * 50_000, '{"a":' * 9_000, '{"prompt": "\\ud800"}', '{"seed": 1e999}', '{"model_type": 1' + "0" * 400 + "}",
                                 '{"settings": []}', '{"settings": {"seed": []}, "files": [1]}', "\x01\x02", "{}" * 1000])  # fmt: skip
def test_odd_metadata_gives_an_answer(tmp_path, tag):
    info = PngInfo()
    info.add_text("comment", tag)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        container.metadata["comment"] = tag
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    for name in ("x.png", "x.mp4"):
        origin = read_origin(tmp_path / name)
        assert origin is None or "\ufffd" in origin.settings.get("prompt", "\ufffd")
