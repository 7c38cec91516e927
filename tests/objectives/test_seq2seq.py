import math

import pytest
import torch
from datasets import Dataset

from silotune.adapters import LoRA, inject
from silotune.core import Factors, pool
from silotune.core.masks import DECODER, MASK
from silotune.data.guess import guess
from silotune.data.loading import Source
from silotune.engine.batches import lengths, taken
from silotune.engine.passes import Passes
from silotune.models.load import load_model
from silotune.models.target_modules import find_sites
from silotune.objectives import Objective, Seq2Seq
from silotune.objectives.tokens import perplexity
from silotune.testing import tiny_models

TASK = Seq2Seq(source="note", target="line", max_length=16, max_target_length=8)
LENGTHS = (5, 8, 4, 7, 6, 12)
STARTS = {"t5": 0, "bart": 2}
"""What a decoder begins with: T5's padding token, BART's end token."""


@pytest.fixture(scope="module", params=STARTS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    make = getattr(tiny_models, f"tiny_{family}")
    return make(tmp_path_factory.mktemp("pairs") / family)


@pytest.fixture
def loaded(folder):
    loaded = load_model(str(folder), TASK.task)
    loaded.model.double()
    return loaded


def batch_of(loaded, lengths=LENGTHS):
    return TASK.synthetic(loaded.inputs, lengths, 0)


def test_what_a_record_is():
    task: Objective = TASK
    assert task.columns == {"source": "note", "target": "line"}
    assert (task.metric, TASK.goal, task.label_names) == ("loss", "min", ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "note"}, "target: is the same column as source"),
        ({"max_length": 0}, "max_length: must be at least 1"),
        ({"max_target_length": 1}, "max_target_length: must be at least 2"),
        ({"source_prefix": None}, "source_prefix"),
    ],
)
def test_what_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Seq2Seq(**{"source": "note", "target": "line", **changes})


def test_a_record_has_one_loss_the_mean_over_its_own_target(loaded, family):
    """The decoder reads the target shifted by one, written out here by hand."""
    batch, by_hand = batch_of(loaded), []
    for i in range(len(LENGTHS)):
        one = taken(batch, [i])
        target = one["labels"][0]
        assert (target >= 0).all(), "a record that is taken alone has no padding"
        read = torch.tensor([[STARTS[family], *target[:-1].tolist()]])
        logits = loaded.model(input_ids=one["input_ids"], decoder_input_ids=read).logits[0]
        each = [
            math.log(sum(math.exp(x) for x in z)) - z[y]
            for z, y in zip(logits.tolist(), target.tolist(), strict=True)
        ]
        by_hand.append(sum(each) / len(each))
    losses = TASK.losses(loaded.model, batch)
    assert losses.tolist() == pytest.approx(by_hand, abs=1e-10)
    alike = batch_of(loaded, (8,) * 4)  # of which each target has 7 to 9 tokens
    whole = loaded.model(**{k: t[:1] for k, t in alike.items()}).loss
    assert float(TASK.losses(loaded.model, alike)[0]) == pytest.approx(float(whole), abs=1e-6)


def test_rows_of_different_width_are_cut_by_their_own_masks(loaded):
    batch = batch_of(loaded, (8, 8, 4))
    assert batch[MASK].shape == batch[DECODER + MASK].shape == batch["labels"].shape
    batch["labels"][2] = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12])
    batch[DECODER + MASK][2] = 1  # a short source with a long target
    alone = taken(batch, [2])
    assert alone["input_ids"].shape == (1, 4)
    assert alone["labels"].tolist() == [[5, 6, 7, 8, 9, 10, 11, 12]]
    assert lengths(batch)[2] == 12


def test_scores_are_counted_in_target_tokens_and_pool_exactly(loaded):
    batch = batch_of(loaded)
    whole = TASK.measure(loaded.model, batch)
    parts = [TASK.measure(loaded.model, taken(batch, part)) for part in ([0], [1, 2, 3, 4, 5])]
    pooled = pool([part.meters() for part in parts])
    assert pooled["loss"].count == int((batch["labels"] != -100).sum())
    assert pooled["loss"].value() == pytest.approx(whole.meters()["loss"].value(), abs=1e-12)
    assert perplexity(whole).metrics["perplexity"] == pytest.approx(
        math.exp(whole.meters()["loss"].value())
    )


def test_defaults_reach_encoder_decoder_and_what_joins_them(loaded):
    sites = [site.name for site in find_sites(loaded.model, None)]
    cross = ("EncDecAttention", "encoder_attn")
    encoder = [n for n in sites if "encoder.block" in n or "encoder.layers" in n]
    joined = [n for n in sites if any(part in n for part in cross)]
    assert len(sites) == 12, "queries and values of 2 layers of each kind of attention"
    assert len(encoder) == 4
    assert len(joined) == 4


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_rows_are_the_gradients_of_records_alone(loaded, targets):
    """Clipping bounds nothing unless they are: in encoder, decoder and what joins them."""
    sites = find_sites(loaded.model, targets)
    adapted = inject(loaded.model, sites, (), LoRA(rank=2, alpha=5.0))
    adapted.model.double()
    g = torch.Generator().manual_seed(0)
    noise = {
        k: torch.randn(t.shape, generator=g, dtype=torch.float64) / 4
        for k, t in adapted.extract().items()
    }
    adapted.load(Factors(noise))
    adapted.train_only({key.role for key in adapted.tensors})
    adapted.model.train()
    passes = Passes(adapted, TASK, batch_of(loaded))
    together = passes.together(range(len(LENGTHS)))
    alone = torch.stack([passes.alone(i) for i in range(len(LENGTHS))])
    assert together.norm(dim=1).min() > 1e-3
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)


def test_models_of_another_kind_are_refused(folder, family, tmp_path):
    with pytest.raises(ValueError, match=r"is an encoder and a decoder.*set task: seq2seq"):
        load_model(str(folder), "causal-lm")
    with pytest.raises(ValueError, match="is an encoder and a decoder"):
        load_model(str(folder), "sequence-classification", labels=("no", "yes"))
    if family == "t5":
        bert = tiny_models.tiny_bert(tmp_path / "bert")
        with pytest.raises(ValueError, match=r"bert is no encoder with a decoder.*t5, bart"):
            load_model(str(bert), "seq2seq")


def looked_at(**columns):
    table = Dataset.from_dict({name: cells * 20 for name, cells in columns.items()})
    return guess(Source(train=table), None)


def test_sources_and_targets_are_told_by_their_names():
    note, line = ["she came with a cough", "he fell off a horse"], ["lungs, again", "a broken arm"]
    found = looked_at(report=note, summary=line)
    assert found.task == "seq2seq"
    assert found.columns == {"source": "report", "target": "summary"}
    beside = looked_at(report=note, summary=line, label=["a", "b"])
    assert beside.task == "sequence-classification"
