"""What the layers below the adapters give may be remembered: nothing that is learned changes."""

import os
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import silotune as st
from covering import every_method, fitting
from silotune.adapters.prefix import PREFIX, Prefix
from silotune.core import ClientId, ClientTask, Factors, generator, joinable
from silotune.engine import Client, evaluate
from silotune.engine.batches import lengths, taken
from silotune.engine.client import alone
from silotune.engine.crowd_training import train_together
from silotune.engine.local_training import Training
from silotune.engine.remembered import Remembered, forget, in_folder, in_memory, plain
from silotune.models.load import GivenModel
from silotune.privacy import ExampleLevel, Gaussian, NoPrivacy, Poisson
from silotune.terms import Machine, Terms, open_unproved
from silotune.terms.opening import prefix_fit
from silotune.testing.tiny_models import byte_tokenizer, draw_weights
from toys import method

LABELS = ("a", "b")
SIZES = {"vocab_size": 260, "hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2}
GPT2 = {"vocab_size": 260, "n_embd": 12, "n_inner": 20, "n_layer": 4, "n_head": 2}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
KINDS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES, intermediate_size=20)),
    "pairs": lambda: BertModel(BertConfig(**SIZES, intermediate_size=20)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, **ENDS, n_positions=64)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **ENDS, intermediate_size=20)),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            **{k: v for k, v in SIZES.items() if k != "vocab_size"},
            intermediate_size=20,
            image_size=8,
            patch_size=4,
        )
    ),
}


def opened(kind="bert", privacy=None, **changes):
    """A model of four layers, the upper two adapted, and the terms that it is built by."""
    model = draw_weights(KINDS[kind]()).eval()
    reader = ViTImageProcessor(size={"height": 8, "width": 8}) if kind == "vit" else None
    objective = {
        "vit": st.ImageClassification(image="image", label="label", labels=LABELS),
        "pairs": st.TextEmbedding(
            text="t",
            text_pair="u",
            label="l",
            score_range=(0, 5),
            max_length=16,
            pooling="mean",
        ),
        "gpt2": st.CausalLM(text="text", max_length=16),
        "llama": st.CausalLM(text="text", max_length=16),
    }.get(kind, st.SequenceClassification(text="t", label="l", labels=LABELS, max_length=16))
    given = {
        "method": method("fedit", target_modules="all-linear", layers_to_transform=(2, 3)),
        "optimizer": st.optim.SGD(lr=0.3),
        "privacy": privacy or st.NoDP(),
    }
    terms = Terms(model=kind, objective=objective, **{**given, **changes})
    labels = () if kind in ("pairs", "gpt2", "llama") else LABELS
    return open_unproved(
        terms,
        labels,
        Machine(device="cpu", micro_batch_size=4),
        GivenModel(model, reader or byte_tokenizer()),
    ), terms


class MadeUp:
    """Records that belong to nobody, of unlike lengths."""

    def __init__(self, built, terms, n=9):
        draw = torch.randint(3, 12, (n,), generator=generator("lengths")).tolist()
        self.records = terms.objective.synthetic(built.loaded.inputs, draw, 5)
        self.lengths = lengths(self.records)

    def batch(self, indices):
        return taken(self.records, list(indices))


def remembered(built, examples, together, keep=in_memory):
    return Remembered(examples, built.trainer.adapted, built.trainer.objective, together, keep)


def far(factors: Factors) -> Factors:
    return factors.map(lambda t: t + 0.3 * torch.randn(t.shape, generator=generator(t.shape)))


def begun(built, examples, start, mechanism, *, steps):
    """What one client is to do."""
    client = Client(
        client=ClientId("a"),
        train=examples,
        held_out=None,
        privacy=mechanism,
    )
    task = ClientTask(
        run="law",
        round=0,
        client=client.client,
        factors=start,
        seeded=(),
        plan=built.plan,
        steps=steps,
        learning_rates=(0.3,) * steps,
        seed=3,
    )
    return Training(task=task, client=client, start=start, memory={}, past=None)


def trained(built, examples, *, steps=3, factors=None):
    """All tensors after some steps on batches of all records."""
    start = far(built.first) if factors is None else factors
    mechanism = NoPrivacy(batch_size=len(examples.lengths))
    return alone(begun(built, examples, start, mechanism, steps=steps), built.trainer).factors


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_training_are_bit_for_bit_those_without_it(kind):
    built, terms = opened(kind)
    assert prefix_fit(built, terms).refused == ""
    examples = MadeUp(built, terms)
    kept = remembered(built, examples, 4)
    adapted, objective, factors = built.trainer.adapted, built.trainer.objective, far(built.first)
    one = evaluate(adapted, objective, factors, examples, 4)
    other = evaluate(adapted, objective, factors, kept, 4)
    assert all(torch.equal(one.totals[name], other.totals[name]) for name in one.totals)
    expected = trained(built, examples)
    assert trained(built, kept).digest() == expected.digest()
    assert expected.digest() != far(built.first).digest()


@every_method(lambda name: name != "mole", (0, 2))
def test_every_method_trains_the_same_from_records_that_were_computed_alone(
    method, double_precision
):
    built, terms = opened(method=_above(method), optimizer=fitting(method)[0], privacy=st.NoDP())
    built.trainer.adapted.model.double()
    assert prefix_fit(built, terms).refused == ""
    examples = MadeUp(built, terms)
    factors = far(built.first.map(torch.Tensor.double))
    expected = trained(built, examples, factors=factors)
    found = trained(built, remembered(built, examples, 1), factors=factors)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-9, atol=1e-11)


@every_method(lambda name: name != "mole", (1, 2))
def test_every_method_hides_the_same_records_from_what_was_kept_of_them(method, double_precision):
    built, _, (examples, *_) = doubled(method)
    plainly, kept = (
        next(trainings(built, [e], hidden)) for e in (examples, remembered(built, examples, 1))
    )
    assert_alike(alone(kept, built.trainer), alone(plainly, built.trainer))


@pytest.mark.parametrize("privacy", ["open", "hidden"])
@pytest.mark.parametrize("method", ["ffa-lora", "fedit", "fed-sb"])
def test_a_crowd_trains_the_same_from_records_that_are_remembered(
    method, privacy, double_precision
):
    built, _, own = doubled(method)
    mechanism = hidden if privacy == "hidden" else lambda _: NoPrivacy(batch_size=4)
    kept = [remembered(built, examples, 1) for examples in own]
    crowd = train_together(list(trainings(built, kept, mechanism)), built.trainer)
    for training, found in zip(trainings(built, own, mechanism), crowd, strict=True):
        assert_alike(found, alone(training, built.trainer))


def doubled(method):
    """A model in float64, its terms, and the records of three clients."""
    built, terms = opened(method=_above(method), optimizer=fitting(method)[0], privacy=st.NoDP())
    built.trainer.adapted.model.double()
    return built, terms, [Joined(built, terms, n) for n in (9, 6, 7)]


class Joined(MadeUp):
    """Records that may go beside those of others."""

    padding: ClassVar = {}


def hidden(seed):
    """Of a client whose coins and noise can be drawn twice."""
    return ExampleLevel(
        sampling=Poisson(0.5),
        noise=Gaussian(0.7),
        max_grad_norm=0.4,
        expected_batch_size=4.0,
        insecure_seed=seed,
    )


def trainings(built, everyone, mechanism):
    """Three steps of each, from tensors that all begin with."""
    start = far(built.first.map(torch.Tensor.double))
    for i, examples in enumerate(everyone):
        yield begun(built, examples, start, mechanism(i), steps=3)


def assert_alike(one, other):
    for key, tensor in other.factors.items():
        torch.testing.assert_close(one.factors[key], tensor, rtol=1e-9, atol=1e-11)


def _above(name):
    """A method on the upper half."""
    if name == "head-only":
        return method(name)
    return method(name, target_modules=("query", "value"), layers_to_transform=(2, 3))


def test_of_heads_alone_every_layer_is_below():
    built, terms = opened(method=st.methods.HeadOnly())
    assert len(built.trainer.adapted.prefix.layers) == 4
    assert prefix_fit(built, terms).refused == ""
    examples = MadeUp(built, terms)
    assert (
        trained(built, remembered(built, examples, 4)).digest() == trained(built, examples).digest()
    )


@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
def test_activations_may_be_computed_twice(mode):
    built, terms = opened(gradient_checkpointing=mode)
    assert prefix_fit(built, terms).refused == ""
    examples = MadeUp(built, terms)
    calls = counted(built)
    found = trained(built, remembered(built, examples, 4), steps=1)
    assert calls["forward"] == 3, "once for each part of all records, and never in a step"
    assert found.digest() == trained(built, examples, steps=1).digest()


def counted(built):
    """How often the lowest layer has computed."""
    layer, calls = built.trainer.adapted.prefix.layers[0], {"forward": 0}
    layer.attention.register_forward_hook(lambda *_: calls.update(forward=calls["forward"] + 1))
    return calls


def test_all_records_are_computed_when_the_first_is_asked_for_and_never_again():
    built, terms = opened()
    examples = MadeUp(built, terms)
    kept, calls = remembered(built, examples, 1), counted(built)
    kept.batch([3])
    assert calls["forward"] == len(examples.lengths)
    for part in ([0], [5, 1], list(range(9)), [3, 3]):
        kept.batch(part)
    trained(built, kept)
    assert calls["forward"] == len(examples.lengths)


def test_what_is_forgotten_is_computed_anew():
    built, terms = opened()
    kept, calls = remembered(built, MadeUp(built, terms), 1), counted(built)
    first = kept.batch([3])[PREFIX]
    forget(kept, kept.plain, None)
    assert "_states" not in vars(kept)
    assert torch.equal(kept.batch([3])[PREFIX], first)
    assert calls["forward"] == 18


def test_what_is_kept_of_a_record_alone_depends_on_no_other():
    built, terms = opened()
    examples = MadeUp(built, terms)
    whole, fewer = remembered(built, examples, 1), remembered(built, Without(examples, 4), 1)
    for i in (0, 2, 7):
        there = i if i < 4 else i - 1
        assert torch.equal(whole.batch([i])[PREFIX], fewer.batch([there])[PREFIX])


def test_what_records_cost_need_not_be_how_many_positions_they_fill():
    built, terms = opened()
    examples = MadeUp(built, terms)
    kept = remembered(built, examples, 1)
    for cost in (lambda n: n + 1, lambda n: 1 + n // 2, lambda n: 20 - n):
        other = MadeUp(built, terms)
        other.lengths = [cost(n) for n in examples.lengths]
        found = remembered(built, other, 1)
        for i in range(9):
            assert torch.equal(found.batch([i])[PREFIX], kept.batch([i])[PREFIX])


class Without:
    """Examples, but for one."""

    def __init__(self, examples, absent):
        self.examples, self.kept = examples, [i for i in range(9) if i != absent]
        self.lengths = [examples.lengths[i] for i in self.kept]

    def batch(self, indices):
        return self.examples.batch([self.kept[i] for i in indices])


def test_each_text_of_a_pair_is_kept_by_itself():
    built, terms = opened("pairs")
    fit, kept = prefix_fit(built, terms), remembered(built, MadeUp(built, terms), 4)
    batch = kept.batch([0, 5])
    assert batch[PREFIX].shape[:2] == batch["attention_mask"].shape
    assert batch["pair_" + PREFIX].shape[:2] == batch["pair_attention_mask"].shape
    sizes = [states.flat.numel() * 4 for states in kept._states.values()]
    assert len(sizes) == 2
    assert fit.bytes_of(kept.lengths) == sum(sizes)


def test_a_file_holds_the_same_and_has_no_name(tmp_path):
    built, terms = opened()
    examples, folder = MadeUp(built, terms), tmp_path / "silo"
    seen = []

    def watched(parts, rows):
        flat = in_folder(folder)((seen.append(list(folder.iterdir())) or p for p in parts), rows)
        seen.append(list(folder.iterdir()))
        return flat

    one, other = remembered(built, examples, 4), remembered(built, examples, 4, watched)
    for part in ([0], [5, 1], list(range(9))):
        assert torch.equal(one.batch(part)[PREFIX], other.batch(part)[PREFIX])
    assert len(seen) == 4, "before each part and at the end"
    assert not any(seen)
    assert trained(built, other).digest() == trained(built, examples).digest()


@pytest.mark.parametrize("named", [True, False], ids=["torch", "python"])
def test_files_of_many_silos_are_not_kept_open(named, tmp_path, monkeypatch):
    """A process may have some thousand open."""
    if not named:
        monkeypatch.setattr(Path, "exists", lambda _: False)
    descriptors = Path("/proc/self/fd")
    before = len(os.listdir(descriptors)) if descriptors.is_dir() else None
    states = torch.arange(60.0).view(10, 6).to(torch.bfloat16)
    kept = [in_folder(tmp_path)(iter([states[:4], states[4:]]), 10) for _ in range(20)]
    assert all(torch.equal(flat, states) for flat in kept)
    kept[0][2] = 7  # nobody else's
    assert torch.equal(kept[1], states)
    if named and before is not None:
        assert len(os.listdir(descriptors)) == before


def test_a_folder_without_room_is_told(tmp_path):
    built, terms = opened()
    (tmp_path / "file").write_text("")
    kept = remembered(built, MadeUp(built, terms), 4, in_folder(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"^prefix_cache: .* cannot hold .*; make room, or set it"):
        kept.batch([0])


def test_a_base_in_half_precision_is_kept_in_half_precision():
    built, terms = opened(dtype="bfloat16")
    fit = prefix_fit(built, terms)
    assert (fit.refused, fit.bytes_a_token) == ("", 2 * 12)
    kept = remembered(built, MadeUp(built, terms), 4)
    assert kept.batch([0, 1])[PREFIX].dtype == torch.bfloat16
    assert fit.bytes_of(kept.lengths) == kept._states[""].flat.numel() * 2


def test_states_of_images_have_a_size_of_their_own():
    built, terms = opened("vit")
    kept = remembered(built, MadeUp(built, terms), 4)
    kept.batch([0])
    size = kept._states[""].flat.numel() * 4
    assert prefix_fit(built, terms).bytes_of(kept.lengths) == size == 9 * 5 * 12 * 4


def skips(model):
    """The third layer reads what the first one gave as well."""
    layers, seen = model.bert.encoder.layer, []
    plain = layers[2].forward
    layers[0].register_forward_hook(lambda _, __, out: seen.append(_first(out)))
    layers[2].forward = lambda h, *args, **kwargs: plain(h + seen[-1], *args, **kwargs)


def mixes(model):
    """The first layer gives every record a part of the others."""
    model.bert.encoder.layer[0].register_forward_hook(
        lambda _, __, out: _first(out) + _first(out).mean(dim=(0, 1))
    )


def hands_on(model):
    """The second layer gives what it read as well, and the third one takes it."""
    layers = model.bert.encoder.layer
    plain, first = layers[2].forward, layers[1].forward
    layers[1].forward = lambda h, *args, **kwargs: (_first(first(h, *args, **kwargs)), h)
    layers[2].forward = lambda h, *args, **kwargs: plain(h[0] + h[1], *args, **kwargs)


def trains_below(model):
    """What is adapted in the third layer is the first one's as well."""
    layers = model.bert.encoder.layer
    layers[0].register_forward_hook(
        lambda _, __, out: _first(out) + layers[2].attention.self.query(_first(out))
    )


def _first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (skips, "computes something else when its lower layers do not"),
        (mixes, "depends on those beside it"),
        (hands_on, "cannot compute made-up records"),
        (trains_below, "below the lowest adapted layer is trained"),
    ],
)
def test_what_is_more_than_a_prefix_is_refused(change, why):
    built, terms = opened()
    change(built.loaded.model)
    assert why in prefix_fit(built, terms).refused


def test_a_view_joins_others_where_its_records_do():
    """By what it answers and not by what its class has, which Python 3.12 looks at."""
    built, terms = opened()
    assert joinable(Joined(built, terms))
    assert joinable(remembered(built, Joined(built, terms), 1))
    assert not joinable(MadeUp(built, terms))
    assert not joinable(remembered(built, MadeUp(built, terms), 1))


def test_correlated_noise_knows_the_records_and_not_what_is_kept_of_them():
    built, terms = opened()
    examples = MadeUp(built, terms)
    assert plain(remembered(built, examples, 1)) is examples
    assert plain(examples) is examples


def test_a_prefix_is_found_by_the_place_of_its_sites():
    built, _ = opened()
    model = built.loaded.model
    site = "bert.encoder.layer.{}.attention.self.query"
    below = {n: Prefix.below(model, {site.format(n), "classifier"}) for n in range(4)}
    assert {n: p and len(p.layers) for n, p in below.items()} == {0: None, 1: 1, 2: 2, 3: 3}
    assert Prefix.below(model, {site.format(2), "other.layer.3.query"}) is None
    assert Prefix.below(model, {"nowhere.layer.3.query"}) is None
    assert Prefix.below(nn.Linear(2, 2), {"classifier"}) is None
