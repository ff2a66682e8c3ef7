"""Wan 2.2 Animate: what it has besides Wan's blocks, which are layers for poses, faces and their motion."""

from __future__ import annotations

from reeltune.families.base import Config, Rename, Shapes

POSE = "pose_patch_embedding.weight"  # every model of this kind has it
_RES_BLOCKS = 7  # of the published motion encoder, for faces of 512 pixels
_CONVS, _FUSER = "motion_encoder.enc.net_app.convs", "face_adapter.fuser_blocks.{}"
_FUSER_LAYERS = ("linear1_q", "linear1_kv", "linear2")
_TIMES = 2  # each block of the motion encoder halves the sides of a picture, of which the last has 4 pixels


def _motion_block(number: int) -> tuple[Rename, ...]:
    """A block of the motion encoder; the kernels that blur are constants, which diffusers computes."""
    old, new = f"{_CONVS}.{number + 1}", f"motion_encoder.res_blocks.{number}"
    return (
        Rename(f"{old}.conv1.0", f"{new}.conv1"),
        Rename(f"{old}.conv1.1", f"{new}.conv1.act_fn"),
        Rename(f"{old}.conv2.0.kernel", ""),
        Rename(f"{old}.conv2.1", f"{new}.conv2"),
        Rename(f"{old}.conv2.2", f"{new}.conv2.act_fn"),
        Rename(f"{old}.skip.0.kernel", ""),
        Rename(f"{old}.skip.1", f"{new}.conv_skip"),
    )


RENAMES = (
    Rename("pose_patch_embedding", "pose_patch_embedding"),
    Rename(f"{_CONVS}.0.0", "motion_encoder.conv_in"),
    Rename(f"{_CONVS}.0.1", "motion_encoder.conv_in.act_fn"),
    *(rename for number in range(_RES_BLOCKS) for rename in _motion_block(number)),
    Rename(f"{_CONVS}.{_RES_BLOCKS + 1}", "motion_encoder.conv_out"),
    Rename("motion_encoder.enc.fc.{}", "motion_encoder.motion_network.{}"),
    Rename("motion_encoder.dec.direction.weight", "motion_encoder.motion_synthesis_weight"),
    *(Rename(f"face_encoder.{name}.conv", f"face_encoder.{name}") for name in ("conv1_local", "conv2", "conv3")),
    Rename("face_encoder.out_proj", "face_encoder.out_proj"),
    Rename("face_encoder.padding_tokens", "face_encoder.padding_tokens"),
    Rename(f"{_FUSER}.linear1_q", "face_adapter.{}.to_q"),
    Rename(f"{_FUSER}.linear1_kv", "face_adapter.{}.to_k", ("face_adapter.{}.to_v",)),
    Rename(f"{_FUSER}.linear2", "face_adapter.{}.to_out"),
    Rename(f"{_FUSER}.q_norm", "face_adapter.{}.norm_q"),
    Rename(f"{_FUSER}.k_norm", "face_adapter.{}.norm_k"),
)
QUANTIZABLE = tuple(f"{_FUSER}.{layer}" for layer in _FUSER_LAYERS)


def derive_config(shapes: Shapes, layers: int) -> Config:
    """What the config of `WanAnimateTransformer3DModel` has besides Wan's. `layers`: the number of blocks.

    Raises KeyError if a required shape is missing, ZeroDivisionError if one is empty.
    """
    widths = [shapes[f"{_CONVS}.0.0.weight"][0]]
    for number in range(1, _RES_BLOCKS + 1):
        if f"{_CONVS}.{number}.conv1.0.weight" in shapes:
            widths.append(shapes[f"{_CONVS}.{number}.conv2.1.weight"][0])
    sides = [4 * _TIMES**number for number in range(len(widths))]
    adapters = sum(f"{_FUSER}.linear2.weight".format(number) in shapes for number in range(layers))
    hidden = shapes["face_encoder.conv2.conv.weight"][0]
    return {
        "_class_name": "WanAnimateTransformer3DModel",
        "latent_channels": shapes[POSE][1],
        "motion_encoder_channel_sizes": {str(side): width for side, width in zip(sides, reversed(widths), strict=True)},
        "motion_encoder_size": sides[-1],
        "motion_style_dim": shapes[f"{_CONVS}.{_RES_BLOCKS + 1}.weight"][0],
        "motion_dim": shapes["motion_encoder.dec.direction.weight"][1],
        "motion_encoder_dim": shapes["motion_encoder.dec.direction.weight"][0],
        "face_encoder_hidden_dim": hidden,
        "face_encoder_num_heads": shapes["face_encoder.conv1_local.conv.weight"][0] // hidden,
        "inject_face_latents_blocks": layers // adapters,
    }
