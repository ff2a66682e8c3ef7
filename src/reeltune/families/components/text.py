"""Text encoders: UMT5, T5 and ByT5, Llama 3 alone and in Llava, Gemma 3, and CLIP's text model.

The configs are those of the published models, with all sizes taken from the shapes, so that models of other sizes load
too.
"""

from __future__ import annotations

from types import MappingProxyType

from reeltune.families.base import Config, Shapes, frozen
from reeltune.families.components.base import ComponentKind, Layout, count, heads, nested, part_of, rule
from reeltune.families.components.vision import clip_vision_sizes

_LLAMA_HEAD_SIZE = 128
_CLIP_HEAD_SIZE = 64
_IMAGE_TOKEN, _PAD_TOKEN = 128_257, 128_258  # of llava-llama-3-8b


# --- T5 and UMT5 ------------------------------------------------------------------------------------------------


def t5_config(shapes: Shapes, stored: Config) -> Config:
    """The config of T5's encoder (v1.1 and UMT5)."""
    first = "encoder.block.0.layer"
    buckets, head_count = shapes[f"{first}.0.SelfAttention.relative_attention_bias.weight"]
    vocabulary, width = shapes["shared.weight"]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shapes[f"{first}.0.SelfAttention.q.weight"][0] // head_count,
        "d_ff": shapes[f"{first}.1.DenseReluDense.wi_0.weight"][0],
        "num_layers": count(shapes, r"encoder\.block\.(\d{1,9})\."),
        "num_heads": head_count,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
    }


_BLOCK = r"encoder.block.\1.layer"
_UMT5_RULES = (
    rule(r"token_embedding\.(.+)", r"shared.\1"),
    rule(r"norm\.(.+)", r"encoder.final_layer_norm.\1"),
    rule(r"blocks\.(\d+)\.norm1\.(.+)", rf"{_BLOCK}.0.layer_norm.\2"),
    rule(r"blocks\.(\d+)\.attn\.([qkvo])\.(.+)", rf"{_BLOCK}.0.SelfAttention.\2.\3"),
    rule(r"blocks\.(\d+)\.pos_embedding\.embedding\.(.+)", rf"{_BLOCK}.0.SelfAttention.relative_attention_bias.\2"),
    rule(r"blocks\.(\d+)\.norm2\.(.+)", rf"{_BLOCK}.1.layer_norm.\2"),
    rule(r"blocks\.(\d+)\.ffn\.gate\.0\.(.+)", rf"{_BLOCK}.1.DenseReluDense.wi_0.\2"),
    rule(r"blocks\.(\d+)\.ffn\.fc1\.(.+)", rf"{_BLOCK}.1.DenseReluDense.wi_1.\2"),
    rule(r"blocks\.(\d+)\.ffn\.fc2\.(.+)", rf"{_BLOCK}.1.DenseReluDense.wo.\2"),
)
_T5_RULES = (rule(r"shared\..+"), rule(r"encoder\.(?:block|final_layer_norm)\..+"))
_GGUF_RULES = (
    rule(r"token_embd\.(.+)", r"shared.\1"),
    rule(r"enc\.output_norm\.(.+)", r"encoder.final_layer_norm.\1"),
    rule(r"enc\.blk\.(\d+)\.attn_norm\.(.+)", rf"{_BLOCK}.0.layer_norm.\2"),
    rule(r"enc\.blk\.(\d+)\.attn_([qkvo])\.(.+)", rf"{_BLOCK}.0.SelfAttention.\2.\3"),
    rule(r"enc\.blk\.(\d+)\.attn_rel_b\.(.+)", rf"{_BLOCK}.0.SelfAttention.relative_attention_bias.\2"),
    rule(r"enc\.blk\.(\d+)\.ffn_norm\.(.+)", rf"{_BLOCK}.1.layer_norm.\2"),
    rule(r"enc\.blk\.(\d+)\.ffn_gate\.(.+)", rf"{_BLOCK}.1.DenseReluDense.wi_0.\2"),
    rule(r"enc\.blk\.(\d+)\.ffn_up\.(.+)", rf"{_BLOCK}.1.DenseReluDense.wi_1.\2"),
    rule(r"enc\.blk\.(\d+)\.ffn_down\.(.+)", rf"{_BLOCK}.1.DenseReluDense.wo.\2"),
)
_T5_LINEARS = (
    *(f"encoder.block.{{}}.layer.0.SelfAttention.{letter}" for letter in "qkvo"),
    *(f"encoder.block.{{}}.layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")),
)
_T5_BLOCKS = r"encoder\.block\.(\d+)\.(.+)"
_SECOND_NAME = MappingProxyType({"encoder.embed_tokens.weight": "shared.weight"})
_UNNEEDED = ("decoder.", "lm_head.", "spiece_model", "encoder.embed_tokens.")
_SECOND_BIAS = (
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"  # UMT5 has one in every block, T5 in one
)

UMT5 = ComponentKind(
    name="umt5",
    label="UMT5-XXL text encoder",
    layouts=(
        Layout("original", "blocks.0.pos_embedding.embedding.weight", _UMT5_RULES),
        Layout("transformers", _SECOND_BIAS, _T5_RULES, ignored=_UNNEEDED, aliases=_SECOND_NAME),
        Layout("llama.cpp", "enc.blk.1.attn_rel_b.weight", _GGUF_RULES),
    ),
    derive_config=t5_config,
    published=frozen(d_model=4096, num_layers=24, vocab_size=256_384, d_ff=10_240),
    size="d_model",
    blocks=_T5_BLOCKS,
    quantizable=_T5_LINEARS,
    files=(
        "models_t5_umt5-xxl-enc-quanto_int8.safetensors",
        "models_t5_umt5-xxl-enc-bf16.safetensors",
        "umt5_xxl_fp16.safetensors",
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        "umt5-xxl-enc-bf16.safetensors",
        "umt5-xxl-enc-fp8_e4m3fn.safetensors",
    ),
)
_T5_LAYOUT = Layout(
    "transformers",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    _T5_RULES,
    lacks=(_SECOND_BIAS,),
    ignored=_UNNEEDED,
    aliases=_SECOND_NAME,
)
T5 = ComponentKind(
    name="t5",
    label="T5-XXL text encoder",
    layouts=(
        _T5_LAYOUT,
        Layout("llama.cpp", "enc.blk.0.attn_rel_b.weight", _GGUF_RULES, lacks=("enc.blk.1.attn_rel_b.weight",)),
    ),
    derive_config=t5_config,
    published=frozen(d_model=4096, num_layers=24, vocab_size=32_128, d_ff=10_240),
    size="d_model",
    blocks=_T5_BLOCKS,
    quantizable=_T5_LINEARS,
    files=(
        "T5_xxl_1.1_enc_quanto_bf16_int8.safetensors",
        "T5_xxl_1.1_enc_bf16.safetensors",
        "t5xxl_fp16.safetensors",
        "t5xxl_fp8_e4m3fn_scaled.safetensors",
        "t5xxl_fp8_e4m3fn.safetensors",
    ),
)
BYT5 = ComponentKind(
    name="byt5",
    label="ByT5-small glyph encoder",
    layouts=(
        _T5_LAYOUT,
        Layout(  # the encoder alone, as it was trained
            "encoder",
            "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            (
                rule(r"embed_tokens\.(.+)", r"shared.\1"),
                rule(r"(?:block|final_layer_norm)\..+", r"encoder.\g<0>"),
            ),
            has=("embed_tokens.weight",),
            lacks=("block.1.layer.0.SelfAttention.relative_attention_bias.weight", "shared.weight"),
        ),
    ),
    derive_config=t5_config,
    published=frozen(d_model=1472, num_layers=12, vocab_size=1510, d_ff=3584),
    size="d_model",
    blocks=_T5_BLOCKS,
    files=("byt5_model.safetensors", "byt5_small_glyphxl_fp16.safetensors"),
)


def no_config(shapes: Shapes, stored: Config) -> Config:
    """For files that are no model."""
    return {}


SENTENCEPIECE = ComponentKind(
    name="sentencepiece",
    label="SentencePiece tokenizer",
    layouts=(Layout("ComfyUI", "spiece_model", (rule(r"spiece_model"),), has=(_SECOND_BIAS,)),),
    derive_config=no_config,
    files=("umt5_xxl_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
)


# --- Llama and Llava --------------------------------------------------------------------------------------------


def llama_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Llama 3 as Hunyuan Video uses it."""
    vocabulary, width = shapes["embed_tokens.weight"]
    rows = shapes["layers.0.self_attn.q_proj.weight"][0]
    head_count = heads(rows, _LLAMA_HEAD_SIZE, stored, "num_attention_heads")
    head_size = rows // head_count
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": count(shapes, r"layers\.(\d{1,9})\."),
        "num_attention_heads": head_count,
        "num_key_value_heads": max(1, shapes["layers.0.self_attn.k_proj.weight"][0] // head_size),
        "head_dim": head_size,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "bos_token_id": 128_000,
        "eos_token_id": 128_001,
        "pad_token_id": _pad_token(vocabulary),
    }


def _pad_token(vocabulary: int) -> int:
    """The token for padding, which a smaller vocabulary doesn't have."""
    return _PAD_TOKEN if vocabulary > _PAD_TOKEN else 0


def llava_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Llava: Llama with CLIP's vision model."""
    text = llama_config(part_of(shapes, "model.language_model."), nested(stored, "text_config") or stored)
    vision = clip_vision_sizes(part_of(shapes, "model.vision_tower."), nested(stored, "vision_config"), _CLIP_HEAD_SIZE)
    token = stored.get("image_token_index")
    return {
        "text_config": text,
        "vision_config": {**vision, "hidden_act": "quick_gelu"},
        "image_token_index": token if type(token) is int else _IMAGE_TOKEN,
        "pad_token_id": text["pad_token_id"],
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
    }


def llava_vision_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Llava's vision model, whose size is that of the language model that it is made for."""
    vision = clip_vision_sizes(part_of(shapes, "vision_tower."), nested(stored, "vision_config"), _CLIP_HEAD_SIZE)
    return {**vision, "text_size": shapes["multi_modal_projector.linear_2.weight"][0]}


_OTHER_MODELS = (  # Qwen, Gemma and others, which have layers of the same names
    "layers.0.self_attn.q_proj.bias",
    "layers.0.self_attn.q_norm.weight",
    "layers.0.pre_feedforward_layernorm.weight",
)
_LANGUAGE_BLOCKS = r"layers\.(\d+)\.(.+)"
_LLAMA_LINEARS = (
    *(f"layers.{{}}.self_attn.{letter}_proj" for letter in "qkvo"),
    *(f"layers.{{}}.mlp.{name}_proj" for name in ("gate", "up", "down")),
)
_PROJECTOR = "multi_modal_projector.linear_1.bias"
_LLAVA_FILES = (
    "llava-llama-3-8b-v1_1_vlm_quanto_int8.safetensors",
    "llava-llama-3-8b-v1_1_vlm_fp16.safetensors",
)

LLAMA = ComponentKind(
    name="llama",
    label="Llama 3 8B of Llava",
    layouts=(
        Layout(
            "transformers",
            "layers.0.post_attention_layernorm.weight",
            (rule(r"(?:embed_tokens|layers|norm)\..+"),),
            lacks=_OTHER_MODELS,
            ignored=("rotary_emb.", "lm_head."),
        ),
    ),
    derive_config=llama_config,
    published=frozen(hidden_size=4096, num_hidden_layers=32, vocab_size=128_320, intermediate_size=14_336),
    size="hidden_size",
    blocks=_LANGUAGE_BLOCKS,
    quantizable=_LLAMA_LINEARS,
    files=(*_LLAVA_FILES, "llava_llama3_fp16.safetensors", "llava_llama3_fp8_scaled.safetensors"),
)
LLAVA = ComponentKind(
    name="llava",
    label="Llava Llama 3 8B",
    layouts=(
        Layout(
            "transformers",
            _PROJECTOR,
            (
                rule(r"language_model\.(?:model\.)?(.+)", r"model.language_model.\1"),
                rule(r"vision_tower\.(?:vision_model\.)?(.+)", r"model.vision_tower.\1"),
                rule(r"multi_modal_projector\.(.+)", r"model.multi_modal_projector.\1"),
            ),
            has=("*layers.0.post_attention_layernorm.weight",),
            ignored=("language_model.lm_head.", "lm_head.", "vision_tower.vision_model.embeddings.position_ids"),
        ),
    ),
    derive_config=llava_config,
    size="text_config.hidden_size",
    published=frozen(
        **{"text_config.hidden_size": 4096, "text_config.num_hidden_layers": 32, "text_config.vocab_size": 128_320},
        image_seq_length=576,
    ),
    blocks=r"model\.language_model\.layers\.(\d+)\.(.+)",
    quantizable=tuple(f"model.language_model.{name}" for name in _LLAMA_LINEARS),
    files=_LLAVA_FILES,
)
LLAVA_VISION = ComponentKind(
    name="llava_vision",
    label="Llava vision model",
    layouts=(
        Layout(
            "transformers",
            _PROJECTOR,
            (
                rule(r"(?:vision_tower\.)?vision_model\.(.+)", r"vision_tower.\1"),
                rule(r"multi_modal_projector\..+"),
            ),
            lacks=("*layers.0.post_attention_layernorm.weight",),
            ignored=("vision_model.embeddings.position_ids",),
        ),
    ),
    derive_config=llava_vision_config,
    published=frozen(image_size=336, hidden_size=1024, text_size=4096),
    size="text_size",
    blocks=r"vision_tower\.encoder\.layers\.(\d+)\.(.+)",
    files=("llava_llama3_vision.safetensors",),
)


# --- Gemma 3 ----------------------------------------------------------------------------------------------------

_GEMMA_QUERY, _GEMMA_WINDOW = 256, 1024  # what the 12B model scales queries by, and tokens that most layers see


def gemma_config(shapes: Shapes, stored: Config) -> Config:
    """The config of Gemma 3's text model."""
    vocabulary, width = shapes["embed_tokens.weight"]
    head_size = shapes["layers.0.self_attn.q_norm.weight"][0]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": count(shapes, r"layers\.(\d{1,9})\."),
        "num_attention_heads": shapes["layers.0.self_attn.q_proj.weight"][0] // head_size,
        "num_key_value_heads": shapes["layers.0.self_attn.k_proj.weight"][0] // head_size,
        "head_dim": head_size,
        "query_pre_attn_scalar": _GEMMA_QUERY,
        "sliding_window": _GEMMA_WINDOW,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    }


GEMMA_3 = ComponentKind(
    name="gemma_3",
    label="Gemma 3 12B text encoder",
    layouts=(
        Layout(
            "transformers",
            "layers.0.pre_feedforward_layernorm.weight",
            (rule(r"(?:embed_tokens|layers|norm)\..+"),),
            has=("layers.0.self_attn.q_norm.weight", "embed_tokens.weight"),
            ignored=("rotary_emb.", "lm_head.", "vision_", "multi_modal_projector.", "spiece_model"),
        ),
    ),
    derive_config=gemma_config,
    published=frozen(hidden_size=3840, num_hidden_layers=48, intermediate_size=15_360),
    size="hidden_size",
    blocks=_LANGUAGE_BLOCKS,
    quantizable=_LLAMA_LINEARS,
    files=(
        "gemma-3-12b-it-qat-q4_0-unquantized_quanto_bf16_int8.safetensors",
        "gemma-3-12b-it-qat-q4_0-unquantized.safetensors",
        "gemma_3_12B_it.safetensors",
        "gemma_3_12B_it_fp8_scaled.safetensors",
        "gemma_3_12B_it_fp8_e4m3fn.safetensors",
    ),
)


# --- CLIP -------------------------------------------------------------------------------------------------------


def clip_text_config(shapes: Shapes, stored: Config) -> Config:
    """The config of CLIP's text model."""
    positions, width = shapes["embeddings.position_embedding.weight"]
    own = nested(stored, "text_config") or stored
    return {
        "vocab_size": shapes["embeddings.token_embedding.weight"][0],
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": count(shapes, r"encoder\.layers\.(\d{1,9})\."),
        "num_attention_heads": heads(width, _CLIP_HEAD_SIZE, own, "num_attention_heads"),
        "max_position_embeddings": positions,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,  # as published: the token with the highest number is the end
        "pad_token_id": 1,
    }


CLIP_TEXT = ComponentKind(
    name="clip_text",
    label="CLIP-L text encoder",
    layouts=(
        Layout(
            "transformers",
            "embeddings.token_embedding.weight",
            (rule(r"(?:embeddings|encoder|final_layer_norm)\..+"),),
            has=("final_layer_norm.weight",),
            ignored=("embeddings.position_ids", "text_projection", "logit_scale"),
        ),
    ),
    derive_config=clip_text_config,
    published=frozen(hidden_size=768, num_hidden_layers=12, vocab_size=49_408, max_position_embeddings=77),
    size="hidden_size",
    blocks=r"encoder\.layers\.(\d+)\.(.+)",
    files=("clip_vit_large_patch14/model.safetensors", "clip_l.safetensors"),
)  # fmt: skip
