"""Wan 2.1 and 2.2, with the names of the original release (github.com/Wan-Video) and of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from reeltune.families import wan_animate
from reeltune.families.base import (
    BACKGROUND_VIDEO,
    CONTROL_VIDEO,
    END_IMAGE,
    FACE_VIDEO,
    LORAS,
    MASK_VIDEO,
    REFERENCE_IMAGES,
    RIFLEX,
    SKIPPED_LAYERS,
    START_IMAGE,
    STEP_CACHE,
    WEIGHT_FILES,
    ZERO_STAR,
    Architecture,
    Component,
    Family,
    Input,
    Signature,
    Windows,
    frozen,
    refused_groups,
)
from reeltune.families.components import CLIP_VISION, SENTENCEPIECE, UMT5, WAN22_VAE, WAN_VAE
from reeltune.families.shared import IMAGE_DEFAULTS, TEXT_DEFAULTS
from reeltune.families.wan_config import SKYREELS, derive_config
from reeltune.families.wan_names import QUANTIZABLE, RENAMES

_TEXT_ENCODER = Component(
    "text_encoder", "transformers", "UMT5EncoderModel", WEIGHT_FILES, kind=UMT5.name, feeds="text_dim"
)
_VAE = Component("vae", "diffusers", "AutoencoderKLWan", WEIGHT_FILES, kind=WAN_VAE.name, feeds="out_channels")
_COMPONENTS = (
    Component(
        "tokenizer", "transformers", "AutoTokenizer", ("*.json", "*.model"), ("umt5-xxl",), kind=SENTENCEPIECE.name
    ),
    _TEXT_ENCODER,
    _VAE,
)
_COMPONENTS_2_2 = (*_COMPONENTS[:2], replace(_VAE, kind=WAN22_VAE.name))
_IMAGE_COMPONENTS = (
    *_COMPONENTS,
    Component(
        "image_encoder", "transformers", "CLIPVisionModel", WEIGHT_FILES, kind=CLIP_VISION.name, feeds="image_dim"
    ),
    Component("image_processor", "transformers", "CLIPImageProcessor", ("*.json",), kind=CLIP_VISION.name),
)

WAN = Family(
    name="wan",
    label="Wan",
    markers=("head.modulation", "vace_patch_embedding.weight"),
    renames=RENAMES,
    quantizable=QUANTIZABLE,
    derive_config=derive_config,
    transformer_class="WanTransformer3DModel",
    components=_COMPONENTS,
    solvers=("unipc", "euler", "dpm++", "causvid", "flowmatch_causvid", "lcm"),
    fps=16,
    frame_step=4,
    size_step=16,
    max_text_tokens=512,
    trained_frames=81,
    position_table=1024,
    sized_by=("patch_embedding.weight", "vace_patch_embedding.weight"),
    whole="head.",
)

_PHASES = (
    "guidance_phases", "guidance2_scale", "guidance3_scale", "switch_threshold", "switch_threshold2",
    "model_switch_phase",
)  # fmt: skip
_USED = (
    "prompt", "negative_prompt", "resolution", "video_length", "seed", "num_inference_steps", "guidance_scale",
    "flow_shift", "sample_solver", "repeat_generation", "multi_prompts_gen_type", "force_fps",
    *_PHASES, *LORAS, *ZERO_STAR, *SKIPPED_LAYERS, *RIFLEX,
)  # fmt: skip
_VIDEO_ONLY = frozenset({"video_length", "force_fps"})
_NO_CACHE = refused_groups((STEP_CACHE,), "it would skip the blocks that apply VACE's control video")
_SHORT_PASSES = MappingProxyType(
    {
        **refused_groups((STEP_CACHE,), "diffusers has no step cache for the blocks of its transformer"),
        **refused_groups((RIFLEX,), "it makes no more frames at once than in its training"),
    }
)
_TEXT = {**TEXT_DEFAULTS, "guidance_scale": 5.0, "flow_shift": 5.0}
_IMAGE = {**_TEXT, **IMAGE_DEFAULTS}
_IMAGE_480P = {**_IMAGE, "flow_shift": 7.0}
_EDIT = {**_TEXT, "prompt": "Change the clothes to red", "resolution": "1280x720", "video_prompt_type": "UV"}
_EDIT_IMAGE = {**_IMAGE, "prompt": "Put a straw hat on the person", "resolution": "1280x720", "model_mode": 0}
del _EDIT_IMAGE["video_length"]
_FORCING = {
    **_TEXT, "resolution": "960x544", "video_length": 97, "guidance_scale": 6.0, "flow_shift": 8.0, "model_mode": 0,
    "sliding_window_size": 97, "sliding_window_overlap": 17, "sliding_window_overlap_noise": 20,
}  # fmt: skip
_ANIMATE = {
    **_TEXT, "prompt": "A person in motion, natural light", "video_prompt_type": "VBI", "video_length": 77,
    "num_inference_steps": 20, "guidance_scale": 1.0, "sliding_window_size": 77, "sliding_window_overlap": 1,
}  # fmt: skip
_TWO_PHASES = {"guidance_phases": 2}
_SIZE_5B = 3072  # hidden size
_VACE_NAMES = ("vace_patch_embedding.weight",)
_IMAGE_NAMES = ("img_emb.proj.1.weight",)
_ANIMATE_NAMES = ("face_adapter.",)
_FPS_NAMES = ("fps_embedding.weight",)
_T2V = frozen(in_channels=16, out_channels=16)
_I2V = frozen(in_channels=36, out_channels=16)
_SKY_FILES = ("skyreels2diffusionforcing", "skyreelsv2df")
_PREPARED = "It must be prepared already: reeltune doesn't extract it from a video."
_LORA_FOLDERS = {1536: "wan_1.3B", 3072: "wan_5B"}  # by hidden size
_BOTH = ("bf16", "fp16")
_START = replace(START_IMAGE, required=True)
_END = replace(END_IMAGE, required=True)
_ENDS = (_START, END_IMAGE)
_CONTROLS = (CONTROL_VIDEO, MASK_VIDEO, REFERENCE_IMAGES)
_EDITED_VIDEO = replace(CONTROL_VIDEO, required=True, held=True, label="Video to edit")
_POSE_VIDEO = replace(CONTROL_VIDEO, required=True, held=True, label="Pose video", help=f"Skeletons. {_PREPARED}")
_FACES = f"The face of the same person, cropped to a square. {_PREPARED}"
_FACE_VIDEO = replace(FACE_VIDEO, required=True, label="Face video", help=_FACES)
_CHARACTER = replace(REFERENCE_IMAGES, kind="image", required=True, border=0, label="Character")
_REPLACED = "Only to replace a person in a video: white where that person is."
_ANIMATE_MASK = replace(MASK_VIDEO, help=f"{_REPLACED} {_PREPARED}")
_BEHIND = "Only to replace a person in a video: the video without that person."
_BACKGROUND = replace(BACKGROUND_VIDEO, help=f"{_BEHIND} {_PREPARED}")


def _profile_folder(id: str, signature: Signature) -> str:
    """The folder of an architecture's profiles, as WanGP names it: that of its LoRAs, except in version 2.2."""
    if signature.dim == _SIZE_5B:
        return "wan_2_2_5B"
    if id == "chrono_edit":
        return "wan_chrono_edit"
    return "wan_2_2" if id.endswith("_2_2") else _lora_folder(id, signature)


def _architecture(
    id: str,
    signature: Signature,
    defaults: dict[str, object],
    repo: str,
    pipeline: str,
    inputs: tuple[Input, ...] = (),
    refused: Mapping[str, str] = frozen(),
    **more: Any,
) -> Architecture:
    input_keys = {key for model_input in inputs for key in (model_input.key, model_input.letters_key)}
    used = {*_USED, *STEP_CACHE, *input_keys, *defaults} - _refused_keys(refused)
    if more.get("image_outputs"):
        used -= _VIDEO_ONLY
    return Architecture(
        id=id,
        loras=_lora_folder(id, signature),
        family=WAN,
        signature=signature,
        data_types=_BOTH,
        settings=frozenset(used),
        defaults=MappingProxyType(defaults),
        components_repo=f"Wan-AI/{repo}",
        pipeline=pipeline,
        profiles=_profile_folder(id, signature),
        inputs=inputs,
        refused=refused,
        **more,
    )


def _refused_keys(refused: Mapping[str, str]) -> set[str]:
    """All settings of the groups that are refused."""
    return {key for group in (STEP_CACHE, RIFLEX) if group[0] in refused for key in group}


def _lora_folder(id: str, signature: Signature) -> str:
    """The folder of an architecture's LoRAs, as WanGP names it: by size, and in version 2.1 by kind of input."""
    if signature.dim in _LORA_FOLDERS:
        return _LORA_FOLDERS[signature.dim]
    images_of_2_1 = signature.config == _I2V and not id.endswith("_2_2")
    return "wan_i2v" if images_of_2_1 else "wan"


def _image_architecture(
    id: str,
    signature: Signature,
    defaults: dict[str, object],
    repo: str,
    inputs: tuple[Input, ...],
    pipeline: str = "WanImageToVideoPipeline",
    **more: Any,
) -> Architecture:
    """An image-to-video architecture of Wan 2.1, which also encodes its images with CLIP."""
    return _architecture(id, signature, defaults, repo, pipeline, inputs, components=_IMAGE_COMPONENTS, **more)


def _sky(id: str, signature: Signature, repo: str, fps: int) -> Architecture:
    """An architecture of SkyReels V2 for diffusion forcing: in one pass, frames may be at different noise levels."""
    architecture = _architecture(
        id,
        signature,
        _FORCING,
        repo,
        "SkyReelsV2DiffusionForcingPipeline",
        (START_IMAGE,),
        _SHORT_PASSES,
        image_pipeline="SkyReelsV2DiffusionForcingImageToVideoPipeline",
        config=frozen(_class_name=SKYREELS),
        fps=fps,
        solvers=("unipc", "dpm++"),
        windows=Windows(block=5),
        modes=(("Synchronous", 0), ("Asynchronous", 5)),
        mode_label="Noise levels",
    )
    return replace(architecture, profiles="", settings=architecture.settings - set(_PHASES))


_TEXT_ONLY = {"lacks": _IMAGE_NAMES + _VACE_NAMES + _ANIMATE_NAMES + _FPS_NAMES}
_NO_VACE = {"lacks": _VACE_NAMES + _ANIMATE_NAMES}
_NO_END_FRAME = {"lacks": (*_VACE_NAMES, *_ANIMATE_NAMES, "img_emb.emb_pos")}
_REPO_I2V = "Wan2.1-I2V-14B-480P-Diffusers"
_REPO_A14B = "Wan2.2-T2V-A14B-Diffusers"
_T2V_14B = Signature(_T2V, 5120, **_TEXT_ONLY)
_VACE_14B = Signature(_T2V, 5120, _VACE_NAMES)

ARCHITECTURES = (
    _architecture("t2v", _T2V_14B, _TEXT, "Wan2.1-T2V-14B-Diffusers", "WanPipeline", two_transformers="t2v_2_2"),
    _architecture("t2v_1.3B", Signature(_T2V, 1536, **_TEXT_ONLY), _TEXT, "Wan2.1-T2V-1.3B-Diffusers", "WanPipeline"),
    _architecture("t2v_2_2", _T2V_14B, {**_TEXT, **_TWO_PHASES}, _REPO_A14B, "WanPipeline"),
    replace(
        _image_architecture("i2v", Signature(_I2V, 5120, _IMAGE_NAMES, **_NO_END_FRAME), _IMAGE_480P, _REPO_I2V, _ENDS),
        two_transformers="i2v_2_2",
    ),
    _image_architecture("fun_inp", Signature(_I2V, 5120, _IMAGE_NAMES, **_NO_END_FRAME), _IMAGE_480P, _REPO_I2V, _ENDS),
    _image_architecture(
        "fun_inp_1.3B", Signature(_I2V, 1536, _IMAGE_NAMES, **_NO_END_FRAME), _IMAGE_480P, _REPO_I2V, _ENDS
    ),
    _image_architecture(
        "flf2v_720p",
        Signature(_I2V, 5120, (*_IMAGE_NAMES, "img_emb.emb_pos"), **_NO_VACE),
        {**_IMAGE, "resolution": "1280x720", "image_prompt_type": "SE"},
        "Wan2.1-FLF2V-14B-720P-diffusers",
        (_START, _END),
    ),
    _architecture(
        "i2v_2_2",
        Signature(_I2V, 5120, lacks=_IMAGE_NAMES + _VACE_NAMES + _ANIMATE_NAMES),
        {**_IMAGE, **_TWO_PHASES},
        "Wan2.2-I2V-A14B-Diffusers",
        "WanImageToVideoPipeline",
        (_START, END_IMAGE),
    ),
    _architecture(
        "vace_14B",
        _VACE_14B,
        _TEXT,
        "Wan2.1-VACE-14B-diffusers",
        "WanVACEPipeline",
        _CONTROLS,
        _NO_CACHE,
        two_transformers="vace_14B_2_2",
    ),
    _architecture(
        "vace_1.3B",
        Signature(_T2V, 1536, _VACE_NAMES),
        _TEXT,
        "Wan2.1-VACE-1.3B-diffusers",
        "WanVACEPipeline",
        _CONTROLS,
        _NO_CACHE,
    ),
    _architecture(
        "vace_14B_2_2", _VACE_14B, {**_TEXT, **_TWO_PHASES}, _REPO_A14B, "WanVACEPipeline", _CONTROLS, _NO_CACHE
    ),
    _architecture(
        "ti2v_2_2",
        Signature(frozen(in_channels=48, out_channels=48), 3072, **_TEXT_ONLY),
        _TEXT,
        "Wan2.2-TI2V-5B-Diffusers",
        "WanPipeline",
        (START_IMAGE,),
        components=_COMPONENTS_2_2,
        options=frozen(expand_timesteps=True),
        fps=24,
        size_step=32,
        image_pipeline="WanImageToVideoPipeline",
    ),
    _architecture(
        "lucy_edit",
        Signature(frozen(in_channels=96, out_channels=48), _SIZE_5B, **_TEXT_ONLY),
        _EDIT,
        "Wan2.2-TI2V-5B-Diffusers",
        "LucyEditPipeline",
        (_EDITED_VIDEO,),
        components=_COMPONENTS_2_2,
        options=frozen(expand_timesteps=True),
        fps=24,
        size_step=32,
    ),
    _sky("sky_df_1.3B", Signature(_T2V, 1536, _FPS_NAMES), "Wan2.1-T2V-1.3B-Diffusers", 16),
    _sky("sky_df_14B", Signature(_T2V, 5120, **_TEXT_ONLY, files=_SKY_FILES), "Wan2.1-T2V-14B-Diffusers", 24),
    _architecture(
        "animate",
        Signature(_I2V, 5120, (*_IMAGE_NAMES, wan_animate.POSE, *_ANIMATE_NAMES)),
        _ANIMATE,
        _REPO_I2V,
        "WanAnimatePipeline",
        (_POSE_VIDEO, _FACE_VIDEO, _CHARACTER, _ANIMATE_MASK, _BACKGROUND),
        _SHORT_PASSES,
        components=_IMAGE_COMPONENTS,
        fps=30,
        windows=Windows(overlaps=(1, 5)),
        unused_files=("relighting",),
    ),
    _image_architecture(
        "chrono_edit",
        Signature(_I2V, 5120, _IMAGE_NAMES, **_NO_END_FRAME, files=("chronoedit",)),
        _EDIT_IMAGE,
        _REPO_I2V,
        (replace(_START, label="Image to edit"),),
        "ChronoEditPipeline",
        refused=_SHORT_PASSES,
        config=frozen(_class_name="ChronoEditTransformer3DModel"),
        modes=(("Off", 0), ("On", 1)),
        mode_label="Temporal reasoning",
        image_outputs=True,
        image_frames=29,
        call_only=_VIDEO_ONLY,
    ),
)
