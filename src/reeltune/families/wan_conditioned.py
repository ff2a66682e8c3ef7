"""Relatives of Wan that use its own transformers, and differ in what these are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from reeltune.families import wan
from reeltune.families.base import (
    CONTROL_VIDEO,
    REFERENCE_IMAGES,
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    TRAJECTORIES,
    ZERO_STAR,
    Architecture,
    Input,
    Windows,
    refused_groups,
)

_BASES = {architecture.id: architecture for architecture in wan.ARCHITECTURES}
_START = replace(START_IMAGE, required=True)
_SUBJECTS = replace(
    REFERENCE_IMAGES,
    required=True,
    label="People and objects",
    help="One image for each person or object, preferably on a white background.",
)
_EDITED_VIDEO = replace(CONTROL_VIDEO, required=True, held=True, label="Video to edit")
_TRAJECTORIES = replace(TRAJECTORIES, required=True)
_PHANTOM = {"prompt": "A person walks through a sunlit street market", "guidance_scale": 7.5, "video_prompt_type": "I"}
_SVI = {"sliding_window_size": 81, "sliding_window_overlap": 4}
_MOVE = {"num_inference_steps": 40, "flow_shift": 3.0}
_DITTO = {"prompt": "Turn the scene into a watercolor painting", "video_prompt_type": "V", "model_mode": 0}
_TWO_PASSES = (ZERO_STAR, SKIPPED_LAYERS)
_ONE_WINDOW = "it makes no more frames at once than in its training"


def _related(
    base: str,
    id: str,
    inputs: tuple[Input, ...],
    defaults: Mapping[str, object],
    unused: tuple[tuple[str, ...], ...] = (),
    files: str = "",
    **more: object,
) -> Architecture:
    """An architecture that is like another one in all but what is given.

    `unused`: groups of settings that only the other one uses. `files`: part of the names of its files, which nothing
    else tells apart; empty if it uses the files of the other one.
    """
    origin = _BASES[base]
    keys = {key for model_input in inputs for key in (model_input.key, model_input.letters_key)}
    dropped = {model_input.key for model_input in origin.inputs} | {key for group in unused for key in group}
    return replace(
        origin,
        id=id,
        signature=replace(origin.signature, files=(files,) if files else ()),
        transformer_of="" if files else base,
        inputs=inputs,
        settings=frozenset((origin.settings - dropped) | keys | set(defaults)),
        defaults=MappingProxyType({**origin.defaults, **defaults}),
        two_transformers="",
        **more,  # type: ignore[arg-type]
    )


ARCHITECTURES = (
    *(
        _related(
            base,
            id,
            (_SUBJECTS,),
            _PHANTOM,
            _TWO_PASSES,
            files="phantom",
            refused=refused_groups(_TWO_PASSES, "its guidance has a third pass, without the prompt and the images"),
        )
        for base, id in (("t2v_1.3B", "phantom_1.3B"), ("t2v", "phantom_14B"))
    ),
    _related(
        "i2v_2_2",
        "i2v_2_2_svi2pro",
        (_START,),
        _SVI,
        (RIFLEX,),
        windows=Windows(overlaps=(4,), anchor=1),
        refused=refused_groups((RIFLEX,), _ONE_WINDOW),
    ),
    _related("i2v", "wanmove", (_START, _TRAJECTORIES), _MOVE, files="wanmove"),
    _related(
        "vace_14B",
        "vace_ditto_14B",
        (_EDITED_VIDEO,),
        _DITTO,
        modes=(("Global", 0), ("Global style", 1), ("Rendered to real", 2)),
        mode_label="Kind of edit",
        mode_loras=True,
    ),
)
