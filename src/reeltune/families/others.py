"""Architectures that WanGP supports and reeltune doesn't, by what they make.

A definition of one of them is valid, so its architecture is not reported as a misspelling.
"""

from __future__ import annotations

_IMAGES = (
    "flux", "flux2_dev", "flux2_klein_4b", "flux2_klein_9b", "flux_chroma", "flux_chroma_radiance", "flux_dev_kontext",
    "flux_dev_kontext_dreamomni2", "flux_dev_umo", "flux_dev_uso", "flux_schnell", "hidream_o1", "hidream_o1_dev",
    "ideogram4", "ideogram4_turbotime", "krea2_raw", "krea2_raw_edit", "krea2_turbo", "krea2_turbo_edit", "pi_flux2",
    "qwen_image_20B", "qwen_image_edit_20B", "qwen_image_edit_plus2_20B", "qwen_image_edit_plus_20B",
    "qwen_image_layered_20B", "z_image", "z_image_base", "z_image_control", "z_image_control2", "z_image_control2_1",
)  # fmt: skip
_AUDIO = (
    "ace_step_v1", "ace_step_v1_5", "ace_step_v1_5_xl", "chatterbox", "dramabox_audio", "heartmula_oss_3b",
    "index_tts2", "index_tts25", "kugelaudio_0_open", "minimax_music3", "omnivoice", "qwen3_tts_base",
    "qwen3_tts_customvoice", "qwen3_tts_voicedesign", "scenema_audio", "stable_audio3_medium", "stable_audio3_small",
)  # fmt: skip
_VIDEOS = (
    "alpha", "alpha2", "animate2", "bernini", "bernini_1.3B", "fantasy", "hunyuan_1_5_upsampler", "hunyuan_avatar",
    "hunyuan_custom", "hunyuan_custom_audio", "hunyuan_custom_edit", "i2v_2_2_multitalk",
    "infinitetalk", "joyai_echo", "kiwi_edit", "longcat_avatar", "longcat_avatar_v1_5", "longcat_video",
    "ltx2_22B_edit_anything", "lynx",
    "magi_human", "magi_human_distill", "minimax_h3_fl2va", "minimax_h3_fl2va_pruned", "minimax_h3_ref2va",
    "minimax_h3_ref2va_pruned", "mocha", "multitalk", "ovi", "recam_1.3B", "scail",
    "scail2_14B", "shotplan_t2v", "shotplan_t2v_2_2", "standin", "steadydancer",
    "vace_lynx_14B", "vace_multitalk_14B", "vace_standin_14B", "vista4d",
)  # fmt: skip

OTHER_ARCHITECTURES = frozenset((*_IMAGES, *_AUDIO, *_VIDEOS))


def makes(architecture: str) -> str:
    """What an unsupported architecture makes: "images", "sound" or "videos"; empty if unknown."""
    if architecture in _IMAGES:
        return "images"
    if architecture in _AUDIO:
        return "sound"
    return "videos" if architecture in _VIDEOS else ""
