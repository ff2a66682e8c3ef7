"""Nano's tokenizer and text encoder: a small byte-level BPE and a small UMT5, in transformers' own classes."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from world import prompt, sample_scene

MAX_TOKENS = 40
VOCABULARY = 640
_SPECIAL = ["<pad>", "</s>", "<unk>"]


def build_tokenizer(sentences: int = 5000) -> PreTrainedTokenizerFast:
    """Trained on the world's sentences; any other text falls back to smaller pieces and bytes."""
    rng = random.Random(1)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((prompt(sample_scene(rng), rng) for _ in range(sentences)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A:0 </s>:0", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def build_encoder() -> UMT5EncoderModel:
    """About 0.3M parameters, hidden size 96."""
    return UMT5EncoderModel(
        UMT5Config(vocab_size=VOCABULARY, d_model=96, d_kv=24, d_ff=192, num_layers=2, num_heads=4, dropout_rate=0.0)
    )


def embed(tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, prompts: list[str]) -> torch.Tensor:
    """Embeddings [prompts, MAX_TOKENS, 96], zero after each sentence's end, as diffusers' Wan pipeline makes them."""
    batch = tokenizer(prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    device = next(encoder.parameters()).device
    mask = batch.attention_mask.to(device)
    states = encoder(batch.input_ids.to(device), mask).last_hidden_state
    return states * mask[..., None]
