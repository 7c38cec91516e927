"""Which linear maps are adapted, by what a model does with them, and that rows are then right."""

from functools import cache

import pytest
import torch
from transformers import (
    BigBirdConfig,
    BigBirdForSequenceClassification,
    CLIPForImageClassification,
    CLIPVisionConfig,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    EsmConfig,
    EsmForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    MobileViTConfig,
    MobileViTForImageClassification,
    OPTConfig,
    OPTForSequenceClassification,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    SegformerConfig,
    SegformerForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
    ViTImageProcessor,
)

import silotune as st
from silotune.core import RecordAxis
from silotune.models.load import GivenModel, quiet
from silotune.terms.machine import Machine
from silotune.terms.opening import open_model
from silotune.terms.terms import Terms
from silotune.testing.tiny_models import byte_tokenizer, draw_weights

LABELS = ("a", "b")
TEXT = {"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2]}
IMAGES = ("swin", "swinv2", "segformer", "mobilevit", "clip")
DECODERS = ("qwen2_moe", "mamba")
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}


def made(name):
    """The model, random, and what reads its records."""
    kinds = {
        "deberta-v2": lambda: DebertaV2ForSequenceClassification(
            DebertaV2Config(**TEXT, intermediate_size=24, position_buckets=8, **DEBERTA)
        ),
        "deberta": lambda: DebertaForSequenceClassification(
            DebertaConfig(**TEXT, intermediate_size=24, **DEBERTA)
        ),
        "esm": lambda: EsmForSequenceClassification(
            EsmConfig(**TEXT, intermediate_size=24, max_position_embeddings=64, pad_token_id=0)
        ),
        "mamba": lambda: MambaForCausalLM(MambaConfig(**TEXT, state_size=4)),
        "opt": lambda: OPTForSequenceClassification(
            OPTConfig(**TEXT, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=64)
        ),
        "big_bird": lambda: BigBirdForSequenceClassification(
            BigBirdConfig(**TEXT, intermediate_size=24, max_position_embeddings=64)
        ),
        "longformer": lambda: LongformerForSequenceClassification(
            LongformerConfig(
                **TEXT, intermediate_size=24, max_position_embeddings=64, attention_window=4
            )
        ),
        "qwen2_moe": lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(**TEXT, num_key_value_heads=2, intermediate_size=24, **EXPERTS)
        ),
        "swinv2": lambda: Swinv2ForImageClassification(Swinv2Config(**SWIN, window_size=4)),
        "segformer": lambda: SegformerForImageClassification(
            SegformerConfig(
                num_encoder_blocks=2,
                depths=[1, 1],
                sr_ratios=[2, 1],
                hidden_sizes=[8, 16],
                patch_sizes=[3, 3],
                strides=[2, 2],
                num_attention_heads=[1, 2],
                mlp_ratios=[2, 2],
                decoder_hidden_size=8,
            )
        ),
        "mobilevit": lambda: MobileViTForImageClassification(
            MobileViTConfig(
                image_size=128,
                hidden_sizes=[16, 16, 16],
                neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
                num_attention_heads=2,
            )
        ),
        "swin": lambda: SwinForImageClassification(SwinConfig(**SWIN, window_size=4)),
        "clip": lambda: CLIPForImageClassification(
            CLIPForImageClassification.config_class(
                vision_config=CLIPVisionConfig(
                    hidden_size=16,
                    intermediate_size=24,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    image_size=16,
                    patch_size=8,
                ).to_dict()
            )
        ),
    }
    with quiet():
        model = draw_weights(kinds[name]())
    if hasattr(model, "classifier") or name == "opt":
        model.config.num_labels = 2
    side = 128 if name == "mobilevit" else 16
    processor = ViTImageProcessor(size={"height": side, "width": side})
    reader = processor if name in IMAGES else byte_tokenizer()
    return GivenModel(model, reader)


def objective(name):
    if name in DECODERS:
        return st.CausalLM(text="text", max_length=8)
    if name in IMAGES:
        return st.ImageClassification(image="image", label="label", labels=LABELS)
    return st.SequenceClassification(text="text", label="label", labels=LABELS, max_length=16)


NODP, EXAMPLE = st.NoDP(), st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3)


@cache
def opened(name, privacy, targets="all-linear", micro_batch=8):
    """Built, and proved by the gradient check."""
    asked = list(targets) if isinstance(targets, tuple) else targets
    method = st.methods.FedIT(r=2, target_modules=asked)
    terms = Terms(
        model=name,
        objective=objective(name),
        optimizer=st.optim.SGD(lr=0.5),
        method=method,
        privacy=privacy,
    )
    labels = () if name in DECODERS else LABELS
    return open_model(terms, labels, Machine(micro_batch_size=micro_batch), made(name))


@pytest.mark.parametrize("name", ["deberta-v2", "opt", "big_bird", "qwen2_moe", "swin", "clip"])
def test_without_privacy_every_linear_map_that_is_used_trains(name):
    """Shared positions, flattened tokens and windows ask for nothing."""
    model = opened(name, NODP)
    assert len(model.sites) > 5
    left_out = [n for n in model.loaded.notices if "leaves out" in n]
    assert left_out == (
        ["all-linear leaves out bert.pooler: no loss depends on its output"]
        if name == "big_bird"
        else []
    )


@pytest.mark.full
@pytest.mark.parametrize("name", ["deberta", "swinv2", "segformer", "mobilevit", "esm", "mamba"])
def test_all_linear_needs_no_layer_to_be_by_record_without_privacy(name):
    """Writes in place, windows, flattened tokens; ESM has a head that nobody uses, and Mamba a map
    whose weight is used without calling it."""
    model = opened(name, NODP)
    assert len(model.sites) > 5
    left_out = [n for n in model.loaded.notices if "leaves out" in n]
    assert bool(left_out) == (name in ("esm", "mamba"))


@pytest.mark.parametrize("name", ["deberta-v2", "opt", "big_bird", "swin", "clip"])
def test_with_privacy_rows_are_the_gradients_of_records_one_by_one(name):
    """In float64, against ordinary autograd."""
    model = opened(name, EXAMPLE)
    adapted, task = model.trainer.adapted, objective(name)
    assert model.trainer.micro_batch == 8
    adapted.model.double()
    try:
        batch = task.synthetic(model.loaded.inputs, (6, 5, 6, 4, 6), 1)
        batch = {k: t.double() if t.is_floating_point() else t for k, t in batch.items()}
        g = torch.Generator().manual_seed(0)
        for parameter in adapted.tensors.values():
            parameter.data = torch.randn(parameter.shape, generator=g, dtype=torch.float64) * 0.1
            parameter.requires_grad_(True)
        with adapted.sink.collect(5) as rows:
            adapted.losses(task.losses, batch).sum().backward()
            found = dict(rows)
        for i in range(5):
            alone = {k: t[i : i + 1] for k, t in batch.items()}
            loss = adapted.losses(task.losses, alone).sum()
            expected = torch.autograd.grad(loss, [*adapted.tensors.values()])
            for key, gradient in zip(adapted.tensors, expected, strict=True):
                torch.testing.assert_close(found[key][i], gradient, rtol=1e-5, atol=1e-9)
    finally:
        adapted.model.float()
        for parameter in adapted.tensors.values():
            parameter.grad = None


def test_windows_and_flattened_tokens_are_found():
    axes = {site.name: site.records for site in opened("swin", EXAMPLE).sites}
    windows = [axis for name, axis in axes.items() if "q_proj" in name or "query" in name]
    assert windows
    assert RecordAxis(0, "outer") in windows
    assert all(
        site.records.axis == 0 for site in opened("opt", EXAMPLE).sites if "fc1" in site.name
    )


def test_what_all_records_share_is_left_out_of_all_linear_in_words():
    model = opened("deberta-v2", EXAMPLE)
    assert not [s.name for s in model.sites if "query_proj" in s.name or "key_proj" in s.name]
    assert any("value_proj" in s.name for s in model.sites)
    [notice] = [n for n in model.loaded.notices if "leaves out" in n]
    assert "query_proj" in notice
    assert "not by record" in notice


def test_asked_for_by_name_it_trains_and_records_go_one_by_one():
    model = opened("deberta-v2", EXAMPLE, ("query_proj", "value_proj"))
    assert len(model.sites) == 4
    assert model.trainer.micro_batch == 1
    [notice] = [n for n in model.loaded.notices if "one by one" in n]
    assert "query_proj" in notice
    assert "value_proj" not in notice


def test_what_no_loss_depends_on_is_refused_by_name():
    with pytest.raises(ValueError, match=r"bert\.pooler.*does not use it"):
        opened("big_bird", NODP, ("pooler", "query"))


def test_the_default_leaves_out_what_no_loss_depends_on():
    """Of the last layer only the first token counts, which has projections of its own."""
    model = opened("longformer", NODP, None)
    assert [s.name for s in model.sites] == [
        f"longformer.encoder.layer.0.attention.self.{part}" for part in ("query", "value")
    ]
    [notice] = [n for n in model.loaded.notices if "leaves out" in n]
    assert notice.startswith("the default leaves out longformer.encoder.layer.1")


def test_a_classifier_of_zeros_hides_nothing():
    given = made("opt")
    torch.nn.init.zeros_(given.model.score.weight)
    terms = Terms(
        model="opt",
        objective=objective("opt"),
        optimizer=st.optim.SGD(lr=0.5),
        method=st.methods.FedIT(r=2, target_modules="all-linear"),
    )
    model = open_model(terms, LABELS, Machine(micro_batch_size=8), given)
    assert len(model.sites) == len(opened("opt", NODP).sites)
    assert not model.loaded.heads[0].weight().any(), "and is what it was"


def test_experts_that_all_linear_does_not_reach_are_named():
    notices = opened("qwen2_moe", NODP).loaded.notices
    [notice] = [n for n in notices if "does not reach" in n]
    assert "mlp.experts.gate_up_proj" in notice


def test_experts_are_chosen_hard_so_records_go_one_by_one_or_not_at_all():
    with pytest.raises(ValueError, match=r"hard choice.*micro_batch_size: 1"):
        opened("qwen2_moe", EXAMPLE)
    assert opened("qwen2_moe", EXAMPLE, micro_batch=1).trainer.micro_batch == 1


def test_a_classifier_is_found_beside_a_base_of_another_name():
    """CLIP's class names its base clip, and calls it vision_model."""
    model = opened("clip", NODP)
    assert [head.name for head in model.loaded.heads] == ["classifier"]
    assert model.layout.modules_to_save == ["classifier"]
