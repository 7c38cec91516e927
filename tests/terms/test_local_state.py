"""Carried local state is refused where it is not proved, and where nothing would be carried."""

import pytest

import silotune as st
from silotune.terms import Terms


def terms(method, privacy=None, **changes):
    return Terms(
        model="m",
        objective=st.SequenceClassification(text="t", label="l", labels=("a", "b")),
        method=method,
        optimizer=st.optim.AdamW(lr=1e-3),
        privacy=privacy or st.NoDP(),
        local_state="carried",
        **changes,
    )


@pytest.mark.parametrize(
    "method",
    [
        st.methods.FlexLoRA(),
        st.methods.FLoRA(),
        st.methods.FedSVD(refactor_every=1),
        st.methods.COLA(fold_every=1),
    ],
)
def test_where_every_round_has_another_basis_it_is_refused(method):
    with pytest.raises(ValueError, match=r"local_state: carried would carry nothing.*to fresh"):
        terms(method)
    terms(method, rounds=1)


@pytest.mark.parametrize(
    "method",
    [
        st.methods.LoRARITE(aggregation=st.methods.FlexLoRA()),
        st.methods.LoRAPro(aggregation=st.methods.FlexLoRA(), full_moments=True),
        st.methods.FedSVD(refactor_every=2),
        st.methods.COLA(fold_every=2),
        st.methods.RoLoRA(),
        st.methods.FedExLoRA(),
    ],
)
def test_where_something_outlives_a_round_it_is_not(method):
    assert terms(method).local_state == "carried"


def test_under_client_level_privacy_it_is_refused():
    hidden = st.ClientDP(noise_multiplier=1.0, target_delta=1e-5, max_update_norm=1.0)
    with pytest.raises(ValueError, match="local_state: carried is not proved under ClientDP"):
        terms(st.methods.FFALoRA(), hidden, weighting="uniform")
