import json
import math
from pathlib import Path

import pytest
import torch

from silotune.core import Answers, pool
from silotune.models.heads import random_head
from silotune.models.load import load_model
from silotune.objectives import Objective, TokenClassification, counts_right_answers
from silotune.objectives.iob2 import entities, tags_of
from silotune.objectives.token_classification import derived

TASK = TokenClassification(text="text", spans="spans", labels=("NAME", "DATE"))
TAGS = ("O", "B-NAME", "I-NAME", "B-DATE", "I-DATE")
STRICT = ("I-NAME", "B-NAME", "I-NAME", "I-DATE", "B-DATE", "B-DATE", "I-DATE", "O")
LENGTHS = (5, 8, 4, 7, 6)
SEQEVAL = json.loads((Path(__file__).parent / "seqeval.json").read_text())


@pytest.fixture(params=["bert", "llama"])
def loaded(folders, request):
    loaded = load_model(str(folders[request.param]), TASK.task, labels=TASK.label_names)
    for key, tensor in random_head(loaded.heads, 0).items():
        loaded.model.get_submodule(key.site).get_parameter(key.name).copy_(tensor)
    loaded.model.double()
    return loaded


def rows(batch, *indices):
    return {name: tensor[list(indices)] for name, tensor in batch.items()}


def test_types_make_tags():
    task: Objective = TASK
    assert (task.metric, TASK.goal) == ("token_accuracy", "max")
    assert TASK.label_names == tags_of(("NAME", "DATE")) == TAGS
    assert TASK.columns == {"text": "text", "spans": "spans"}
    assert TokenClassification(words="w", tags="t", labels=["A"]).label_names == ("O", "B-A", "I-A")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "labels: list the types of entities"),
        ({"labels": []}, "labels: needs one or more"),
        ({"labels": ["O", "NAME"]}, "labels: 'O' is a tag"),
        ({"labels": ["B-NAME", "I-NAME"]}, "labels: 'B-NAME' is a tag"),
        ({"labels": ["NAME", "NAME"]}, "labels: NAME stands there twice"),
        ({"spans": None, "tags": "tags"}, "columns: .* not tags and text"),
        ({"words": "words"}, "columns: .* takes words and tags, or text and spans"),
        ({"head_init": "label-prototypes"}, "head_init: must be one of auto, random, checkpoint"),
        ({"max_length": 0}, "max_length: must be at least 1"),
    ],
)
def test_what_is_refused(changes, words):
    given = {"text": "text", "spans": "spans", "labels": ["NAME"], **changes}
    with pytest.raises(ValueError, match=words):
        TokenClassification(**given)


def test_a_record_has_one_loss_the_mean_over_its_own_tags(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS, 0)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = loaded.model(**inputs).logits.tolist()
    by_hand = []
    for row, labels in zip(logits, batch["labels"].tolist(), strict=True):
        read = [(z, y) for z, y in zip(row, labels, strict=True) if y != -100]
        each = [math.log(sum(math.exp(x) for x in z)) - z[y] for z, y in read]
        by_hand.append(sum(each) / len(each))
    assert {len(by_hand)} == {len(LENGTHS)}
    assert TASK.losses(loaded.model, batch).tolist() == pytest.approx(by_hand, abs=1e-10)


def test_neither_others_nor_padding_change_a_loss(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS, 0)
    whole = TASK.losses(loaded.model, batch)
    some = TASK.losses(loaded.model, rows(batch, 4, 0))
    assert torch.allclose(whole[[4, 0]], some, rtol=0, atol=1e-10)
    alone = [
        TASK.losses(loaded.model, {k: t[:, :length] for k, t in rows(batch, i).items()})
        for i, length in enumerate(LENGTHS)
    ]
    assert torch.allclose(whole, torch.cat(alone), rtol=0, atol=1e-10)


def test_a_record_without_a_tag_moves_nothing(loaded):
    batch = TASK.synthetic(loaded.inputs, (4, 6), 0)
    batch["labels"][1] = -100
    loss = TASK.losses(loaded.model.requires_grad_(True), batch)
    assert loss[1] == 0
    loss[1].backward()
    assert all(p.grad is None or not p.grad.any() for p in loaded.model.parameters())


def test_scores_are_counted_in_tokens_and_pool_exactly(loaded):
    batch = TASK.synthetic(loaded.inputs, LENGTHS, 0)
    whole = TASK.measure(loaded.model, batch)
    parts = [
        TASK.measure(loaded.model, rows(batch, *part)).meters() for part in ([0], [1, 2, 3, 4])
    ]
    pooled = pool(parts)
    tagged = int((batch["labels"] != -100).sum())
    assert whole.meters()["token_accuracy"] == pooled["token_accuracy"]
    assert pooled["token_accuracy"].count == tagged
    assert pooled["loss"].value() == pytest.approx(whole.meters()["loss"].value(), abs=1e-12)
    assert whole.kept["there"].sum(dim=1).tolist() == [
        len([*entities([y for y in labels if y != -100])]) for labels in batch["labels"].tolist()
    ]


def test_one_record_may_move_its_score_by_more_than_one():
    """So that noise made for one right answer a record would not hide it."""
    assert not counts_right_answers(TASK)
    assert not TASK.facts.counts_right
    assert "accuracy" not in TASK.facts.metrics, "the name under which such counts are released"


def test_entities_are_read_strictly():
    ids = [TAGS.index(tag) for tag in STRICT]
    assert [tuple(one) for one in entities(ids)] == [(0, 1, 3), (1, 4, 5), (1, 5, 7)]


@pytest.mark.parametrize("case", SEQEVAL)
def test_scores_of_entities_are_those_of_seqeval(case):
    """What seqeval 1.2.2 gives: ``mode="strict", scheme=IOB2, zero_division=0``."""
    right, given = (
        [{*entities([TAGS.index(tag) for tag in line.split()])} for line in case[name]]
        for name in ("right", "given")
    )
    pairs = [(a & b, b, a) for a, b in zip(right, given, strict=True)]
    types = range(len(TAGS) // 2)
    each = [[[sum(e.kind == t for e in own) for t in types] for own in pair] for pair in pairs]
    kept = dict(zip(("hits", "found", "there"), torch.tensor(each).unbind(dim=1), strict=True))
    told = derived(Answers(kept=kept))
    scores = told.metrics
    assert sum(row[3] for row in told.counts) == sum(len(hit) for hit, _, _ in pairs)
    assert [row[0] for row in told.counts] == list(types)
    assert scores == pytest.approx({name: case[name] for name in scores}, abs=1e-12)
    assert scores.keys() == {"entity_f1", "entity_precision", "entity_recall"}


def test_a_model_that_is_right_finds_every_entity():
    class Right(torch.nn.Module):
        def forward(self, tags):
            logits = torch.nn.functional.one_hot(tags.clamp(min=0), len(TAGS)).double()
            return type("Output", (), {"logits": logits})

    labels = torch.tensor([[1, -100, 2, 0, 3], [0, 1, 1, -100, -100]])
    metrics = TASK.measure(Right(), {"tags": labels, "labels": labels})
    found = derived(metrics)
    assert found.metrics == dict.fromkeys(found.metrics, 1.0)
    assert found.errors["entity_f1"] == 0
    assert found.counts == [(0, 3, 3, 3), (1, 1, 1, 1)]
    assert metrics.meters()["token_accuracy"].value() == 1
