"""The usual rate: one rule, in the file format and in objects."""

import pytest

import silotune as st
from federation.objects import federation
from silotune.aggregation import ServerAdam, ServerMomentum
from silotune.methods import FedIT, FFALoRA, LoRARITE, built_in
from silotune.methods.rates import usual_kind, usual_optimizer, usual_rate
from silotune.optim import SGD, AdamW


def test_where_nothing_is_clipped_the_usual_optimiser_divides_the_scale_out():
    for method in built_in().values():
        assert usual_kind(method, None) == "adamw"
        assert usual_kind(method, 1.0) == ("adamw" if method.made_of_adamw else "sgd")


def test_a_rate_goes_by_what_makes_a_step_longer():
    usual = usual_rate(FedIT, "sgd", 1.0)
    assert usual_rate(FFALoRA, "sgd", 1.0) == FFALoRA.rate_scale * usual
    assert usual_rate(FedIT, "sgd", 4.0) == usual / 4  # a clipped step is as long as C
    assert usual_rate(FedIT, "adamw", 4.0) == usual_rate(FedIT, "adamw", 1.0)
    assert usual_rate(FedIT, "sgd", 1.0, momentum=0.9) == pytest.approx(usual / 10)
    assert usual_rate(FedIT, "sgd", 1.0, server=ServerMomentum()) == pytest.approx(usual / 10)
    assert usual_rate(FedIT, "sgd", 1.0, server=ServerAdam()) == usual


def test_methods_that_move_one_factor_take_larger_steps():
    for method in built_in().values():
        assert method.rate_scale > 0
        if method.name in (
            "ffa-lora",
            "head-only",
            "fed-sb",
            "fedask",
            "fedsvd",
            "lora-fa",
            "rac-lora",
        ):
            assert method.rate_scale > FedIT.rate_scale


def test_objects_take_the_usual_one_and_any_that_is_given(tmp_path):
    private, free = st.ExampleDP(target_epsilon=6, max_grad_norm=2.0), st.NoDP()
    for method, privacy, expected in (
        (FedIT(r=2), private, SGD(lr=usual_rate(FedIT, "sgd", 2.0))),
        (FFALoRA(r=2), free, AdamW(lr=usual_rate(FFALoRA, "adamw"))),
        (LoRARITE(r=2), private, AdamW(lr=usual_rate(LoRARITE, "adamw", 2.0))),
    ):
        changes = {"method": method, "privacy": privacy}
        described = federation(tmp_path, optimizer=None, **changes)
        assert described.terms.optimizer == expected == usual_optimizer(method, privacy)
        assert (
            federation(tmp_path, **changes | {"optimizer": AdamW(lr=7.0)}).terms.optimizer.lr == 7
        )
    said = federation(tmp_path, optimizer=None).terms.moved_by
    assert said == f"adamw, learning rate {usual_rate(FFALoRA, 'adamw'):g}"
