"""A method of which so few rounds never show what it was chosen for says so."""

import pytest

import silotune as st
from silotune.methods.registry import built_in
from silotune.terms import Terms
from silotune.terms.short_runs import notices


def said(method, rounds=3, local_steps=2, **changes) -> list[str]:
    terms = Terms(
        model="m",
        objective=st.SequenceClassification(text="t", label="l", labels=("a", "b")),
        method=method,
        optimizer=st.optim.AdamW(lr=1e-3),
        privacy=st.NoDP(),
        rounds=rounds,
        local_steps=local_steps,
        **changes,
    )
    return [text.partition(":")[0] for text in notices(terms, terms.axes(head=True), local_steps)]


@pytest.mark.parametrize(
    ("method", "enough", "field"),
    [
        (st.methods.COLA(fold_every=4), {"rounds": 4}, "fold_every"),
        (st.methods.RACLoRA(fold_every=4), {"rounds": 4}, "fold_every"),
        (st.methods.FedFTGSeeded(fold_every=4), {"rounds": 4}, "fold_every"),
        (st.methods.FedSVD(refactor_every=4), {"rounds": 4}, "refactor_every"),
        (st.methods.FedFTG(galore_gap=2), {"local_steps": 2}, "galore_gap"),
        (st.methods.LALoRA(), {"local_steps": 20}, "local_steps"),
        (st.methods.RoLoRA(), {"rounds": 2, "local_steps": 1}, "local_steps"),
    ],
)
def test_what_is_never_come_to_is_said(method, enough, field):
    short = {"rounds": 3, "local_steps": 1} | {k: 1 for k in enough if k == "rounds"}
    if field.endswith("_every"):
        short["rounds"] = 3
    assert said(method, **short) == [field]
    assert said(method, **{"rounds": 3, "local_steps": 2, **enough}) == []


def test_by_default_only_chains_and_galore_are_longer_than_these_runs():
    found = {name: said(method(), local_steps=10) for name, method in built_in().items()}
    told = {name for name, fields in found.items() if fields}
    assert told == {"cola", "rac-lora", "fedftg"}, "GaLore's gap is the paper's, for long runs"


def test_boosters_of_a_higher_rank_are_said_not_to_be_the_papers():
    assert said(st.methods.XGBLoRA()) == []
    assert said(st.methods.XGBLoRA(r=8)) == ["r"]


def test_a_projector_that_only_the_first_step_of_a_round_chooses():
    method = st.methods.FedFTG(galore_gap=3)
    assert said(method) == said(method, proximal_mu=0.1) == ["galore_gap"]
    assert said(method, local_steps=3) == said(method, local_state="carried") == []
