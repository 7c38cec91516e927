"""Tiny random models, complete as transformers folders, made from a seed without a network.

For tests, examples and checks of an installation. Every weight is drawn by its own name from our
generators, so a model is the same under every version of transformers. Tokenizers read bytes: any
text is valid. Hidden and intermediate sizes differ, so that no transposed matrix goes unnoticed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from silotune.core import generator
from silotune.models.load import quiet

_SPECIAL = ("<pad>", "<s>", "</s>", "<mask>")
_VOCABULARY = len(_SPECIAL) + 256
_POSITIONS = 128


def tiny_bert(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    """An encoder with a pooler (as all-MiniLM has one): 32 features, 2 heads."""
    config = BertConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=_POSITIONS,
        pad_token_id=0,
    )
    return _save_with_tokenizer(BertModel(config), folder, seed)


def tiny_roberta(folder: Path, seed: int = 0) -> Path:
    """A masked language model (as roberta-base is one): no pooler, no classifier."""
    config = RobertaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_POSITIONS + 2,  # positions are counted from the padding id + 1
        type_vocab_size=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _save_with_tokenizer(RobertaForMaskedLM(config), folder, seed)


def tiny_gpt2(folder: Path, seed: int = 0) -> Path:
    """A language model with ``Conv1D`` maps and, like GPT-2, no padding token."""
    config = GPT2Config(
        vocab_size=_VOCABULARY,
        n_embd=32,
        n_inner=48,
        n_layer=2,
        n_head=2,
        n_positions=_POSITIONS,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _save_with_tokenizer(GPT2LMHeadModel(config), folder, seed, padding=False)


def tiny_llama(folder: Path, seed: int = 0) -> Path:
    """A language model with grouped attention and an output embedding of its own."""
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_POSITIONS,
        pad_token_id=None,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _save_with_tokenizer(LlamaForCausalLM(config), folder, seed, padding=False)


def tiny_t5(folder: Path, seed: int = 0) -> Path:
    """An encoder with a decoder that begins with padding; positions are relative."""
    config = T5Config(
        vocab_size=_VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    return _save_with_tokenizer(T5ForConditionalGeneration(config), folder, seed)


def tiny_bart(folder: Path, seed: int = 0) -> Path:
    """An encoder with a decoder that begins with the end token, and positions from a table."""
    config = BartConfig(
        vocab_size=_VOCABULARY,
        d_model=32,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=_POSITIONS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    return _save_with_tokenizer(BartForConditionalGeneration(config), folder, seed)


def tiny_vit(folder: Path, seed: int = 0) -> Path:
    """An image encoder for 16 x 16 RGB images in patches of 8."""
    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    _save(ViTModel(config, add_pooling_layer=False), folder, seed)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    return folder


def draw_weights(model: Any, seed: int = 0) -> Any:
    """Every matrix by its own name, of variance 1 / fan-in: signals neither vanish nor explode."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                bound = math.sqrt(3.0 / parameter[0].numel())
                g = generator(seed, "tiny", name)
                parameter.copy_(torch.rand(parameter.shape, generator=g) * (2 * bound) - bound)
    return model


def _save(model: Any, folder: Path, seed: int) -> Path:
    """Draw the weights and write them with the configuration."""
    draw_weights(model, seed)
    with quiet():
        model.save_pretrained(folder)
    return folder


def byte_tokenizer(*, padding: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte; texts begin with <s> and end with </s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>" if padding else None,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_max_length=_POSITIONS,
    )


def _save_with_tokenizer(model: Any, folder: Path, seed: int, *, padding: bool = True) -> Path:
    byte_tokenizer(padding=padding).save_pretrained(folder)
    return _save(model, folder, seed)
