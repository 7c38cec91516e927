"""One record never moves another's gradient: not in its batch, not by its length, not afterwards.

Attacks: models in which it does, each of a kind that real ones are of; and those that must pass.
"""

import re

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from covering import every_combination, full
from silotune.core import ClientId, ClientTask, RoundPlan, generator
from silotune.engine import Client, score_at_home
from silotune.engine.batches import microbatches, pass_tokens
from silotune.methods import built_in
from silotune.models.load import GivenModel
from silotune.objectives import CausalLM, SequenceClassification
from silotune.optim import SGD
from silotune.privacy import ClientDP, ExampleDP, NoDP, NoPrivacy
from silotune.privacy.ledger.noisy_counts import NoisyCount, Releases
from silotune.terms import Terms, open_model
from silotune.terms.machine import Machine
from silotune.testing import tiny_models

pytestmark = pytest.mark.usefixtures("checked")

EXAMPLE = ExampleDP(noise_multiplier=1.0, target_delta=1e-5)
CLIENT = ClientDP(noise_multiplier=1.0, target_delta=1e-5, client_sampling_rate=0.5)
SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
DECODER = SIZES | {"pad_token_id": 0}
KV = DECODER | {"num_key_value_heads": 2}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A tokenizer of 260 bytes and special tokens; as long as anybody likes."""
    folder = tiny_models.tiny_bert(tmp_path_factory.mktemp("reader"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 4096
    return tokenizer


def opened(
    model,
    reader,
    *,
    max_length=96,
    privacy=EXAMPLE,
    micro_batch=32,
    targets="all-linear",
    **changes,
):
    """What a run makes of it before it reads a record."""
    causal = "LM" in type(model).__name__
    own = {"text": "text", "max_length": max_length}
    objective = (
        CausalLM(**own)
        if causal
        else SequenceClassification(label="label", labels=("a", "b"), **own)
    )
    terms = Terms(
        model="given",
        objective=objective,
        method=built_in()["fedit"](target_modules=targets),
        optimizer=SGD(lr=0.5),
        privacy=privacy,
        weighting="uniform",
        **changes,
    )
    given = GivenModel(model, reader)
    return open_model(
        terms, () if causal else ("a", "b"), Machine(micro_batch_size=micro_batch), given
    )


def refusal(*args, **kwargs) -> str:
    with pytest.raises(ValueError) as refused:
        opened(*args, **kwargs)
    return str(refused.value)


def longrope():
    scaling = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "long_factor": [4.0] * 8,
        "short_factor": [1.0] * 8,
        "original_max_position_embeddings": 48,
    }
    sizes = {"max_position_embeddings": 96, "original_max_position_embeddings": 48}
    return AutoModelForCausalLM.from_config(
        transformers.Phi3Config(**KV, **sizes, rope_parameters=scaling)
    )


def dynamic():
    scaling = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    return AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**KV, max_position_embeddings=48, rope_parameters=scaling)
    )


def bert():
    return AutoModelForSequenceClassification.from_config(
        transformers.BertConfig(**SIZES, num_labels=2)
    )


# ---- what changes with the longest of a batch


@pytest.mark.full
@pytest.mark.parametrize("make", [longrope, dynamic])
def test_rotary_scales_of_the_longest_record_are_refused_with_the_length_that_cures(make, reader):
    text = refusal(make(), reader)
    assert re.search(r"model\.rotary_emb \(\w+RotaryEmbedding\) mixes the examples", text)
    assert "max_length: 48 or less" in text
    assert opened(make(), reader, max_length=48).coupling.moved < 1e-4


@pytest.mark.full
def test_what_is_computed_one_by_one_may_choose_its_scale_by_length(reader):
    text = refusal(longrope(), reader)
    assert "micro_batch_size: 1" in text
    assert "unit: client" in text
    assert opened(longrope(), reader, micro_batch=1).coupling.together == 1
    for privacy in (CLIENT, NoDP()):
        opened(longrope(), reader, privacy=privacy)


@pytest.mark.parametrize("privacy", [EXAMPLE, full(CLIENT)])
def test_a_scale_that_is_kept_for_the_next_record_is_refused_even_one_by_one(privacy, reader):
    text = refusal(dynamic(), reader, micro_batch=1, privacy=privacy)
    assert re.search(r"after other records went .* keeps something of them \(.*inv_freq\)", text)
    assert "max_length: 48 or less" in text
    assert "micro_batch_size: 1" not in text
    opened(dynamic(), reader, micro_batch=1, privacy=privacy, max_length=48)


class Remembering(nn.Module):
    """Shifts by something of the longest input that it ever saw, from 20 tokens on."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen, self.kept = inner, 20, 0.0

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        if out.shape[1] > self.seen:
            self.seen, self.kept = out.shape[1], out.detach().abs().mean()
        return out * (1.0 + self.kept)


@pytest.mark.parametrize("privacy", [full(EXAMPLE), CLIENT])
def test_a_module_that_remembers_long_records_is_refused(privacy, reader):
    model = bert()
    layer = model.bert.encoder.layer[0].output
    layer.LayerNorm = Remembering(layer.LayerNorm)
    assert re.search("mixes the examples|keeps something", refusal(model, reader, privacy=privacy))


class Counting(nn.Module):
    """Trains as if nothing were, and scores by means of all that it has seen."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(32))

    def forward(self, x):
        if self.training:
            self.mean += 0.1 * (x.detach().mean(dim=(0, 1)) - self.mean)
            return x
        return x - self.mean


def test_statistics_that_only_scores_show_are_refused(reader):
    model = bert()
    model.bert.encoder.layer[0].output.LayerNorm = nn.Sequential(nn.LayerNorm(32), Counting())
    for privacy in (EXAMPLE, CLIENT):
        text = refusal(model, reader, privacy=privacy)
        assert "keeps something of them (bert.encoder.layer.0.output.LayerNorm.1.mean)" in text


# ---- what changes with the others of a batch


class OverBatch(nn.Module):
    """A convolution whose channels are records."""

    def forward(self, x):
        return x + 0.1 * torch.roll(x, 1, dims=0)


class Statistic(nn.Module):
    def forward(self, x):
        return x - 0.1 * x.mean(dim=0)


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(32)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def after(number, module):
    """A model with something more behind a layer."""
    model = bert()
    layer = model.bert.encoder.layer[number].output
    layer.LayerNorm = nn.Sequential(layer.LayerNorm, module)
    return model


@every_combination(
    targets=["all-linear", None, ("query",)], module=[OverBatch, Statistic], number=[0, 1]
)
def test_what_mixes_a_batch_is_refused_by_name(number, module, targets, reader):
    text = refusal(after(number, module()), reader, targets=targets)
    assert re.search(rf"encoder\.layer\.{number}\.output\.LayerNorm\.1\S* \(\w+\) mixes", text)


def test_batch_normalisation_keeps_its_statistics(reader):
    made = opened(after(1, Normalised()), reader)
    assert made.coupling.moved < 1e-4
    assert any("batch normalisation" in notice for notice in made.loaded.notices)


def leaky(module, query, key, value, attention_mask, **kwargs):
    """Attention that looks at padding."""
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def test_attention_that_looks_at_padding_is_refused_with_the_attention_that_does_not(reader):
    ALL_ATTENTION_FUNCTIONS.register("leaky", leaky)
    model = bert()
    model.config._attn_implementation = "leaky"
    assert 'attn_implementation="eager"' in refusal(model, reader)
    assert model.config._attn_implementation == "leaky"


class OverTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.taps = nn.Conv1d(32, 32, 3, padding=1)

    def forward(self, x):
        return x + self.taps(x.transpose(1, 2)).transpose(1, 2)


def test_a_convolution_that_reaches_into_padding_is_refused(reader):
    model = bert()
    layer = model.bert.encoder.layer[0].output
    layer.LayerNorm = nn.Sequential(layer.LayerNorm, OverTokens())
    assert re.search(r"mixes .* on their lengths.*micro_batch_size: 1", refusal(model, reader))
    opened(model, reader, micro_batch=1)


# ---- hard choices


def mixtral():
    return AutoModelForCausalLM.from_config(transformers.MixtralConfig(**KV, num_local_experts=4))


def nested():
    """Its number of experts is inside another configuration."""
    parts = {"ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}}
    return AutoModelForCausalLM.from_config(
        transformers.DbrxConfig(
            d_model=32,
            n_heads=2,
            n_layers=2,
            vocab_size=300,
            max_seq_len=128,
            attn_config={"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
            pad_token_id=0,
            **parts,
        )
    )


class Sparse(nn.Module):
    """Experts that no configuration speaks of."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.choose = inner, nn.Parameter(torch.randn(32, 3))
        self.scales = nn.Embedding(3, 32)

    def forward(self, x):
        best = (x @ self.choose).detach().argmax(dim=-1)
        return self.inner(x) * self.scales(best)


def hidden():
    model = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**KV))
    model.model.layers[1].mlp = Sparse(model.model.layers[1].mlp)
    return model


class Threshold(nn.Module):
    def forward(self, x):
        return torch.where(x > 0.1, x, torch.zeros_like(x))


def thresholded():
    model = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**KV))
    model.model.layers[0].mlp.act_fn = Threshold()
    return model


@pytest.mark.parametrize(
    ("make", "where", "targets"),
    [
        full(mixtral, r"model\.layers\.0\.mlp\.gate \(topk\)", "all-linear"),
        full(nested, r"transformer\.blocks\.0\.ffn \(topk\)", ["Wqkv"]),
        (hidden, r"model\.layers\.1\.mlp \(argmax\)", "all-linear"),
        full(thresholded, r"model\.layers\.0\.mlp\.act_fn \(gt\)", "all-linear"),
    ],
)
def test_hard_choices_are_seen_wherever_they_are_made(make, where, targets, reader):
    how = {"max_length": 16, "targets": targets}
    text = refusal(make(), reader, **how)
    assert re.search(rf"{where} makes a hard choice", text)
    for cure in ("micro_batch_size: 1", "unit: client"):
        assert cure in text
    opened(make(), reader, micro_batch=1, **how)
    opened(make(), reader, privacy=CLIENT, **how)


# ---- half precision


class Texts:
    """Records of many lengths."""

    def __init__(self, reader):
        g = generator("texts")
        self.lengths = [5, 40, 7, 23, 31, 12, 6, 40]
        self.ids = [torch.randint(5, 250, (n,), generator=g) for n in self.lengths]

    def batch(self, indices):
        padded = nn.utils.rnn.pad_sequence([self.ids[i] for i in indices], batch_first=True)
        lengths = torch.tensor([self.lengths[i] for i in indices])
        return {
            "input_ids": padded,
            "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long(),
            "labels": torch.tensor([i % 2 for i in indices]),
        }


def rows_of(trainer, records, indices):
    """Every record's row as a step makes them."""
    found = {}
    each = pass_tokens(trainer.adapted)
    for part in microbatches(indices, records.lengths, trainer.micro_batch, each):
        with trainer.adapted.sink.collect(len(part)) as rows:
            trainer.losses(records.batch(part)).sum().backward()
            for place, record in enumerate(part):
                found[record] = torch.cat([r[place].flatten() for r in rows.values()])
    return found


def attends_in_half_precision() -> bool:
    """PyTorch packs bfloat16 for AMX with AVX512, also where it was told to do without that."""
    states = torch.ones(1, 2, 96, 16, dtype=torch.bfloat16)
    try:
        torch.nn.functional.scaled_dot_product_attention(states, states, states)
    except RuntimeError:
        return False
    return True


HALF = pytest.mark.skipif(
    not attends_in_half_precision(),
    reason="these kernels have no attention in half precision on this processor (PyTorch's own)",
)


@HALF
@pytest.mark.parametrize(
    "make",
    [bert, lambda: AutoModelForCausalLM.from_config(transformers.LlamaConfig(**KV))],
    ids=["bert", "llama"],
)
def test_in_half_precision_no_bit_of_a_record_depends_on_another(make, reader):
    model = opened(make(), reader, dtype="bfloat16", micro_batch=1)
    trainer, records = model.trainer, Texts(reader)
    if trainer.objective.task == "causal-lm":
        batch = records.batch
        records.batch = lambda which: (b := batch(which)) | {"labels": b["input_ids"]}
    trainer.adapted.load(model.first.map(lambda t: t + 0.05 * torch.randn(t.shape)))
    trainer.adapted.train_only(model.axes.trained())
    trainer.adapted.model.train()
    whole = rows_of(trainer, records, range(8))
    for others in ([0], [0, 1], [7, 0, 3], [2, 0, 5, 6, 4]):
        some = rows_of(trainer, records, others)
        assert all(torch.equal(some[i], whole[i]) for i in others)
    assert (model.coupling.together, model.coupling.moved) == (1, 0.0)


@HALF
def test_in_half_precision_records_go_one_by_one(reader):
    """Kernels of some processors add half-precision numbers so that hardly anything moves."""
    model = opened(bert(), reader, dtype="bfloat16")
    assert model.trainer.micro_batch == model.coupling.together == 1
    assert any("one by one" in notice for notice in model.loaded.notices)
    assert model.coupling.moved == 0.0


def test_float32_goes_together_and_its_rounding_is_measured(reader):
    model = opened(bert(), reader)
    assert model.trainer.micro_batch == model.coupling.together == 32
    assert 0 < model.coupling.moved < 1e-4
    assert model.coupling.moved < model.coupling.moved_at_large
    assert model.coupling.small_norm < model.coupling.large_norm
    assert not any("one by one" in notice for notice in model.loaded.notices)


# ---- scores that are released


class Turned(nn.Module):
    """Every record is turned around where an even number of them is computed together."""

    def forward(self, x):
        return x if len(x) % 2 else -x


class Alike(Texts):
    """Of one label."""

    def batch(self, indices):
        return super().batch(indices) | {"labels": torch.zeros(len(indices), dtype=torch.long)}


class Bounded(NoPrivacy):
    """What a charge can be written for."""

    max_grad_norm = 1.0


def test_a_released_score_moves_by_one_at_most_where_records_go_one_by_one(reader, tmp_path):
    """What trains one by one is scored so: beside each other one record turns many answers."""
    model = opened(after(1, Turned()), reader, micro_batch=1)
    trainer = model.trainer
    factors = model.first.map(lambda t: t + 0.5 * torch.randn(t.shape, generator=generator("far")))

    def right(without: int | None) -> float:
        home, records = tmp_path / str(without), Alike(reader)
        home.mkdir()
        if without is not None:
            del records.lengths[without], records.ids[without]
        silo = Client(
            client=ClientId("a"),
            train=records,
            held_out=records,
            privacy=Bounded(batch_size=8),
            home=home,
            releases=Releases(metric=NoisyCount(multiplier=1e-9), held_out=8),
        )
        task = ClientTask(
            run="scored",
            round=0,
            client=silo.client,
            factors=factors,
            seeded=(),
            plan=RoundPlan(phases=(), share=frozenset()),
            steps=1,
            learning_rates=(0.1,),
            seed=0,
        )
        return score_at_home(task, trainer, silo).meters["accuracy"].total

    whole = right(None)
    assert all(abs(right(i) - whole) <= 1 for i in range(8))


# ---- gradients that are not there


class Deaf(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.zeros_like(grad)


class Quantised(nn.Module):
    """Passes nothing back, as a 4-bit base on the wrong device."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return Deaf.apply(self.inner(*args, **kwargs))


@pytest.mark.parametrize("privacy", [EXAMPLE, full(CLIENT), full(NoDP())])
def test_a_tensor_whose_gradient_is_zero_is_refused_by_name(privacy, reader):
    model = bert()
    model.bert.encoder.layer[0].output.LayerNorm = Quantised(
        model.bert.encoder.layer[0].output.LayerNorm
    )
    text = refusal(model, reader, privacy=privacy)
    assert re.search(r"bert\.encoder\.layer\.0\.\S+\.A, .*its gradient is zero", text)
    assert "quantised" in text


# ---- what must pass

ENCODERS = {
    "bert": SIZES,
    "roberta": SIZES | {"max_position_embeddings": 514},
    "albert": SIZES | {"embedding_size": 16},
    "electra": SIZES | {"embedding_size": 16},
    "distilbert": {"vocab_size": 300, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2},
    "mpnet": SIZES,
    "deberta-v2": SIZES
    | {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
    },
    "modernbert": DECODER | {"global_attn_every_n_layers": 2, "local_attention": 16},
}
GPT = {"vocab_size": 300, "pad_token_id": 0, "initializer_range": 0.2}
DECODERS = {
    "gpt2": GPT | {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "gpt_neo": GPT
    | {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "window_size": 8}
    | {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": DECODER,
    "bloom": GPT | {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "falcon": GPT | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "opt": GPT
    | {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"word_embed_proj_dim": 32, "dropout": 0.0},
    "llama": KV,
    "mistral": KV | {"sliding_window": 8},
    "qwen2": KV,
    "qwen3": KV | {"head_dim": 16},
    "gemma": KV | {"head_dim": 16},
    "gemma2": KV | {"head_dim": 16, "sliding_window": 8},
    "gemma3_text": KV | {"head_dim": 16, "sliding_window": 8},
    "phi": KV,
    "phi3": KV,
    "stablelm": KV,
}


KINDS = sorted(ENCODERS | DECODERS)
AT_HAND = {"albert", "bert", "bloom", "deberta-v2", "gemma3_text", "gpt2", "llama", "modernbert"}
"""Of every kind of positions, and layers that are shared or look at some tokens only."""


@pytest.mark.parametrize(
    ("kind", "implementation"),
    [
        (kind, how) if kind in AT_HAND and how == ("sdpa", "eager")[i % 2] else full(kind, how)
        for i, kind in enumerate(KINDS)
        for how in ("sdpa", "eager")
    ],
)
def test_ordinary_models_pass(kind, implementation, reader):
    config = transformers.AutoConfig.for_model(kind, **(ENCODERS | DECODERS)[kind])
    auto = AutoModelForCausalLM if kind in DECODERS else AutoModelForSequenceClassification
    try:
        model = auto.from_config(config, attn_implementation=implementation)
    except ValueError as error:
        pytest.skip(str(error)[:80])
    targets = None if kind in ("deberta-v2", "opt") else "all-linear"  # some see no records
    model = opened(model, reader, max_length=40, targets=targets)
    assert model.coupling.moved < 2e-5, "well below what is refused"


def test_images_pass(tmp_path):
    from silotune.models.load import load_model
    from silotune.objectives import ImageClassification
    from silotune.terms.build import build_model
    from silotune.terms.opening import proved

    folder = tiny_models.tiny_vit(tmp_path)
    objective = ImageClassification(image="image", label="label", labels=("a", "b"))
    terms = Terms(model=str(folder), objective=objective, optimizer=SGD(lr=0.5), privacy=EXAMPLE)
    loaded = load_model(str(folder), "image-classification", labels=("a", "b"))
    assert proved(build_model(terms, loaded, Machine()), terms).coupling.moved < 2e-5
