"""Which steps belong to which phase, held against a plain reference over the timesteps of diffusers' schedulers."""

import diffusers
import pytest
from PIL import Image

from reeltune import load_catalog
from reeltune.request.parse import parse
from reeltune.request.phases import phase_count, phases_of
from reeltune.request.timesteps import timesteps

URLS = ["https://h/x_bf16.safetensors"]
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SHIFTS = (1.0, 2.0, 3.0, 5.0, 7.5, 8.0, 12.0)
STEPS = (1, 2, 3, 4, 6, 8, 10, 20, 30, 50)
THRESHOLDS = ((965, 800), (875, 500), (900, 0), (1000, 999), (999, 998), (0, 0), (500, 500), (800, 1))
SCALES = {"guidance_scale": 3.5, "guidance2_scale": 2.0, "guidance3_scale": 1.0}


def visited(solver, steps, shift):
    """The timesteps of diffusers' own scheduler."""
    scheduler = {
        "unipc": lambda: diffusers.UniPCMultistepScheduler(flow_shift=shift, **FLOW),
        "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(flow_shift=shift, **FLOW),
        "euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
    }[solver]()
    scheduler.set_timesteps(steps)
    return [float(timestep) for timestep in scheduler.timesteps]


def reference(times, count, thresholds):
    """The phase of each step, counted from 1: the second begins at the first timestep <= the first threshold, and so on."""
    phases, current = [], 1
    for timestep in times:
        while current < count and timestep <= thresholds[current - 1]:
            current += 1
        phases.append(current)
    return phases


def by_step(phases):
    """The number, the transformer and the guidance of each step."""
    rows = []
    for number, phase in enumerate(phases, start=1):
        assert phase.first_step == len(rows)
        rows += [(number, phase.transformer, phase.guidance_scale)] * phase.steps
    return rows


@pytest.mark.parametrize("solver", ["unipc", "euler", "dpm++"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_each_step_has_the_phase_of_the_reference(solver, shift):
    for steps in STEPS:
        times = visited(solver, steps, shift)
        for first, second in THRESHOLDS:
            for count in (1, 2, 3):
                for switch_phase in (1, 2):
                    settings = SCALES | {"guidance_phases": count, "model_switch_phase": switch_phase}
                    settings |= {"switch_threshold": first, "switch_threshold2": second}
                    found = phases_of(settings, timesteps(solver, steps, shift), two_transformers=True)
                    assert len(found) == count
                    assert by_step(found) == [
                        (
                            phase,
                            "transformer_2" if phase > switch_phase else "transformer",
                            list(SCALES.values())[phase - 1],
                        )
                        for phase in reference(times, count, (first, second))
                    ], (steps, first, second, count, switch_phase)


def test_one_transformer_makes_all_phases():
    settings = SCALES | {"guidance_phases": 3, "switch_threshold": 965, "switch_threshold2": 800}
    found = phases_of(settings, timesteps("unipc", 30, 5.0), two_transformers=False)
    assert {phase.transformer for phase in found} == {"transformer"}
    assert [phase.guidance_scale for phase in found] == [3.5, 2.0, 1.0]


def test_a_third_phase_does_not_begin_before_the_second():
    settings = SCALES | {"guidance_phases": 3, "switch_threshold": 500, "switch_threshold2": 900}
    found = phases_of(settings, timesteps("unipc", 30, 5.0), two_transformers=True)
    first = next(step for step, timestep in enumerate(visited("unipc", 30, 5.0)) if timestep <= 500)
    assert [(phase.first_step, phase.steps) for phase in found] == [(0, first), (first, 0), (first, 30 - first)]


def test_a_phase_without_guidance_of_its_own_has_that_of_the_phase_before():
    settings = {"guidance_phases": 3, "guidance_scale": 3.5, "guidance2_scale": 2.0}
    assert [row.guidance_scale for row in phases_of(settings, (999.0,), two_transformers=True)] == [3.5, 2.0, 2.0]
    assert [row.guidance_scale for row in phases_of({"guidance_phases": 2}, (999.0,), two_transformers=True)] == [1, 1]


@pytest.mark.parametrize(("asked", "count"), [(-1, 1), (0, 1), (1, 1), (2, 2), (3, 3), (4, 3), (99, 3)])
def test_the_number_of_phases_is_between_one_and_three(asked, count):
    assert phase_count({"guidance_phases": asked}) == count
    assert phase_count({}) == 1


def test_the_real_one_with_three_phases(root, define):
    """Eight steps with euler and shift 3: the model boundary is the second threshold, and not the first."""
    settings = SCALES | {
        "guidance_phases": 3, "switch_threshold": 965, "switch_threshold2": 800, "model_switch_phase": 2,
        "num_inference_steps": 8, "flow_shift": 3, "sample_solver": "euler",
        "activated_loras": ["high.safetensors", "low.safetensors"], "loras_multipliers": "0;1;0 0;0;1",
    }  # fmt: skip
    define("mine", {"architecture": "t2v_2_2", "URLs": URLS, "URLs2": URLS}, **settings)
    request = parse(load_catalog(root)["mine"], {}).requests[0]
    phases = reference(visited("euler", 8, 3.0), 3, (965, 800))
    assert set(phases) == {1, 2, 3}
    assert [number for number, _, _ in by_step(request.phases)] == phases
    assert [request.phase(step).transformer for step in range(8)] == [
        "transformer_2" if phase == 3 else "transformer" for phase in phases
    ]
    assert [list(lora.weights) for lora in request.loras] == [
        [float(phase == 2) for phase in phases], [float(phase == 3) for phase in phases],
    ]  # fmt: skip


def test_the_real_one_with_two_phases(root, define):
    """Two LoRAs, each for one of two transformers, which take over at the threshold."""
    settings = {
        "guidance_phases": 2, "switch_threshold": 900, "num_inference_steps": 8, "flow_shift": 5, "sample_solver": "unipc",
        "guidance_scale": 1, "guidance2_scale": 1,
        "activated_loras": ["high.safetensors", "low.safetensors"], "loras_multipliers": "1;0 0;1",
    }  # fmt: skip
    define("mine", {"architecture": "i2v_2_2", "URLs": URLS, "URLs2": URLS}, **settings)
    Image.new("RGB", (64, 64)).save(root / "start.png")
    request = parse(load_catalog(root)["mine"], {"image_start": str(root / "start.png")}).requests[0]
    phases = reference(visited("unipc", 8, 5.0), 2, (900,))
    assert [request.phase(step).transformer for step in range(8)] == [
        "transformer_2" if phase == 2 else "transformer" for phase in phases
    ]
    assert [list(lora.weights) for lora in request.loras] == [
        [float(phase == 1) for phase in phases], [float(phase == 2) for phase in phases],
    ]  # fmt: skip
    assert not request.guided
