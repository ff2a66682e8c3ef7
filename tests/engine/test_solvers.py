"""Solvers of distilled LoRAs: real videos, the arithmetic of a step, and noise that follows the seed."""

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from cases import START, write_case
from PIL import Image

from reeltune import Engine, Preferences, load_catalog
from reeltune.engine.solvers import FixedScheduler, scheduler
from reeltune.request.build import build_request
from reeltune.request.parse import complete_settings

NEW = ("causvid", "flowmatch_causvid", "lcm")
FOUR = {"num_inference_steps": 4, "guidance_scale": 1.0, "video_length": 5, "seed": 3, "prompt": "a red circle"}
SHAPE = (1, 4, 2, 8, 8)


def make(definition, **settings):
    with Engine(definition, preferences=Preferences(quantization="bf16")) as engine:
        return engine.generate(**FOUR | settings).frames


def request_of(root, **settings):
    definition = load_catalog(root)["nano_t2v"]
    whole, _ = complete_settings(definition, FOUR | settings)
    return build_request(definition, whole)[0]


def random(seed, dtype=torch.float32):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("solver", NEW)
def test_videos_are_the_same_for_a_seed(root, solver):
    nano = load_catalog(root)["nano_t2v"]
    frames = make(nano, sample_solver=solver)
    assert frames.shape == (5, 64, 64, 3)
    assert frames.std() > 0
    assert np.array_equal(frames, make(nano, sample_solver=solver))
    assert not np.array_equal(frames, make(nano, sample_solver=solver, seed=4))
    assert not np.array_equal(frames, make(nano, sample_solver="euler"))


def test_a_warm_engine_repeats_the_noise_too(root):
    with Engine(load_catalog(root)["nano_t2v"]) as engine:
        first, second = (engine.generate(**FOUR, sample_solver="lcm").frames for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("solver", NEW)
@pytest.mark.parametrize("id", ["nano_i2v", "nano_vace"])
def test_pipelines_for_images_and_control_videos(root, id, solver):
    Image.new("RGB", (64, 64), "red").save(root / "start.png")
    files = START if id == "nano_i2v" else {"image_refs": ["start.png"]}
    frames = make(load_catalog(root)[id], sample_solver=solver, **files)
    assert frames.shape == (5, 64, 64, 3)
    assert frames.std() > 0


@pytest.mark.parametrize("solver", NEW)
@pytest.mark.parametrize("case", ["t2v_2_2", "ti2v_2_2, image"])
def test_two_transformers_and_a_start_frame_without_noise(root, define, parts, case, solver):
    definition, settings = write_case(case, root, define, parts)
    frames = make(definition, **settings | {"sample_solver": solver})
    assert frames.std() > 0


def test_steps_beyond_the_last_one(root):
    nano = load_catalog(root)["nano_t2v"]
    nine = make(nano, sample_solver="causvid", num_inference_steps=9)
    assert np.array_equal(nine, make(nano, sample_solver="causvid", num_inference_steps=12))


def test_the_arithmetic_of_causvid(root):
    solver = scheduler(request_of(root, sample_solver="causvid"))
    solver.set_timesteps(4, device="cpu")
    assert solver.timesteps.tolist() == [1000, 934, 862, 756]
    assert solver.sigmas.tolist() == pytest.approx([1, 0.934, 0.862, 0.756, 0])
    latents = random(0)
    expected = latents.double()
    levels = [1.0, 0.934, 0.862, 0.756, 0.0]
    for step, timestep in enumerate(solver.timesteps):
        velocity = random(step + 1)
        (latents,) = solver.step(velocity, timestep, latents, return_dict=False)
        expected = expected + (levels[step + 1] - levels[step]) * velocity.double()
        assert torch.allclose(latents.double(), expected, atol=1e-5)


def test_the_arithmetic_of_lcm(root):
    """The model's video is mixed with noise of the next level; the last step adds none."""
    request = request_of(root, sample_solver="lcm")
    solver = scheduler(request)
    solver.set_timesteps(4, device="cpu")
    levels = [*(timestep / 1000 for timestep in solver.timesteps.tolist()), 0.0]
    noise_of_steps = []
    latents = random(request.seed)
    for step, timestep in enumerate(solver.timesteps):
        velocity = random(step + 10)
        clean = latents.double() - levels[step] * velocity.double()
        (latents,) = solver.step(velocity, timestep, latents, return_dict=False)
        if step < 3:
            noise_of_steps.append((latents.double() - (1 - levels[step + 1]) * clean) / levels[step + 1])
    assert torch.allclose(latents.double(), clean, atol=1e-5)
    generator = scheduler(request)._generator
    for noise in noise_of_steps:
        assert torch.allclose(noise, torch.randn(SHAPE, generator=generator).double(), atol=1e-4)
    every = torch.stack([random(request.seed).double(), *noise_of_steps]).flatten(1)
    assert (torch.corrcoef(every) - torch.eye(4)).abs().max() < 0.2  # 512 values each; the first latents are others


def test_flowmatch_causvid_is_euler_on_evenly_spaced_noise(root):
    request = request_of(root, sample_solver="flowmatch_causvid", flow_shift=5)
    solver, reference = scheduler(request), diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    solver.set_timesteps(4, device="cpu")
    reference.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    assert torch.allclose(solver.sigmas, reference.sigmas, atol=1e-6)
    latents = others = random(0)
    for step in range(4):
        velocity = random(step + 1)
        (latents,) = solver.step(velocity, solver.timesteps[step], latents, return_dict=False)
        (others,) = reference.step(velocity, reference.timesteps[step], others, return_dict=False)
    assert torch.allclose(latents, others, atol=1e-5)


def test_the_noise_of_lcm_follows_the_seed(root):
    request = request_of(root, sample_solver="lcm")

    def stepped(request):
        solver = scheduler(request)
        solver.set_timesteps(4)
        return solver.step(random(1), solver.timesteps[0], random(0), return_dict=False)[0]

    assert torch.equal(stepped(request), stepped(request))
    assert not torch.equal(stepped(request), stepped(replace(request, seed=request.seed + 1)))
    for seed in (0, 2**31, 2**63 - 1):
        assert torch.isfinite(stepped(replace(request, seed=seed))).all()


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_latents_keep_their_data_type(generator):
    solver = FixedScheduler(lambda steps: (1000.0, 500.0)[:steps], generator)
    solver.set_timesteps(2)
    latents = solver.step(random(1, torch.bfloat16), solver.timesteps[0], random(0)).prev_sample
    assert latents.dtype == torch.float32


@pytest.mark.parametrize(
    ("solver", "shift"), [("unipc", 12.0), ("dpm++", 12.0), ("euler", 1e9), ("lcm", 1e9), ("flowmatch_causvid", 1e9)]
)
def test_steps_with_one_timestep_are_all_made(root, solver, shift):
    """As 100 steps of UniPC have with shift 12: its timesteps are whole numbers."""
    request = request_of(root, sample_solver=solver, flow_shift=shift, num_inference_steps=100)
    ours, theirs = scheduler(request), scheduler(request)
    latents = expected = random(0)
    for one in (ours, theirs):
        one.set_timesteps(request.steps, device="cpu")
    theirs.set_begin_index(0)  # as only some of diffusers' pipelines do
    assert len(set(ours.timesteps.tolist())) < len(ours.timesteps)
    for timestep in ours.timesteps:
        (latents,) = ours.step(random(1), timestep, latents, return_dict=False)
        (expected,) = theirs.step(random(1), timestep, expected, return_dict=False)
    assert torch.equal(latents, expected)


def test_a_video_of_many_steps_with_a_large_shift(root):
    Image.new("RGB", (64, 64), "red").save(root / "start.png")
    nano = load_catalog(root)["nano_i2v"]
    assert make(nano, **START, flow_shift=30, num_inference_steps=40).std() > 0
