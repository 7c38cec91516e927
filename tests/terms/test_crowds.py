"""Whether clients may train together is proved on made-up records, or refused in words."""

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

import silotune as st
import toys
from silotune.adapters import DoRA, LoRA
from silotune.engine import check_gradients
from silotune.engine.crowd_check import check_crowd
from silotune.engine.passes import GradientCheckError
from silotune.optim import SGD
from silotune.terms import Machine, Terms, open_model

LABELS = ("cat", "dog")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from silotune.testing.tiny_models import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("crowds") / "model")


def model(bert, crowd=4, micro_batch=8, method=None, **changes):
    terms = Terms(
        model=str(bert),
        objective=st.SequenceClassification(text="text", label="label", labels=LABELS),
        method=method or st.methods.FFALoRA(r=2),
        optimizer=SGD(lr=0.1),
        **{
            "privacy": st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3),
            "rounds": 1,
            "batch_size": 4,
            **changes,
        },
    )
    return open_model(terms, LABELS, Machine(crowd=crowd, micro_batch_size=micro_batch))


@pytest.mark.parametrize("name", ["FFALoRA", "FedIT"])
def test_a_model_whose_records_keep_to_their_client_passes_and_no_less_is_told(bert, name):
    method = getattr(st.methods, name)(r=2)
    alone = model(bert, crowd=1, method=method).coupling
    crowd = model(bert, method=method).coupling
    assert crowd.together == alone.together == 8
    assert crowd.moved >= alone.moved
    assert crowd.moved_at_large >= alone.moved_at_large
    assert crowd.moved < 1e-3


REFUSED = {
    "another adapter": ({"method": st.methods.DoRA(r=2)}, "DoRA does not claim that records"),
    "dropout": (
        {"method": st.methods.FedIT(r=2, lora_dropout=0.1), "privacy": st.NoDP()},
        "lora_dropout draws for one client after the other",
    ),
    "one by one": ({"micro_batch": 1}, "records go through the model one by one"),
    "hidden clients": (
        {
            "privacy": st.ClientDP(noise_multiplier=2.0, target_delta=1e-3),
            "weighting": "uniform",
        },
        "must not move, even by rounding, with the records of another",
    ),
    "half precision": ({"dtype": "bfloat16"}, "records go through the model one by one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_cannot_train_together_is_refused_in_words(bert, case):
    changes, words = REFUSED[case]
    with pytest.raises(ValueError, match=f"^crowd: .*{re.escape(words)}.*set it to 1"):
        model(bert, **changes)


@dataclass(frozen=True, kw_only=True)
class Boastful(DoRA):
    """Claims what its layers do not know."""

    crowdable: ClassVar[bool] = True


def test_an_adapter_that_claims_too_much_is_found_out():
    lora = Boastful(pair=LoRA(rank=2, alpha=6.0))
    axes = replace(toys.axes("dora", SGD(lr=0.1)), adapter=lora)
    trainer = toys.trainer(axes)
    records = toys.notes(12, "made up").batch(range(12))
    roles = axes.trained()
    how = {"unit": "none"}
    coupling = check_gradients(trainer.adapted, trainer.objective, records, roles, **how)
    with pytest.raises(GradientCheckError, match=r"factors of their own have gradients .* off by"):
        check_crowd(trainer.adapted, trainer.objective, records, roles, coupling=coupling, **how)
    assert all(p.grad is None for p in trainer.adapted.tensors.values())


def test_a_crowd_is_one_machines_and_of_one_client_or_more():
    with pytest.raises(ValueError, match="crowd: must be at least 1, not 0"):
        Machine(crowd=0)
