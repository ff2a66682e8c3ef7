"""The part of Qwen2.5-VL 7B that reads texts, which Hunyuan Video 1.5 and Kandinsky 5 use."""

from __future__ import annotations

from reeltune.families.base import Config, Shapes, frozen
from reeltune.families.components.base import ComponentKind, Layout, count, heads, nested, rule

TOKENIZER_FOLDERS = ("Qwen2.5-VL-7B-Instruct", "comfy/text_encoders/qwen25_tokenizer")  # of WanGP and ComfyUI

_HEAD_SIZE = 128
_LAST_TOKENS = (151_643, 151_645)  # the first and the last token of a text


def qwen_config(shapes: Shapes, stored: Config) -> Config:
    """The config of the text part of Qwen2.5-VL."""
    vocabulary, width = shapes["embed_tokens.weight"]
    own = nested(stored, "text_config") or stored
    rows = shapes["layers.0.self_attn.q_proj.weight"][0]
    head_count = heads(rows, _HEAD_SIZE, own, "num_attention_heads")
    head_size = rows // head_count
    height = head_size * 3 // 16  # of the half of a head that turns with positions: 16, 24 and 24 of 64
    bos, eos = _LAST_TOKENS if vocabulary > max(_LAST_TOKENS) else (0, 0)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": count(shapes, r"layers\.(\d{1,9})\."),
        "num_attention_heads": head_count,
        "num_key_value_heads": max(1, shapes["layers.0.self_attn.k_proj.weight"][0] // head_size),
        "max_position_embeddings": 128_000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [head_size // 2 - 2 * height, height, height],
        },
        "bos_token_id": bos,
        "eos_token_id": eos,
    }


_NAMES = (rule(r"(?:embed_tokens|layers|norm)\..+"),)
_BIAS = "layers.0.self_attn.q_proj.bias"
_OTHER_MODELS = ("layers.0.self_attn.q_norm.weight", "layers.0.pre_feedforward_layernorm.weight")
_UNNEEDED = ("rotary_emb.", "lm_head.")
_LAYER = "layers.0.post_attention_layernorm.weight"
_EYE = "*visual.blocks.0.mlp.gate_proj.bias"  # of Qwen2.5-VL; Qwen2-VL, whose texts have the same sizes, lacks it

QWEN = ComponentKind(
    name="qwen",
    label="Qwen2.5-VL 7B text encoder",
    layouts=(
        Layout("transformers", _LAYER, _NAMES, has=(_BIAS, _EYE), lacks=_OTHER_MODELS, ignored=_UNNEEDED),
        Layout(
            "its text part",
            _LAYER,
            _NAMES,
            has=(_BIAS,),
            lacks=(*_OTHER_MODELS, "*visual.blocks.0.norm1.weight"),
            ignored=_UNNEEDED,
            told_by_name=True,  # Qwen2.5 7B, which sees nothing, has the same names and sizes
        ),
    ),
    derive_config=qwen_config,
    published=frozen(hidden_size=3584, num_hidden_layers=28, vocab_size=152_064, intermediate_size=18_944),
    size="hidden_size",
    blocks=r"layers\.(\d+)\.(.+)",
    quantizable=(
        *(f"layers.{{}}.self_attn.{letter}_proj" for letter in "qkvo"),
        *(f"layers.{{}}.mlp.{name}_proj" for name in ("gate", "up", "down")),
    ),
    files=(
        "Qwen2.5-VL-7B-Instruct_quanto_bf16_int8.safetensors",
        "Qwen2.5-VL-7B-Instruct_bf16.safetensors",
        "qwen_2.5_vl_7b.safetensors",
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
)
