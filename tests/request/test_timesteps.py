"""The timesteps of every solver, computed without torch, against those of diffusers' schedulers and pipelines."""

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video
from diffusers.pipelines.ltx import pipeline_ltx_condition

from reeltune.engine.solvers import scheduler
from reeltune.families import FAMILIES
from reeltune.families.kandinsky5 import KANDINSKY_5
from reeltune.families.wan import WAN
from reeltune.request.timesteps import timesteps

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SHIFTS = (0.3, 1, 1.7, 3.0, 5, 7.0, 8.6, 12.0, 1e4)
STEPS = range(1, 51)
CAUSVID = [1000, 934, 862, 756, 603, 410, 250, 140, 74]


def visited_by(configured, *arguments, **options):
    """The timesteps of one of diffusers' schedulers."""
    configured.set_timesteps(*arguments, **options)
    return configured.timesteps.tolist()


@pytest.mark.parametrize("shift", SHIFTS)
def test_unipc_and_dpm_round_to_the_same_whole_numbers(shift):
    unipc = diffusers.UniPCMultistepScheduler(flow_shift=shift, **FLOW)
    dpm = diffusers.DPMSolverMultistepScheduler(flow_shift=shift, **FLOW)
    for steps in STEPS:
        assert list(timesteps("unipc", steps, shift)) == visited_by(unipc, steps), steps
        assert list(timesteps("dpm++", steps, shift)) == visited_by(dpm, steps), steps


@pytest.mark.parametrize("shift", SHIFTS)
def test_euler(shift):
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    for steps in STEPS:
        assert list(timesteps("euler", steps, shift)) == visited_by(euler, steps), steps


@pytest.mark.parametrize("shift", SHIFTS)
def test_schedules_of_distilled_loras(shift):
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    for steps in STEPS:
        own = np.linspace(1, 0, steps + 1)[:-1]
        assert timesteps("flowmatch_causvid", steps, shift) == pytest.approx(visited_by(euler, sigmas=own), abs=0.01)
        few = np.linspace(1, 0.003 / 1.002, min(steps, 8) + 1)[:-1]
        assert timesteps("lcm", steps, shift) == pytest.approx(visited_by(euler, sigmas=few), abs=0.01)
        assert list(timesteps("causvid", steps, shift)) == CAUSVID[:steps]


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("solver", WAN.solvers)
def test_the_engine_visits_them_in_descending_order(solver, shift):
    """Equal without a tolerance: a threshold decides alike for the list and in the loop."""
    of_engine = scheduler(SimpleNamespace(solver=solver, shift=shift, seed=0))
    for steps in STEPS:
        visited = timesteps(solver, steps, shift)
        assert list(visited) == visited_by(of_engine, steps), steps
        assert len(of_engine.sigmas) == len(visited) + 1
        assert of_engine.sigmas[-1] == 0
        assert visited[0] <= 1000
        assert visited[-1] >= 0
        assert list(visited) == sorted(visited, reverse=True)


def test_known_timesteps():
    assert timesteps("flowmatch_causvid", 4, 5) == pytest.approx((1000, 937.5, 833.333, 625), abs=1e-3)
    assert timesteps("lcm", 4, 5) == pytest.approx((1000, 937.734, 834.164, 627.794), abs=1e-3)
    assert timesteps("causvid", 4, 5) == timesteps("causvid", 4, 1) == (1000, 934, 862, 756)
    assert timesteps("unipc", 4, 5) == (999, 937, 833, 625)


@pytest.mark.parametrize("shift", SHIFTS)
def test_hunyuan_videos_pipeline_chooses_its_own_noise_levels(shift):
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    for steps in STEPS:
        levels = np.linspace(1.0, 0.0, steps + 1)[:-1]
        expected, _ = pipeline_hunyuan_video.retrieve_timesteps(euler, steps, "cpu", sigmas=levels)
        assert list(timesteps("euler", steps, shift, "hunyuan")) == expected.tolist(), steps


def test_ltx_videos_pipeline_chooses_its_own_timesteps():
    euler = diffusers.FlowMatchEulerDiscreteScheduler()
    for steps in STEPS:
        chosen = pipeline_ltx_condition.linear_quadratic_schedule(steps) * 1000
        expected, _ = pipeline_ltx_condition.retrieve_timesteps(euler, steps, "cpu", chosen)
        assert timesteps("euler", steps, 1.0, "ltx") == pytest.approx(expected.tolist(), abs=0.01), steps


def test_every_solver_of_every_family_has_timesteps():
    for family in FAMILIES:
        for solver in family.solvers:
            assert timesteps(solver, 4, 3.0, family.name)[0] >= 998


@pytest.mark.parametrize("steps", [1, 4, 16, 30, 50])
def test_kandinsky_visits_those_of_its_release(steps):
    """So many equal parts of the way from noise to the video, shifted once."""
    evenly = np.linspace(1, 0, steps + 1)[:-1]
    expected = 1000 * 10 * evenly / (1 + 9 * evenly)
    assert timesteps("euler", steps, 10.0, "kandinsky_5") == pytest.approx(expected.tolist(), rel=1e-6)
    solver = scheduler(SimpleNamespace(solver="euler", shift=10.0), KANDINSKY_5)
    solver.set_timesteps(steps)
    assert solver.timesteps.tolist() == list(timesteps("euler", steps, 10.0, "kandinsky_5"))
    assert solver.sigmas.tolist()[-1] == 0


@pytest.mark.parametrize(
    ("solver", "steps", "family"), [("ddim", 4, "wan"), ("unipc", 4, "ltx"), ("euler", 4, "odd"), ("euler", 0, "wan")]
)
def test_what_has_no_timesteps(solver, steps, family):
    with pytest.raises(ValueError, match="There"):
        timesteps(solver, steps, 3.0, family)
