"""The weights of LoRAs by step, in the syntax of the setting `loras_multipliers`.

    1 0.5           two LoRAs with a constant weight each
    0,0.5,1         one LoRA whose weight rises over the steps
    1;0 0;1         two LoRAs, each in one of two phases
    0.9,0.8;1.2;0   a list in the first of three phases

Items are separated by spaces or line breaks, one for each LoRA; a `|` separates those of a profile from the user's.
Lines that begin with `#` are comments. The grammar is that of WanGP's settings files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reeltune._text import counted
from reeltune.errors import SettingsError
from reeltune.families.base import LORA_WEIGHTS
from reeltune.families.vocabulary import shown

_COMMENT = "#"
_PROFILE_END = "|"
_MAX_VALUES = 1000  # of one LoRA
MAX_WEIGHT = 1000.0  # and -1000 at least


@dataclass(frozen=True)
class StepWeights:
    """The weights of one LoRA: a list of values for each phase, or one list for all steps."""

    phases: tuple[tuple[float, ...], ...] = ((1.0,),)

    @property
    def constant(self) -> bool:
        """Whether the weight is the same in all steps."""
        return len({value for values in self.phases for value in values}) == 1

    def up_to(self, phases: int) -> StepWeights:
        """The weights of the first phases."""
        return StepWeights(self.phases[:phases])

    def by_step(
        self, phase_steps: Sequence[int], model_switch_phase: int = 1, *, more_phases: bool = True
    ) -> tuple[float, ...]:
        """The weight in each step of a video.

        `more_phases`: whether a setting could give the video more phases, which is what an error then advises.
        `phase_steps`: the number of steps of each phase. With fewer lists than phases the last list is repeated, or the
        first if the second transformer starts with the third phase (`model_switch_phase` is 2). Raises SettingsError
        for more lists than phases.
        """
        if len(self.phases) == 1:
            return _spread(self.phases[0], sum(phase_steps))
        lists = list(self.phases)
        if len(lists) > len(phase_steps):
            written = ";".join(",".join(f"{value:g}" for value in values) for values in lists)
            message = (
                f"{LORA_WEIGHTS}: {written} has weights for {len(lists)} phases, and there are {len(phase_steps)}."
            )
            hint = "one list of weights for each phase."
            raise SettingsError(
                message, hint=f"Set guidance_phases, or write {hint}" if more_phases else f"Write {hint}"
            )
        repeated = 0 if model_switch_phase == 2 else len(lists) - 1
        while len(lists) < len(phase_steps):
            lists.insert(repeated, lists[repeated])
        weights: list[float] = []
        for values, steps in zip(lists, phase_steps, strict=True):
            weights += _spread(values, steps)
        return tuple(weights)


def parse_multipliers(text: str) -> tuple[StepWeights, ...]:
    """The weights of each LoRA. Raises SettingsError with the first invalid item."""
    return tuple(_item(item) for item in items_of(text))


def items_of(text: str) -> tuple[str, ...]:
    """The items of a text, one for each LoRA, without checking them. Raises SettingsError for several `|`."""
    return tuple(_without_comments(text).replace(_PROFILE_END, " ").split())


def split_profile(text: str) -> tuple[tuple[str, ...], str]:
    """The items left of `|`, which belong to a profile, and the text right of it, which is the user's.

    Without `|`, the whole text is the user's. Raises SettingsError for several `|`.
    """
    if _PROFILE_END not in _without_comments(text):
        return (), text
    lines = text.splitlines()
    cut = next(index for index, line in enumerate(lines) if _PROFILE_END in line and not _is_comment(line))
    left, _, right = lines[cut].partition(_PROFILE_END)
    return items_of("\n".join([*lines[:cut], left])), "\n".join([right, *lines[cut + 1 :]]).strip()


def join_profile(items: Sequence[str], text: str) -> str:
    """The text with a profile's items left of `|`; the opposite of `split_profile`."""
    if not items:
        return text
    return f"{' '.join(items)} {_PROFILE_END}{_separator(text)}{text}".rstrip()


def add_items(text: str, loras: int, items: Sequence[str]) -> str:
    """The text with one item for each of `loras` LoRAs, followed by `items` for further ones.

    Surplus items are left out, and missing ones are 1. Raises SettingsError for several `|`.
    """
    profile, own = split_profile(text)
    profile = profile[:loras]
    owned = loras - len(profile)
    own_items = items_of(own)
    if len(own_items) > owned:
        own = " ".join(own_items[:owned])
    added = " ".join([*["1"] * (owned - len(own_items)), *items])
    return join_profile(profile, f"{own}{_separator(own)}{added}".strip())


def _separator(text: str) -> str:
    """A line break next to a text of several lines or a comment, which needs its own line; else a space."""
    return "\n" if len(text.splitlines()) > 1 or _is_comment(text) else " "


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(_COMMENT)


def _without_comments(text: str) -> str:
    """The lines of a text without comments, joined by spaces. Raises SettingsError for several `|`."""
    lines = [line.strip() for line in text.splitlines()]
    joined = " ".join(line for line in lines if line and not _is_comment(line))
    if joined.count(_PROFILE_END) > 1:
        message = f"{LORA_WEIGHTS} has several {_PROFILE_END!r}: {shown(joined)}."
        raise SettingsError(message, hint=f"One {_PROFILE_END!r} separates a profile's weights from your own.")
    return joined


def _item(item: str) -> StepWeights:
    phases = tuple(tuple(_number(part, item) for part in phase.split(",")) for phase in item.split(";"))
    if sum(len(values) for values in phases) > _MAX_VALUES:
        message = f"{LORA_WEIGHTS}: an item has more than {_MAX_VALUES:,} values."
        raise SettingsError(message, hint="Write at most one value for each step.")
    return StepWeights(phases)


def _number(text: str, item: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"{LORA_WEIGHTS}: invalid item {shown(item)}: {shown(text)} is not a number."
        raise SettingsError(message, hint="Write numbers such as 0.8, 1,0.5,0 by step, or 1;0 by phase.")
    if abs(value) > MAX_WEIGHT:
        message = (
            f"{LORA_WEIGHTS}: invalid item {shown(item)}: {shown(text)} is not from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}."
        )
        raise SettingsError(message, hint="Most LoRAs are made for weights from 0 to 1.")
    return value


def _spread(values: Sequence[float], steps: int) -> tuple[float, ...]:
    """A list of values distributed over steps: 0,0.5,1 over 9 steps is 0 three times, 0.5 four times, 1 twice.

    Step i has the value at the integer part of a position that starts at 0 and grows by values/steps in each step. The
    position is accumulated in floating point like WanGP's, so that its files give the same weights.
    """
    weights = []
    position = 0.0
    for _ in range(steps):
        weights.append(values[min(int(position), len(values) - 1)])
        position += len(values) / steps
    return tuple(weights)


def weights_of(items: Sequence[StepWeights], loras: int) -> tuple[tuple[StepWeights, ...], list[str]]:
    """One item for each LoRA, 1 for those without an item, and notices about items without a LoRA."""
    notices = []
    surplus = len(items) - loras
    if surplus > 0:
        unused = "the last one is" if surplus == 1 else f"the last {surplus} are"
        notices.append(
            f"{LORA_WEIGHTS} has {counted(len(items), 'item')} for {counted(loras, 'LoRA')}: {unused} not used."
        )
    missing = (StepWeights(),) * (loras - len(items))
    return (*items[:loras], *missing), notices
