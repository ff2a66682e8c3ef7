"""The timesteps of a denoising loop, computed without torch.

They are needed before a model is loaded, for example to show which steps belong to which phase. Each step of the
arithmetic is rounded as in diffusers' schedulers, because a phase begins where a timestep passes a threshold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from reeltune.families.scales import LTX2_LEVELS
from reeltune.families.values import DISTILLED_STEPS

_SCALE = 1000  # timesteps of training; a timestep is a noise level (0 to 1) times this number
_CAUSVID = (1000.0, 934.0, 862.0, 756.0, 603.0, 410.0, 250.0, 140.0, 74.0)  # that the model was distilled for
_MOST_LCM_STEPS = 8
_LEAST_LCM_NOISE = 0.003 / 1.002  # the end of the schedule; the loop doesn't visit it
_LEAST_SHIFTED = 1e-6  # how far UniPC's first noise level stays below 1
_LAST_LEVEL = 0.1  # at which the last step of LTX-2's schedule begins
_LINEAR_NOISE = 0.025  # that the linear half of LTX Video's schedule removes


def timesteps(solver: str, steps: int, shift: float, family: str = "wan") -> tuple[float, ...]:
    """The timesteps that the denoising loop visits, in descending order, 0 to 1000.

    `family`: "wan", "hunyuan", "hunyuan_1_5", "ltx", "ltx2" or "kandinsky_5"; all but Wan support only "euler", and
    LTX-2 also "distilled_8_steps". The timesteps are equal to `scheduler.timesteps` in diffusers' pipeline of the
    family; for "ltx", to within 0.01. The pipelines of Hunyuan Video and LTX Video choose the noise levels themselves,
    and LTX Video's timesteps don't depend on the shift. Kandinsky 5 visits those of its release. `shift`: above 0.

    The result has fewer than `steps` timesteps if the solver can't make so many: "causvid" makes at most 9 steps, and
    "lcm" at most 8. "distilled_8_steps" always makes 8. Raises ValueError if the family doesn't support the solver, or
    for fewer than 1 step.
    """
    if steps < 1:
        raise ValueError(f"There must be at least 1 step, not {steps}.")
    schedules = _SCHEDULES.get(family, {})
    if solver not in schedules:
        raise ValueError(f"There is no solver {solver!r} for {family!r}.")
    return schedules[solver](steps, shift)


def _unipc(steps: int, shift: float) -> tuple[float, ...]:
    levels = [_shifted(level, shift) for level in _evenly(1.0, 1 / _SCALE, steps + 1)[:-1]]
    if abs(levels[0] - 1) < _LEAST_SHIFTED:
        levels[0] -= _LEAST_SHIFTED
    return tuple(float(int(level * _SCALE)) for level in levels)


def _dpm(steps: int, shift: float) -> tuple[float, ...]:
    levels = [_shifted(1.0 - signal, shift) for signal in _evenly(1.0, 1 / _SCALE, steps + 1)]
    return tuple(float(int(level * _SCALE)) for level in levels[:0:-1])


def _euler(steps: int, shift: float) -> tuple[float, ...]:
    """Diffusers shifts the last timestep twice: once as the end of the schedule, and once with all others."""
    least = _shifted_single(_single(1 / _SCALE), shift)
    most = _shifted_single(1.0, shift)
    levels = [timestep / _SCALE for timestep in _evenly(most * _SCALE, least * _SCALE, steps)]
    return tuple(_single(_single(_shifted(level, shift)) * _SCALE) for level in levels)


def _causvid(steps: int, _: float) -> tuple[float, ...]:
    return _CAUSVID[:steps]


def _flowmatch_causvid(steps: int, shift: float) -> tuple[float, ...]:
    return tuple(_single(_shifted(level, shift) * _SCALE) for level in _evenly(1.0, 0.0, steps + 1)[:-1])


def _lcm(steps: int, shift: float) -> tuple[float, ...]:
    count = min(steps, _MOST_LCM_STEPS)
    levels = _evenly(1.0, _LEAST_LCM_NOISE, count + 1)[:-1]
    return tuple(_single(_shifted(level, shift) * _SCALE) for level in levels)


def _hunyuan(steps: int, shift: float) -> tuple[float, ...]:
    levels = [_shifted_single(_single(level), shift) for level in _evenly(1.0, 0.0, steps + 1)[:-1]]
    return tuple(_single(level * _SCALE) for level in levels)


def _ltx(steps: int, _: float) -> tuple[float, ...]:
    """The first half of the steps removes little noise, the same in each; the second half removes more and more."""
    if steps < 2:
        return (float(_SCALE),)
    linear = steps // 2
    slope = _LINEAR_NOISE / linear
    curve = (1 - slope * steps) / (steps - linear) ** 2
    removed = [slope * step + curve * max(0, step - linear) ** 2 for step in range(steps)]
    return tuple(_single(_single(1.0 - noise) * _SCALE) for noise in removed)


def _ltx2(steps: int, shift: float) -> tuple[float, ...]:
    """LTX-2's levels are shifted, and stretched so that the last step begins at the same level in every schedule."""
    factor = _single(shift)
    levels = []
    for level in _evenly(1.0, 1 / steps, steps):
        odds = _single(_single(1 / _single(level)) - 1)
        levels.append(_single(factor / _single(factor + odds)))
    removed = [_single(1 - level) for level in levels]
    if steps < 2:
        return (float(_SCALE),)
    stretch = _single(removed[-1] / _single(1 - _LAST_LEVEL))
    return tuple(_single(1 - _single(noise / stretch)) * _SCALE for noise in removed)


_Schedule = Callable[[int, float], tuple[float, ...]]
_SCHEDULES: dict[str, dict[str, _Schedule]] = {
    "wan": {
        "unipc": _unipc,
        "euler": _euler,
        "dpm++": _dpm,
        "causvid": _causvid,
        "flowmatch_causvid": _flowmatch_causvid,
        "lcm": _lcm,
    },
    "hunyuan": {"euler": _hunyuan},
    "hunyuan_1_5": {"euler": _hunyuan},
    "kandinsky_5": {"euler": _hunyuan},
    "ltx": {"euler": _ltx},
    "ltx2": {"euler": _ltx2, DISTILLED_STEPS: lambda steps, shift: tuple(level * _SCALE for level in LTX2_LEVELS)},
}


def _shifted(level: float, shift: float) -> float:
    """A noise level, 0 to 1, moved towards 1 by a shift above 1."""
    return shift * level / (1 + (shift - 1) * level)


def _shifted_single(level: float, shift: float) -> float:
    """The same in single precision."""
    divisor = _single(1 + _single(_single(shift - 1) * level))
    return _single(_single(_single(shift) * level) / divisor)


def _evenly(first: float, last: float, count: int) -> list[float]:
    """So many numbers at equal distances, as `numpy.linspace` rounds them."""
    if count == 1:
        return [first]
    distance = (last - first) / (count - 1)
    return [*(index * distance + first for index in range(count - 1)), last]


def _single(number: float) -> float:
    """The nearest number in single precision."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])
