"""Tiny models of the architectures that transformers knows, random and made without a network.

A configuration's numbers are set by the names that configurations share (``hidden_size``,
``n_layer`` ...), also in the configurations inside it; what an architecture needs besides stands in
``_OWN``. Texts are read byte by byte, images have 32 x 32 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    ViTImageProcessor,
)
from transformers.models.auto import modeling_auto

from silotune.models.load import quiet
from silotune.testing.tiny_models import byte_tokenizer, draw_weights

Task = Literal[
    "seq2seq",
    "causal-lm",
    "sequence-classification",
    "image-classification",
    "token-classification",
]

TAGS = ("O", "B-A", "I-A")
"""Of one type of entities."""

_TASKS: Mapping[Task, tuple[Any, Mapping[str, Any]]] = {
    "seq2seq": (AutoModelForSeq2SeqLM, modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "causal-lm": (AutoModelForCausalLM, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "sequence-classification": (
        AutoModelForSequenceClassification,
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "image-classification": (
        AutoModelForImageClassification,
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "token-classification": (
        AutoModelForTokenClassification,
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    ),
}

PIXELS = 32

_SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("vocab_size", "n_words", "vocab_size_per_layer_input"), 260),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    **dict.fromkeys(
        (
            "hidden_size",
            "n_embd",
            "d_model",
            "dim",
            "embedding_size",
            "embed_dim",
            "word_embed_proj_dim",
            "emb_dim",
        ),
        32,
    ),
    **dict.fromkeys(
        (
            "intermediate_size",
            "n_inner",
            "d_ff",
            "ffn_dim",
            "hidden_dim",
            "d_inner",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
            "ffn_hidden_size",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "intermediate_size_mlp",
            "mlp_hidden_size",
        ),
        48,
    ),
    **dict.fromkeys(
        (
            "num_hidden_layers",
            "n_layer",
            "n_layers",
            "num_layers",
            "encoder_layers",
            "decoder_layers",
            "num_decoder_layers",
        ),
        2,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "encoder_attention_heads",
            "decoder_attention_heads",
        ),
        4,
    ),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    "image_size": PIXELS,
    "patch_size": 8,
    "projection_dim": 32,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_top_k", "moe_k"), 2),
}

_STATE_SPACE = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}

_OWN: Mapping[str, Mapping[str, Any]] = {
    "bamba": {**_STATE_SPACE, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "dinat": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "dilations": [[1], [1]]},
    "donut-swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "patch_size": 2},
    "falcon_h1": {**_STATE_SPACE, "mamba_d_ssm": 64},
    "gptj": {"rotary_dim": 4},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "visual_embed": False},
    "lilt": {"hidden_size": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "chunk_size": 8},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1},
    "beit": {"image_size": PIXELS},
    "big_bird": {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "patch_size": 4},
    "convnextv2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "patch_size": 4},
    "data2vec-vision": {"image_size": PIXELS},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 3, "token_dropout": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "longformer": {"attention_window": 8},
    "mamba": {"state_size": 8, "time_step_rank": 4},
    "mobilevit": {
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
        "patch_size": 2,
    },
    "segformer": {
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 4],
        "patch_sizes": [7, 3, 3, 3],
    },
    "swin": {
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "patch_size": 2,
        "window_size": 4,
    },
    "swinv2": {
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "patch_size": 2,
        "window_size": 4,
    },
}


@dataclass(frozen=True, eq=False)
class Tiny:
    """One architecture, as a user has it.

    Attributes:
        model: random, of two layers or so.
        reader: its tokenizer or image processor.
    """

    model: Any
    reader: Any


def architectures() -> Iterator[tuple[str, Task]]:
    """Every type of which transformers has a model for one of the tasks, and that task."""
    known = dict.fromkeys(name for _, names in _TASKS.values() for name in names)
    for name in sorted(known):
        tasks = [task for task, (_, names) in _TASKS.items() if name in names]
        both = {"causal-lm", "sequence-classification"} <= set(tasks)
        encoder = both and (name in _READ_BOTH_WAYS or _is_encoder(name))
        yield name, "sequence-classification" if encoder and tasks[0] != "seq2seq" else tasks[0]


def finds_entities(model_type: str, task: Task) -> bool:
    """Whether a type that is tried by a task has a model that tags tokens besides."""
    _, names = _TASKS["token-classification"]
    return model_type in names and task in ("causal-lm", "sequence-classification")


def tiny(model_type: str, task: Task, seed: int = 0) -> Tiny:
    """Build one.

    Raises:
        Exception: what transformers raises where the sizes do not fit the architecture.
    """
    kind = CONFIG_MAPPING[model_type]
    config = kind(**{**_sizes(kind), **_OWN.get(model_type, {})})
    config.architectures = []  # a list where a type has several models
    if task not in ("causal-lm", "seq2seq"):
        config.num_labels = len(TAGS) if task == "token-classification" else 2
    elif task == "seq2seq" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0  # as T5's checkpoints say it
    with quiet():
        model = draw_weights(_TASKS[task][0].from_config(config), seed)
    reader = (
        ViTImageProcessor(size={"height": PIXELS, "width": PIXELS})
        if task == "image-classification"
        else byte_tokenizer()
    )
    return Tiny(model.eval(), reader)


_READ_BOTH_WAYS = ("bert-generation", "cpmant", "xlnet")
"""Types whose language model looks at the tokens that it is to predict."""


def _is_encoder(model_type: str) -> bool:
    """Whether a masked language model is made of it: then it is no decoder."""
    return model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _sizes(kind: Any) -> dict[str, Any]:
    """The small numbers whose names this kind of configuration has, also in those inside it."""
    own = {name: value for name, value in _SMALL.items() if name in _fields(kind)}
    inner = getattr(kind, "sub_configs", {})
    return own | {name: _sizes(part) for name, part in inner.items() if hasattr(part, "__mro__")}


def _fields(kind: type) -> set[str]:
    return {name for base in kind.__mro__ for name in vars(base).get("__annotations__", {})}
