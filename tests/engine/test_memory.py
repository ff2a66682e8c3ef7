"""Memory profiles and running out of memory: whatever happens, the video is the same."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from itertools import pairwise

import numpy as np
import psutil
import pytest
import torch
from cases import write_case

from reeltune import Engine, Notice, Preferences, load_catalog
from reeltune.engine import placing
from reeltune.engine.restoring import restorer
from reeltune.errors import DecodeFailed, MediaError, NotEnoughMemory
from reeltune.planning.memory import MemoryProfile

FAST = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 3, "video_length": 5}
FAMILIES = [
    "t2v",
    "i2v",
    "vace_14B",
    "t2v_2_2",
    "ti2v_2_2, image",
    "hunyuan, negative",
    "hunyuan_i2v_token",
    "ltxv_13B, images",
    "lucy_edit",
    "sky_df_1.3B",
    "sky_df_14B, blocks",
    "animate, replaced",
    "chrono_edit, reasoning",
    "phantom_14B",
    "wanmove",
    "i2v_2_2_svi2pro, windows",
    "vace_ditto_14B",
    "hunyuan_1_5_t2v",
    "hunyuan_1_5_i2v",
    "k5_lite_t2v",
    "k5_pro_i2v",
    "ltx2_19B, images",
    "ltx2_22B",
    "ltx2_22B_msr, distilled",
]


@pytest.fixture
def case(root, define, parts, request):
    if request.param.startswith("nano"):
        return load_catalog(root)[request.param], FAST
    return write_case(request.param, root, define, parts)


def make(definition, settings, profile="auto", events=None, **wishes):
    wishes = {"quantization": "int8" if definition.id.startswith("nano") else "bf16"} | wishes
    heard = events.append if events is not None else (lambda event: None)
    with Engine(definition, preferences=Preferences(memory_profile=profile, **wishes), listener=heard) as engine:
        return engine.generate(**settings).frames


def said(events):
    return [event.message for event in events if isinstance(event, Notice)]


@contextmanager
def short_of_memory(ending, times):
    """Modules whose class name ends so run out of memory at these calls, counted from 1."""
    calls = [0]

    def hook(module, inputs):
        if type(module).__name__.endswith(ending):
            calls[0] += 1
            if calls[0] in times:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize("case", ["nano_t2v", *FAMILIES], indirect=True)
def test_every_profile_makes_the_same_video(case, monkeypatch):
    definition, settings = case
    offloaded = []
    inner = placing.offload
    monkeypatch.setattr(placing, "offload", lambda model, *rest: (offloaded.append(type(model)), inner(model, *rest)))
    reference = make(definition, settings, "resident")
    assert not offloaded
    for profile in tuple(MemoryProfile)[1:]:
        assert np.array_equal(make(definition, settings, profile), reference), profile
    assert len(offloaded) >= 4  # an encoder and a transformer, twice


@pytest.mark.parametrize("case", ["nano_t2v", *FAMILIES], indirect=True)
def test_out_of_memory_while_denoising_ends_in_the_same_video(case):
    definition, settings = case
    blocks = ("TransformerBlock", "TransformerDecoderBlock")
    with short_of_memory(blocks, ()) as calls:
        reference = make(definition, settings, "resident")
    events, middle = [], max(1, calls[0] // 2)
    with short_of_memory(blocks, range(middle, middle + 3)):
        assert np.array_equal(make(definition, settings, "resident", events), reference)
    heard = " ".join(said(events))
    for higher, lower in pairwise(tuple(MemoryProfile)):
        assert f"Out of memory with memory profile {higher}: the same step again with {lower}." in heard


@pytest.mark.parametrize("case", ["nano_t2v"], indirect=True)
def test_the_smallest_profile_has_no_smaller_one(case):
    with (
        short_of_memory("TransformerBlock", range(1, 1000)),
        pytest.raises(NotEnoughMemory, match="smallest") as caught,
    ):
        make(*case, "streamed")
    assert "smaller or shorter" in caught.value.hint


@pytest.mark.parametrize("case", ["nano_t2v"], indirect=True)
def test_out_of_memory_while_reading_the_prompt(case):
    reference = make(*case)
    events = []
    with short_of_memory("T5Block", (2,)):
        assert np.array_equal(make(*case, "resident", events), reference)
    assert any("again with stages" in line for line in said(events))


@pytest.mark.parametrize(
    "case", ["nano_t2v", "i2v", "hunyuan", "ltxv_13B", "hunyuan_1_5_t2v", "k5_lite_t2v", "ltx2_19B"], indirect=True
)
def test_out_of_memory_in_the_vae_means_smaller_tiles(case):
    definition, settings = case
    reference, events = make(definition, settings), []
    with short_of_memory(("Decoder3d", "Decoder3D"), (1, 2)) as calls:
        assert np.array_equal(make(definition, settings, events=events), reference)
    assert calls[0] > 2
    told = [line for line in said(events) if "tiles" in line]
    assert told == [f"Out of memory in the VAE: it works in tiles of {side} pixels." for side in (256, 128)]


@pytest.mark.parametrize("case", ["i2v"], indirect=True)
def test_out_of_memory_while_the_vae_encodes(case):
    definition, settings = case
    reference, events = make(definition, settings), []
    with short_of_memory("Encoder3d", (1,)):
        assert np.array_equal(make(definition, settings, events=events), reference)
    assert any("tiles of 256" in line for line in said(events))


@pytest.mark.parametrize("case", ["nano_t2v"], indirect=True)
def test_a_vae_that_never_fits_leaves_the_latents(case):
    definition, settings = case
    reference = make(definition, settings)
    with Engine(definition) as engine:
        with short_of_memory("Decoder3d", range(1, 100)), pytest.raises(DecodeFailed, match="smallest tiles") as caught:
            engine.generate(**settings)
        assert "reeltune decode" in caught.value.hint
        assert np.array_equal(engine.decode(caught.value.latents).frames, reference)


@pytest.mark.parametrize("case", ["nano_t2v"], indirect=True)
@pytest.mark.parametrize("profile", ["resident", "stages", "minimum"])
def test_a_vae_that_never_fits_on_the_device_computes_on_the_cpu(case, monkeypatch, profile):
    definition, settings = case
    reference, events = make(definition, settings), []
    monkeypatch.setattr(placing, "upload", lambda model, device: None)  # of a device that isn't there
    wish = Preferences(memory_profile=profile, quantization="int8")
    with Engine(definition, preferences=wish, listener=events.append) as engine:
        video, vae = engine.generate(**settings), engine._warm.vae._loaded[1]
        engine._warm._placement.device = torch.device("mps")
        monkeypatch.setattr("reeltune.engine.warm.torch_device", lambda name: torch.device("mps"))
        with short_of_memory("Decoder3d", (1, 2, 3)) as calls:  # whole frames, and tiles of both sizes
            again = engine.decode(video.latents)
        assert calls[0] > 3
        assert np.array_equal(again.frames, reference)
        assert vae.vae not in engine._warm._placement._restores  # its next use takes it to the device again
        assert np.array_equal(engine.decode(video.latents).frames, reference)
    assert [line for line in said(events) if "on the CPU" in line]


@pytest.mark.parametrize("case", ["nano_t2v"], indirect=True)
def test_latents_stay_until_the_video_is_written_or_let_go(case, root):
    definition, settings = case

    def kept():
        return list((root / "outputs" / "latents").iterdir())

    with Engine(definition) as engine:
        video = engine.generate(**settings)
        assert len(kept()) == 1
        with pytest.raises(MediaError):
            video.save(root / "finetunes")
        assert len(kept()) == 1
        video.save(root / "out.mp4")
        assert not kept()
        video = engine.generate(**settings)
        assert len(kept()) == 1
        del video
        assert not kept()
        video = engine.generate(**settings)
        with pytest.raises(MediaError, match="latents are stored") as caught:
            video.save(root / "finetunes")
        (path,) = kept()
        del video
        assert kept() == [path]  # what could not be written is not lost with the value
        assert f"reeltune decode {path}" in caught.value.hint
        engine.decode(path).save(root / "again.mp4")
        assert not kept()


KILLED = """
import os, sys
from reeltune import Engine, Progress, load_catalog
def listen(event):
    if event == Progress("decode", 0, 1):
        os.kill(os.getpid(), 9)
with Engine(load_catalog(sys.argv[1])["nano_t2v"], listener=listen) as engine:
    engine.generate(num_inference_steps=2, seed=3, video_length=5, guidance_scale=3.0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize("case", ["nano_t2v"], indirect=True)
def test_killed_after_denoising_then_decoded(case, root, capsys):
    from reeltune.cli.app import main
    from reeltune.media.mp4 import read_frames, read_metadata

    ended = subprocess.run([sys.executable, "-c", KILLED, str(root)], env=dict(os.environ), check=False)
    assert ended.returncode == -9
    (latents,) = (root / "outputs" / "latents").glob("*.safetensors")
    main_answers(main, "ls", "--root", str(root))
    assert f"reeltune decode {latents}" in capsys.readouterr().err.replace("\n", "")
    main_answers(main, "decode", str(latents), "-o", str(root / "again.mp4"), "--root", str(root))
    assert not latents.exists()
    definition, settings = case
    with Engine(definition) as engine:
        whole = engine.generate(**settings)
        whole.save(root / "whole.mp4")
    assert np.array_equal(read_frames(root / "again.mp4"), read_frames(root / "whole.mp4"))
    assert read_metadata(root / "again.mp4") == read_metadata(root / "whole.mp4")
    with pytest.raises(SystemExit):
        main(["decode", str(root / "whole.mp4"), "--root", str(root)])


def main_answers(main, *words):
    with suppress(SystemExit):
        main([*words])


@pytest.mark.parametrize("case", ["t2v_2_2"], indirect=True)
def test_one_stage_at_a_time_swaps_two_transformers(case, monkeypatch):
    """Whatever is placed makes room for what comes: never two models at once."""
    together = []
    inner = placing.Placement.place

    def place(self, *models):
        inner(self, *models)
        together.append(len(self._restores))

    monkeypatch.setattr(placing.Placement, "place", place)
    make(*case, "stages")
    assert set(together) == {1}


def test_memory_returns_after_every_job(root, define, parts):
    """50 videos of four models in turn: what the process holds after the last is what it held after the fifth."""
    definitions = []
    for name in ("t2v", "i2v", "hunyuan", "ltxv_13B"):
        folder = root / name
        (folder / "finetunes").mkdir(parents=True)

        def write(id, model, folder=folder, **settings):
            import json

            (folder / "finetunes" / f"{id}.json").write_text(json.dumps({"model": model, **settings}))

        definitions.append(write_case(name, folder, write, parts))
    process, sizes = psutil.Process(), []
    with Engine(definitions[0][0], preferences=Preferences(quantization="bf16")) as engine:
        for number in range(50):
            definition, settings = definitions[number % 4]
            engine.switch(definition)
            engine.generate(**settings | {"num_inference_steps": 1})
            sizes.append(process.memory_info().rss)
    assert sizes[-1] <= 1.05 * sizes[4], [size // 2**20 for size in sizes]


def test_unpinned_int8_weights_come_back():
    """As diffusers keeps them while they are streamed unpinned: apart from the weight that is sent over."""
    from diffusers.hooks.group_offloading import ModuleGroup

    from reeltune.weights import _libraries
    from reeltune.weights._libraries import int8_tensor

    layer = torch.nn.Linear(8, 4, bias=False)
    weight = int8_tensor(torch.ones(4, 8, dtype=torch.int8), torch.ones(4, 1), torch.bfloat16)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    here = torch.device("cpu")
    group = ModuleGroup([layer], here, here, layer, layer, stream=object(), low_cpu_mem_usage=True)
    assert group.cpu_param_dict[layer.weight] is layer.weight  # else this may go
    _libraries.keep_apart(group)
    kept = group.cpu_param_dict[layer.weight]
    assert kept is not layer.weight
    assert kept.qdata.data_ptr() == layer.weight.qdata.data_ptr()


def test_weights_go_home_without_a_copy():
    """What `stages` and the VAE do on a card: the weights' own memory is waiting for them."""
    from reeltune.weights._libraries import int8_tensor
    from reeltune.weights.upload import move

    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4)).requires_grad_(False)
    weight = int8_tensor(torch.ones(4, 8, dtype=torch.int8), torch.ones(4, 1), torch.bfloat16)
    model[0].weight = torch.nn.Parameter(weight, requires_grad=False)

    def addresses():
        return [model[0].weight.qdata.data_ptr(), *(row.data_ptr() for row in (model[0].bias, *model.buffers()))]

    before = addresses()
    take_back = restorer(model)
    move(model, torch.device("cpu"), None, again=True)
    assert not set(addresses()) & set(before)
    take_back()
    assert addresses() == before
