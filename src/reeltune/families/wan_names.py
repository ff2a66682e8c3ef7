"""The names of Wan's modules in the original release and in diffusers, and the layers that become int8."""

from __future__ import annotations

from reeltune.families import wan_animate
from reeltune.families.base import Rename


def _attention(block: str) -> tuple[Rename, ...]:
    """Self-attention and cross-attention of a block; the layers for images exist in image-to-video models only."""
    pairs = [("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0")]
    pairs += [("norm_q", "norm_q"), ("norm_k", "norm_k")]
    image = [("k_img", "add_k_proj"), ("v_img", "add_v_proj"), ("norm_k_img", "norm_added_k")]
    own = [Rename(f"{block}.self_attn.{old}", f"{block}.attn1.{new}") for old, new in pairs]
    cross = [Rename(f"{block}.cross_attn.{old}", f"{block}.attn2.{new}") for old, new in pairs + image]
    return (*own, *cross)


def _block(block: str) -> tuple[Rename, ...]:
    """A transformer block. The layer that diffusers calls norm2 is norm3 in the original."""
    return (
        Rename(f"{block}.modulation", f"{block}.scale_shift_table"),
        *_attention(block),
        Rename(f"{block}.norm3", f"{block}.norm2"),
        Rename(f"{block}.ffn.0", f"{block}.ffn.net.0.proj"),
        Rename(f"{block}.ffn.2", f"{block}.ffn.net.2"),
    )


RENAMES = (
    Rename("patch_embedding", "patch_embedding"),
    Rename("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    Rename("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    Rename("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    Rename("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    Rename("time_projection.1", "condition_embedder.time_proj"),
    Rename("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
    Rename("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    Rename("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    Rename("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    Rename("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    *_block("blocks.{}"),
    *_block("vace_blocks.{}"),
    Rename("vace_blocks.{}.before_proj", "vace_blocks.{}.proj_in"),
    Rename("vace_blocks.{}.after_proj", "vace_blocks.{}.proj_out"),
    Rename("vace_patch_embedding", "vace_patch_embedding"),
    Rename("fps_embedding", "fps_embedding"),
    Rename("fps_projection.0", "fps_projection.net.0.proj"),
    Rename("fps_projection.2", "fps_projection.net.2"),
    Rename("head.modulation", "scale_shift_table"),
    Rename("head.head", "proj_out"),
    *wan_animate.RENAMES,
)

_LINEARS = (
    *(f"{kind}_attn.{layer}" for kind in ("self", "cross") for layer in ("q", "k", "v", "o", "k_img", "v_img")),
    "ffn.0",
    "ffn.2",
)
QUANTIZABLE = (
    *(f"{block}.{layer}" for block in ("blocks.{}", "vace_blocks.{}") for layer in _LINEARS),
    *wan_animate.QUANTIZABLE,
)
