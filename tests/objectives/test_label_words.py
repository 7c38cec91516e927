"""A head begins at what labels are called, where that says something."""

from dataclasses import replace

import pytest
import torch

from federation.objects import classifier, federation
from silotune.core import Key, Role
from silotune.models.heads import prototype_head, random_head
from silotune.objectives import (
    ImageClassification,
    MultiLabelClassification,
    descriptions,
    say_something,
)
from silotune.terms import open_model
from silotune.testing.tiny_models import tiny_bert


def test_a_name_is_read_as_its_words():
    names = ("card_arrival", "lost-or-stolen", "topUp", "Refund not showing?", "crédit", "42")
    words = ("card arrival", "lost or stolen", "top Up", "Refund not showing", "crédit", "42")
    assert descriptions(names) == words
    assert descriptions({"0": "about cats", "1": "about dogs"}) == ("about cats", "about dogs")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (("cat", "dog"), True),
        (("yes", "no"), True),
        (("爱", "恨"), True),
        ({"0": "good", "1": "bad"}, True),
        (("0", "1"), False),
        (("A", "B"), False),
        (("LABEL_0", "LABEL_1"), False),
        (("class 1", "Class 2"), False),
        (("cat", "7"), False),
        (None, False),
    ],
)
def test_which_labels_say_something(labels, told):
    assert say_something(labels) == told
    auto = classifier(labels=labels, pooling="mean")
    assert auto.head_init == ("label-prototypes" if told else "random")
    assert classifier(labels=labels).head_init == "random"  # nothing is pooled to compare with
    assert classifier(labels=labels, pooling="mean", head_init="random").head_init == "random"
    if not told:
        with pytest.raises(ValueError, match=r"^labels: head_init: label-.* label: desc"):
            classifier(labels=labels, pooling="mean", head_init="label-prototypes")


def test_images_have_no_words():
    assert ImageClassification(image="i", label="l", labels=("cat", "dog")).head_init == "random"


def test_a_plain_list_of_labels_is_a_head_start(tmp_path):
    model = tiny_bert(tmp_path / "bert")
    names = ("about_cats", "weatherReport")
    terms = federation(model, objective=classifier(pooling="mean", labels=names)).terms
    opened = open_model(terms, names)
    weight = opened.first[Key("classifier", Role.HEAD, "weight")]
    started = prototype_head(opened.loaded, ["about cats", "weather Report"])
    assert torch.equal(weight, started[Key("classifier", Role.HEAD, "weight")])
    drawn = random_head(opened.loaded.heads, terms.seed)
    assert not torch.equal(weight, drawn[Key("classifier", Role.HEAD, "weight")])
    assert Key("classifier", Role.HEAD, "weight") not in opened.drawn


def test_only_where_a_text_may_have_several_labels_does_its_nearness_to_others_count(tmp_path):
    model = tiny_bert(tmp_path / "bert")
    names, bias = ("about cats", "weather", "dogs"), Key("classifier", Role.HEAD, "bias")
    several = MultiLabelClassification(text="text", label="label", labels=names, pooling="mean")
    for objective, counts in ((several, True), (classifier(pooling="mean", labels=names), False)):
        scaled = replace(objective, head_scale=4.0)
        opened = open_model(federation(model, objective=scaled).terms, names)
        started = prototype_head(opened.loaded, names, several=counts)
        assert torch.equal(4.0 * opened.first[bias], started[bias])
        assert started[bias].all() == counts
