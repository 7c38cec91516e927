"""Which fields of an offer a policy judges, and why every other field need not be.

A field that stands in neither list is one that this version knows nothing of: an offer that has it
is refused, so that what is added to the terms later fails closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

from silotune.federation.offer import Offer
from silotune.methods import Method
from silotune.objectives import (
    CausalLM,
    ImageClassification,
    MultiLabelClassification,
    MultiLabelImageClassification,
    Regression,
    Seq2Seq,
    SequenceClassification,
    TextEmbedding,
    TokenClassification,
)
from silotune.optim import SGD, AdamW
from silotune.privacy import ClientDP, ExampleDP, NoDP
from silotune.terms import Terms

TOLD = "is told to the person who approves, and decides nothing"
DIGEST = "decides which base model it is, which the site holds by its digest, or not at all"
TRAINED = "decides what is trained and how, of which every record's part is clipped and noised"
MOVED = "decides how tensors move, of which every record's part is clipped and noised"
SERVER = "decides what the server makes of what was sent"
PRICED = "decides the price, which is held against max_epsilon"
CLIPPING = "noise is in units of it"
MACHINE = "decides how the site computes, and not what leaves it"
ROUNDED = "decides in how many bits what was noised is sent"
READ = (
    "decides which part of a record is read, which is held against columns, and told to the person "
    "who approves"
)

SCORED = "decides what is counted as right at the site, which is told nobody but as a noisy count"

_LOSS = {"class_weights": TRAINED, "label_smoothing": TRAINED}

_HEAD = dict.fromkeys(("head", "head_init", "head_scale", "head_bias"), TRAINED)

JUDGED: Mapping[type, frozenset[str]] = {
    Offer: frozenset({"coordinator", "labels", "participants", "terms"}),
    Terms: frozenset(
        {
            "objective",
            "optimizer",
            "method",
            "privacy",
            "rounds",
            "local_steps",
            "local_epochs",
            "evaluation",
            "server_optimizer",
            "clients_per_round",
            "cohort_rate",
            "min_clients",
        }
    ),
    SequenceClassification: frozenset({"labels"}),
    MultiLabelClassification: frozenset({"labels"}),
    Regression: frozenset(),
    TextEmbedding: frozenset(),
    TokenClassification: frozenset({"labels"}),
    ImageClassification: frozenset({"labels"}),
    MultiLabelImageClassification: frozenset({"labels"}),
    CausalLM: frozenset(),
    Seq2Seq: frozenset(),
    SGD: frozenset(),
    AdamW: frozenset(),
    Method: frozenset({"init_from", "aggregation", "own"}),
    ExampleDP: frozenset(
        {
            "target_epsilon",
            "noise_multiplier",
            "target_delta",
            "relation",
            "noise",
            "count_noise",
            "metric_noise",
            "insecure_seeded_noise",
            "reserve_rounds",
        }
    ),
    ClientDP: frozenset(
        {
            "target_epsilon",
            "noise_multiplier",
            "target_delta",
            "relation",
            "noise",
            "insecure_seeded_noise",
            "reserve_rounds",
        }
    ),
    NoDP: frozenset(),
}
"""Class -> the fields that ``refusal`` looks at."""

HARMLESS: Mapping[type, Mapping[str, str]] = {
    Offer: {
        "run": TOLD,
        "began": TOLD,
        "title": TOLD,
        "base": DIGEST,
        "base_files": DIGEST,
        "versions": "are the coordinator's word for its own software; the site's is its own",
        "protocol": "there is one",
    },
    Terms: {
        "model": DIGEST,
        "batch_size": PRICED,
        "eval_every": PRICED,
        "lr_schedule": MOVED,
        "warmup_steps": MOVED,
        "warmup_ratio": MOVED,
        "lr_schedule_span": MOVED,
        "local_state": MOVED,
        "proximal_mu": MOVED,
        "weighting": SERVER,
        "normalize_steps": SERVER,
        "tail_average": SERVER,
        "largest_update": SERVER,
        "upload_dtype": ROUNDED,
        "dtype": MACHINE,
        "quantization": MACHINE,
        "products": MACHINE,
        "gradient_checkpointing": MACHINE,
        "seed": "is of nothing secret; noise from it is refused as noise that hides nothing",
    },
    SequenceClassification: {
        "text": READ,
        "text_pair": READ,
        "label": READ,
        "max_length": READ,
        "pooling": TRAINED,
        **_LOSS,
        **_HEAD,
    },
    MultiLabelClassification: {
        "text": READ,
        "text_pair": READ,
        "label": READ,
        "max_length": READ,
        "pooling": TRAINED,
        "threshold": SCORED,
        **_LOSS,
        **_HEAD,
    },
    Regression: {
        "text": READ,
        "text_pair": READ,
        "label": READ,
        "max_length": READ,
        "pooling": TRAINED,
        "target_mean": TRAINED,
        "target_scale": TRAINED,
        "loss": TRAINED,
        "huber_delta": TRAINED,
        **_HEAD,
    },
    TextEmbedding: {
        "text": READ,
        "text_pair": READ,
        "label": READ,
        "max_length": READ,
        "pooling": TRAINED,
        "score_range": TRAINED,
        "cosine_range": TRAINED,
        "loss": TRAINED,
        "huber_delta": TRAINED,
    },
    ImageClassification: {"image": READ, "label": READ, "max_length": READ, **_LOSS, **_HEAD},
    MultiLabelImageClassification: {
        "image": READ,
        "label": READ,
        "max_length": READ,
        "threshold": SCORED,
        **_LOSS,
        **_HEAD,
    },
    TokenClassification: {
        "words": READ,
        "tags": READ,
        "text": READ,
        "spans": READ,
        "max_length": READ,
        **_HEAD,
    },
    CausalLM: {
        "text": READ,
        "prompt": READ,
        "input": READ,
        "completion": READ,
        "messages": READ,
        "max_length": READ,
    },
    Seq2Seq: {
        "source": READ,
        "target": READ,
        "source_prefix": READ,
        "max_length": READ,
        "max_target_length": READ,
    },
    SGD: {"lr": MOVED, "momentum": MOVED, "weight_decay": MOVED},
    AdamW: {"lr": MOVED, "weight_decay": MOVED, "betas": MOVED, "eps": MOVED},
    Method: {
        "r": TRAINED,
        "ranks": TRAINED,
        "lora_alpha": TRAINED,
        "lora_dropout": TRAINED,
        "target_modules": TRAINED,
        "target_parameters": TRAINED,
        "layers_to_transform": TRAINED,
        "use_rslora": TRAINED,
        "init_lora_weights": TRAINED,
    },
    ExampleDP: {
        "max_grad_norm": CLIPPING,
        "sampling": PRICED,
        "max_batch_size": PRICED,
        "bands": PRICED,
    },
    ClientDP: {
        "max_update_norm": CLIPPING,
        "sampling": PRICED,
        "client_sampling_rate": PRICED,
        "bands": PRICED,
        "adaptive_clipping": CLIPPING,
        "target_quantile": CLIPPING,
    },
    NoDP: {},
}
"""Class -> field -> why a policy need not look at it."""


def unjudged(offer: Offer) -> Iterator[str]:
    """Fields of an offer that this version knows nothing of."""
    terms = offer.terms
    parts = (offer, terms, terms.privacy, terms.objective, terms.optimizer)
    for kind in (*map(type, parts), Method):
        known = JUDGED[kind] | HARMLESS[kind].keys()
        yield from (field.name for field in fields(kind) if field.name not in known)
