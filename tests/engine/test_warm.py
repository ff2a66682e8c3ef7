"""What stays from one video to the next: embeddings, components, the model that takes another's weights."""

import json
import os
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from cases import write_case

from reeltune import Engine, Notice, Preferences, Progress, load_catalog
from reeltune.engine import run as run_module
from reeltune.engine import vae as vae_module
from reeltune.errors import NotRunnable

NANO = Path(str(resources.files("reeltune"))) / "nano"
FAST = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 3, "video_length": 5}


@pytest.fixture
def loaded(monkeypatch):
    """Names of the components that are loaded, in order."""
    names = []
    inner = run_module.load_component

    def noted(component, *rest, **options):
        names.append(component.name)
        return inner(component, *rest, **options)

    for module in (run_module, vae_module):
        monkeypatch.setattr(module, "load_component", noted)
    return names


def test_a_prompt_is_read_once(root, loaded):
    with Engine(load_catalog(root)["nano_t2v"]) as engine:
        first = engine.generate("a red circle", **FAST).frames
        assert loaded == ["tokenizer", "text_encoder", "vae"]
        assert np.array_equal(engine.generate("a red circle", **FAST).frames, first)
        engine.generate("a red circle", **FAST | {"seed": 4, "num_inference_steps": 1})
        assert loaded == ["tokenizer", "text_encoder", "vae"]
        for number, change in enumerate(
            ({"negative_prompt": "blue"}, {"guidance_scale": 1.0}, {"prompt": "a blue square"})
        ):
            engine.generate(**{"prompt": "a red circle"} | FAST | change)
            assert loaded.count("text_encoder") == number + 2, change
        for number in range(9):  # the memory is bounded
            engine.generate(f"number {number}", **FAST | {"num_inference_steps": 1})
        loaded.clear()
        assert np.array_equal(engine.generate("a red circle", **FAST).frames, first)
        assert loaded == ["tokenizer", "text_encoder"]


@pytest.mark.parametrize("name", ["i2v", "hunyuan_i2v_token"])
def test_another_image_is_another_embedding(name, root, define, parts, loaded):
    definition, settings = write_case(name, root, define, parts)
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        first = engine.generate(**settings).frames
        other = engine.generate(**settings | {"image_start": "end.png"}).frames
        assert loaded.count("text_encoder") == 2
        assert not np.array_equal(first, other)
        assert np.array_equal(engine.generate(**settings).frames, first)
        assert loaded.count("text_encoder") == 2


@pytest.mark.parametrize("quantization", ["bf16", "int8"])
def test_two_finetunes_in_turn_are_what_each_is_alone(root, loaded, quantization):
    catalog, wish, alone = load_catalog(root), Preferences(quantization=quantization), {}
    for id in ("nano_t2v", "nano_neon"):
        with Engine(catalog[id], preferences=wish) as engine:
            alone[id] = engine.generate("a red circle", **FAST).frames
    loaded.clear()
    events = []
    with Engine(catalog["nano_t2v"], preferences=wish, listener=events.append) as engine:
        models = set()
        for id in ("nano_t2v", "nano_neon", "nano_t2v", "nano_neon"):
            engine.switch(catalog[id])
            video = engine.generate("a red circle", **FAST)
            assert np.array_equal(video.frames, alone[id])
            assert video.origin.definition == id
            models.add(id_of_model(engine))
        assert loaded == ["tokenizer", "text_encoder", "vae"]
        assert len(models) == 1  # filled anew each time
        with pytest.raises(NotRunnable):
            engine.switch(catalog_with_unrunnable(root))
    loads = [
        event for event in events if isinstance(event, Progress) and event.stage == "load" and event.done == event.total
    ]
    assert len(loads) == 4
    told = [event.message for event in events if isinstance(event, Notice)]
    assert sum("nano_neon" in line for line in told) == 2  # each time which file, and why


def id_of_model(engine):
    return id(engine._warm.models._loaded["transformer"].model)


def catalog_with_unrunnable(root):
    import json

    model = {"architecture": "t2v", "URLs": ["https://h/x.safetensors"], "modules": ["vace_14B"]}
    (root / "finetunes" / "styled.json").write_text(json.dumps({"model": model}))
    return load_catalog(root)["styled"]


def test_another_architecture_takes_all_of_its_own(root, define, parts, tmp_path):
    definition, settings = write_case("i2v", root, define, parts)
    wish = Preferences(quantization="bf16")
    with Engine(definition, preferences=wish) as engine:
        alone = engine.generate(**settings).frames
    with Engine(load_catalog(root)["nano_t2v"], preferences=wish) as engine:
        nano = engine.generate(**FAST).frames
        engine.switch(definition)
        assert np.array_equal(engine.generate(**settings).frames, alone)
        engine.switch(load_catalog(root)["nano_t2v"])
        assert np.array_equal(engine.generate(**FAST).frames, nano)


# --- files that change between two videos ---------------------------------------------------------------------


def both(root):
    return tuple((root / "ckpts" / f"nano_{name}_bf16.safetensors") for name in ("t2v", "neon"))


@pytest.fixture
def copied(root):
    """nano's weights in the root's own ckpts, where they may be replaced."""
    for path in both(root):
        path.parent.mkdir(exist_ok=True)
        shutil.copy(NANO / path.name, path)
    return both(root)


@pytest.mark.parametrize("how", ["renamed over", "overwritten in place", "same time and size"])
def test_a_replaced_checkpoint_is_loaded_again(root, copied, how):
    catalog, wish = load_catalog(root), Preferences(quantization="bf16")
    path, other = copied
    alone = {}
    for id in ("nano_t2v", "nano_neon"):
        with Engine(catalog[id], preferences=wish) as engine:
            alone[id] = engine.generate("a red circle", **FAST).frames
    events = []
    with Engine(catalog["nano_t2v"], preferences=wish, listener=events.append) as engine:
        assert np.array_equal(engine.generate("a red circle", **FAST).frames, alone["nano_t2v"])
        before = path.stat()
        if how == "overwritten in place":
            with path.open("r+b") as file:
                file.write(other.read_bytes())
        else:
            other.replace(path)
        if how == "same time and size":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert np.array_equal(engine.generate("a red circle", **FAST).frames, alone["nano_neon"])
        assert np.array_equal(engine.generate("a red circle", **FAST).frames, alone["nano_neon"])
    loads = [
        event for event in events if isinstance(event, Progress) and event.stage == "load" and event.done == event.total
    ]
    assert len(loads) == 2
    told = [event.message for event in events if isinstance(event, Notice)]
    assert sum("nano_t2v_bf16.safetensors changed on the disk" in line for line in told) == 1


def test_replaced_components_are_loaded_again(root, loaded, tmp_path):
    components = tmp_path / "components"
    shutil.copytree(NANO / "reeltune--nano", components)
    model = {"name": "x", "architecture": "t2v_1.3B", "URLs": "nano_t2v", "components": str(components)}
    (root / "finetunes" / "own.json").write_text(json.dumps({"resolution": "64x64", "model": model}))
    with Engine(load_catalog(root)["own"], preferences=Preferences(quantization="bf16")) as engine:
        engine.generate("a red circle", **FAST)
        assert loaded == ["tokenizer", "text_encoder", "vae"]
        for name in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
            loaded.clear()
            copy = tmp_path / "copy"
            shutil.copy(components / name, copy)
            copy.replace(components / name)
            engine.generate("a red circle", **FAST)
            assert loaded == (["vae"] if "vae" in name else ["tokenizer", "text_encoder"])
            loaded.clear()
            engine.generate("a red circle", **FAST)
            assert not loaded


def test_a_checkpoint_cut_between_two_videos_is_passed_over(root, copied):
    with Engine(load_catalog(root)["nano_t2v"], preferences=Preferences(quantization="bf16")) as engine:
        first = engine.generate("a red circle", **FAST).frames
        os.truncate(copied[0], 1_000_000)
        assert np.array_equal(engine.generate("a red circle", **FAST).frames, first)  # the package has the same file
