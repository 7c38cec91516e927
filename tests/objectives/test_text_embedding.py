"""Text embedding: losses of pairs, each of its own record, with both texts in its one gradient."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from transformers import AutoModel

from silotune.adapters import LoRA, fixed_keys, inject
from silotune.adapters.mole import Expert, Experts
from silotune.core import Factors, joined
from silotune.core.masks import MASK, PAIR
from silotune.data.guess import guess
from silotune.data.loading import Source
from silotune.engine.batches import lengths, taken
from silotune.engine.passes import Passes
from silotune.linalg import LowRank
from silotune.methods.registry import built_in
from silotune.models.load import GivenModel, load_model, prepare_model
from silotune.models.sentence import write_sentence_files
from silotune.models.target_modules import find_sites
from silotune.objectives import Objective, TextEmbedding
from silotune.objectives.answers import Similarity, cells
from silotune.optim import AdamW
from silotune.privacy.mechanisms.clipping import accumulate
from silotune.testing.tiny_models import tiny_bert, tiny_llama, tiny_roberta

PAIRS = {"text": "one", "text_pair": "other", "label": "score"}
TASK = TextEmbedding(**PAIRS, score_range=(0, 5), max_length=16, pooling="mean")
LENGTHS = (5, 8, 4, 7, 6, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("texts") / "bert")


def opened(folder, pooling="mean"):
    loaded = load_model(str(folder), TASK.task, pooling=pooling)
    loaded.model.double()
    return loaded


def batch_of(loaded, lengths=LENGTHS):
    batch = TASK.synthetic(loaded.inputs, lengths, 0)
    return {name: t.double() if name == "labels" else t for name, t in batch.items()}


def by_hand(model, texts, pooling):
    """One vector of one text without padding, in numpy."""
    hidden = model(**texts).last_hidden_state[0].detach().numpy()
    vector = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_losses_are_those_of_their_formula(folder, pooling, loss):
    loaded = opened(folder, pooling)
    task = TextEmbedding(
        **PAIRS,
        score_range=(1, 5),
        cosine_range=(-0.5, 1),
        loss=loss,
        huber_delta=0.3,
        pooling=pooling,
    )
    batch, expected = batch_of(loaded), []
    batch["labels"] = batch["labels"] * 0.8 + 1
    for i in range(len(LENGTHS)):
        one = taken(batch, [i])
        first = {k: t for k, t in one.items() if k in ("input_ids", MASK)}
        second = {k.removeprefix(PAIR): t for k, t in one.items() if k.startswith(PAIR)}
        vectors = [by_hand(loaded.model, texts, pooling) for texts in (first, second)]
        wanted = -0.5 + 1.5 * (float(one["labels"]) - 1) / 4
        away = abs(vectors[0] @ vectors[1] - wanted)
        far = 0.3 * (away - 0.15)
        small = away**2 / 2 if away < 0.3 else far
        expected.append(away**2 if loss == "mse" else small)
    assert task.losses(loaded.model, batch).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_loss_is_of_its_own_record_and_not_of_padding_in_either_row(folder):
    loaded = opened(folder)
    batch = batch_of(loaded)
    assert batch[MASK].shape != batch[PAIR + MASK].shape
    whole = TASK.losses(loaded.model, batch)
    alone = torch.cat([TASK.losses(loaded.model, taken(batch, [i])) for i in range(6)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)
    assert lengths(taken(batch, [0])) == [lengths(batch)[0]]
    other = dict(batch)
    other["pair_input_ids"] = batch["pair_input_ids"].flip(0)
    assert TASK.losses(loaded.model, other)[0] != whole[0], "the second text counts"


def method_adapters():
    """Of every method that hides records, the first of each kind."""
    found = {}
    for name, method in built_in().items():
        if name in ("mole", "head-only"):  # experts are made here; a vector has no head
            continue
        adapter = method.sample(r=2, clients=2).axes(AdamW(lr=0.1), head=False).adapter
        if adapter is not None and adapter.per_example_safe:
            found.setdefault(repr(adapter), (name, adapter))
    return dict(found.values())


def mixture(sites):
    g = torch.Generator().manual_seed(3)

    def pair(site):
        return LowRank(
            torch.randn(site.out_features, 2, generator=g),
            torch.randn(2, site.in_features, generator=g),
        )

    experts = [Expert(name, {site.name: pair(site) for site in sites}) for name in ("a", "b")]
    return Experts(experts=tuple(experts), positions=3, balance_weight=0.2)


def moved(loaded, adapter, targets=None):
    sites = find_sites(loaded.model, targets)
    adapter = mixture(sites) if adapter is None else adapter
    adapted = inject(loaded.model, sites, (), adapter)
    adapted.model.double()
    g = torch.Generator().manual_seed(0)
    noise = {
        k: t.double() + torch.randn(t.shape, generator=g, dtype=torch.float64) / 4
        for k, t in adapted.extract().items()
    }
    adapted.load(Factors(noise))
    adapted.train_only({key.role for key in adapted.tensors}, fixed_keys(sites, adapter))
    adapted.model.train()
    return adapted


@pytest.mark.parametrize("name", [*method_adapters(), "mole"])
def test_rows_are_the_gradients_of_records_alone(folder, name, double_precision):
    """Both texts in one row a record, which is then what is clipped: with every method's layers."""
    loaded = opened(folder)
    passes = Passes(moved(loaded, method_adapters().get(name)), TASK, batch_of(loaded))
    together = passes.together(range(6))
    alone = torch.stack([passes.alone(i) for i in range(6)])
    assert together.norm(dim=1).min() > 1e-4
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)


def test_a_pair_is_clipped_as_one_record(folder, double_precision):
    """Both of its passes at once: a naive loop, record by record, says so; in parts or together."""
    adapted = moved(opened(folder), LoRA(rank=2, alpha=5.0))
    passes = Passes(adapted, TASK, batch_of(opened(folder)))
    alone = torch.stack([passes.alone(i) for i in range(6)])
    bound = float(alone.norm(dim=1).median())
    expected = (alone * (bound / alone.norm(dim=1)).clamp(max=1)[:, None]).sum(dim=0)
    for parts in ([range(6)], [[4, 0], [5], [1, 3, 2]]):
        found = accumulate(
            adapted.sink,
            lambda batch: adapted.losses(TASK.losses, batch),
            (taken(passes.records, part) for part in parts),
            bound,
        )
        sums = torch.cat([found.sums[key].flatten() for key in adapted.tensors])
        torch.testing.assert_close(sums, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["milora", "mole"])
def test_what_routers_add_is_of_both_texts(folder, name, double_precision):
    adapted = moved(opened(folder), method_adapters().get(name))
    batch = taken(batch_of(opened(folder)), [0, 1, 2])
    with_both = adapted.losses(TASK.losses, batch) - TASK.losses(adapted.model, batch)

    def of(prefix):
        names = {prefix + name: name for name in ("input_ids", MASK)}
        texts = {own: batch[name] for name, own in names.items()}
        none = lambda model, b: model(**texts).last_hidden_state.sum(dim=(1, 2)) * 0  # noqa: E731
        return adapted.losses(none, batch)

    first, second = of(""), of(PAIR)
    assert first.abs().min() > 1e-6
    assert not torch.allclose(first, second)
    torch.testing.assert_close(with_both, first + second)


def test_rows_on_a_decoder_that_embeds_by_its_last_token(tmp_path, double_precision):
    loaded = opened(tiny_llama(tmp_path / "llama"), "last")
    task = TextEmbedding(**PAIRS, score_range=(0, 5), max_length=16, pooling="last")
    adapted = moved(loaded, LoRA(rank=2, alpha=5.0), "all-linear")
    passes = Passes(adapted, task, batch_of(loaded))
    together = passes.together(range(6))
    alone = torch.stack([passes.alone(i) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)


def test_scores_pool_exactly_and_are_those_of_scipy(folder):
    loaded = opened(folder)
    batch = batch_of(loaded)
    whole = TASK.measure(loaded.model, batch)
    parts = [TASK.measure(loaded.model, taken(batch, part)) for part in ([0], [1, 2, 3, 4, 5])]
    told = {**whole.metrics(), **TASK.facts.derive(whole).metrics}
    pooled = joined(parts)
    assert {**pooled.metrics(), **TASK.facts.derive(pooled).metrics} == pytest.approx(told)
    assert told.keys() == TASK.facts.metrics.keys()
    cosines = TASK.cosines(loaded.model, batch).detach().numpy()
    scores = batch["labels"].flatten().numpy()
    assert told["loss"] == pytest.approx(((cosines - scores / 5) ** 2).mean())
    assert told["mse"] == pytest.approx(((5 * cosines - scores) ** 2).mean())
    assert told["pearson"] == pytest.approx(pearsonr(cosines, scores).statistic)
    assert told["spearman"] == pytest.approx(spearmanr(cosines, scores).statistic)
    same = TASK.measure(loaded.model, taken(batch, [2]))
    assert math.isnan(TASK.facts.derive(same).metrics["spearman"])


def test_made_up_records_are_the_same_for_a_seed_and_none_is_right_already(folder):
    spec = opened(folder).inputs
    batch, again = (TASK.synthetic(spec, LENGTHS, 7) for _ in range(2))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["labels"], TASK.synthetic(spec, LENGTHS, 8)["labels"])
    assert {*batch["labels"].flatten().tolist()} == {-5.0, 10.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": "contrastive"}, "^loss: pairs would be learned by contrast with the other"),
        ({"loss": "MultipleNegativesRankingLoss"}, "moves more than the one gradient"),
        ({"loss": "mae"}, "^loss: must be one of mse, huber"),
        ({"score_range": (5, 0)}, "^score_range: the first number must be below the second"),
        ({"score_range": 5}, "^score_range: give the lowest and the highest number"),
        ({"score_range": (0, math.inf)}, "^score_range: give the lowest"),
        ({"score_range": (0, 1e39)}, "^score_range: its ends are too large"),
        ({"score_range": (1e9, 1e9 + 1)}, "^score_range: its ends are .* too near"),
        ({"cosine_range": (-2, 1)}, "^cosine_range: cosines are between -1 and 1"),
        ({"pooling": "max"}, "^pooling: must be one of"),
        ({"huber_delta": 0.0}, "^huber_delta: must be"),
        ({"max_length": 0}, "^max_length: must be at least 1"),
    ],
)
def test_what_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        TextEmbedding(**{**PAIRS, "score_range": (0, 5), **change})


@pytest.mark.parametrize("tokens", ["mean", "cls", "last"])
def test_a_checkpoint_says_how_it_pools(tmp_path, tokens):
    bert = tiny_bert(tmp_path / "bert")
    write_sentence_files(bert, tokens, 32, 16)
    mine, theirs = (load_model(str(bert), TASK.task, pooling=p) for p in ("model", tokens))
    assert mine.digest == theirs.digest
    other = {"mean": "cls", "cls": "last", "last": "mean"}[tokens]
    assert load_model(str(bert), TASK.task, pooling=other).digest != mine.digest
    task = TextEmbedding(**PAIRS, score_range=(0, 5), pooling="model")
    said = TextEmbedding(**PAIRS, score_range=(0, 5), pooling=tokens)
    batch = batch_of(mine)
    losses = [t.losses(m.model.float(), batch) for t, m in ((task, mine), (said, theirs))]
    assert torch.equal(*losses)


def test_a_checkpoint_that_does_not_say_is_asked_about(tmp_path):
    bert = tiny_bert(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"^pooling: .* has no modules.json.*set pooling to mean"):
        load_model(str(bert), TASK.task, pooling="model")
    write_sentence_files(bert, "mean", 32, 16)
    for named, words in (
        ('{"pooling_mode_max_tokens": true}', "max_tokens"),
        ('{"pooling_mode": "weightedmean", "include_prompt": true}', "weightedmean"),
        (
            '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}',
            "cls_token and mean",
        ),
        ("{}", "nothing"),
    ):
        (bert / "1_Pooling" / "config.json").write_text(named)
        with pytest.raises(ValueError, match=f"^pooling: .* pools by {words}.* which is not"):
            load_model(str(bert), TASK.task, pooling="model")
    (bert / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    last = load_model(str(bert), TASK.task, pooling="model")
    assert last.model.config.sentence_pooling == "last"
    modules = (bert / "modules.json").read_text()
    (bert / "modules.json").write_text(modules.replace("models.Normalize", "models.Dense"))
    with pytest.raises(ValueError, match=r"^pooling: .* goes through Dense beside the model"):
        load_model(str(bert), TASK.task, pooling="model")
    (bert / "modules.json").write_text("[")
    with pytest.raises(ValueError, match=r"^pooling: modules.json of .* is no JSON.*set pooling"):
        load_model(str(bert), TASK.task, pooling="model")
    assert load_model(str(bert), TASK.task, pooling="mean").model
    given = GivenModel(
        AutoModel.from_pretrained(bert), load_model(str(bert), TASK.task, pooling="cls").tokenizer
    )
    with pytest.raises(ValueError, match=r"^pooling: the model does not say"):
        prepare_model(given, TASK.task)
    assert prepare_model(given, TASK.task, pooling="cls").model.config.sentence_pooling == "cls"


def test_a_pooler_that_a_checkpoint_lacks_is_not_missed(tmp_path):
    loaded = load_model(str(tiny_roberta(tmp_path / "roberta")), TASK.task, pooling="mean")
    assert loaded.model.pooler is None


def test_pairs_with_a_score_are_told_by_their_names():
    texts = ["a cat sleeps on the mat", "two dogs run in the yard"]
    table = {"sentence1": texts * 30, "sentence2": texts[::-1] * 30}
    scores = [i / 12 for i in range(60)]
    found = guess(Source(train=Dataset.from_dict({**table, "score": scores})), None)
    assert (found.task, found.labels) == ("text-embedding", ())
    assert found.columns == {"text": "sentence1", "text_pair": "sentence2", "label": "score"}
    named = guess(Source(train=Dataset.from_dict({**table, "label": scores})), "text-embedding")
    assert named.columns["label"] == "label"
    alone = Dataset.from_dict({"note": texts * 30, "beside": texts * 30, "score": scores})
    asked = guess(Source(train=alone), "text-embedding")
    assert asked.open == {"text_pair": ("beside",)}


def test_what_is_said_of_a_pair_is_a_row():
    task: Objective = TASK
    assert task.constants == {"score_range": (0.0, 5.0), "cosine_range": (0.0, 1.0)}
    assert cells(Similarity(4.0, 0.8)) == {"prediction": 4.0, "cosine": 0.8}
