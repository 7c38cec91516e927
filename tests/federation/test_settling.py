"""A rate by rule: of public numbers and texts alone, kept by the run, the same at sites."""

import math
from pathlib import Path

import pytest
import torch

import silotune as st
from by_config import saved_config
from federation.objects import federation as in_objects
from federation.objects import tables
from federation.small import small, train
from silotune.cli import audit as audit_verb
from silotune.config import ConfigError, build, load_config, settle
from silotune.core.files import read_json
from silotune.federation import public_numbers, settling
from silotune.federation.plan import forecast
from silotune.federation.settling import settled
from silotune.federation.steepness import public_texts, steepness
from silotune.federation.workers import audit_worker
from silotune.runs.folder import RunFolder
from silotune.terms.opening import open_unproved
from sites.wire import federation as at_sites
from sites.wire import wire

MOMENTUM = st.aggregation.fedopt.ServerMomentum(momentum=0.9)
PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
AUTO = (
    "train.learning_rate=auto",
    "train.optimizer=null",
    "train.server_optimizer=momentum",
    "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3}",
    "data.num_examples={east: 20, west: 20}",
)


def open_rate(model, **changes):
    given = {
        "optimizer": None,
        "learning_rate": "auto",
        "server_optimizer": MOMENTUM,
        "privacy": PRIVATE,
        "num_examples": {"east": 20, "west": 20},
    }
    return in_objects(model, **{**given, **changes})


def test_it_is_how_far_the_difference_of_two_labels_moves(bert):
    """By a step along the gradient, in numbers that are trained and in no others."""
    terms = open_rate(bert, objective=_described()).terms
    model = open_unproved(terms, ("cat", "dog"))
    found = steepness(model, terms, ("cat", "dog"))
    assert found.texts == 6
    norms = []
    adapted = model.trainer.adapted
    adapted.model.double()
    for text in ("a cat", "a dog that barks"):
        for about in ("{}", "This is about {}.", "It says: {}."):
            tokens = model.loaded.tokenizer(about.format(text), return_tensors="pt")
            adapted.load(model.first)

            def difference(tokens=tokens) -> torch.Tensor:
                logits = adapted.model(**{k: tokens[k] for k in ("input_ids", "attention_mask")})
                return logits.logits[0, 0] - logits.logits[0, 1]

            keys = model.plan.only_trained(model.first)
            trained = [p.requires_grad_() for k, p in adapted.tensors.items() if k in keys]
            gradients = torch.autograd.grad(difference(), trained)
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            with torch.no_grad():
                at, step = float(difference()), 1e-4
                for tensor, gradient in zip(trained, gradients, strict=True):
                    tensor.add_(gradient, alpha=step / norm)
                assert (float(difference()) - at) / step == pytest.approx(norm, rel=1e-3)
            norms.append(norm)
    ordered = sorted(norms)
    assert found.norm == pytest.approx((ordered[2] + ordered[3]) / 2, rel=1e-4)


def _described():
    return st.SequenceClassification(
        text="text",
        label="label",
        labels={"cat": "a cat", "dog": "a dog that barks"},
        max_length=32,
    )


def test_a_model_whose_gradients_are_no_numbers_has_no_rate(bert):
    terms = open_rate(bert).terms
    model = open_unproved(terms, ("cat", "dog"))
    with torch.no_grad():
        next(p for p in model.trainer.adapted.model.parameters() if not p.requires_grad).fill_(
            math.nan
        )
    with pytest.raises(ValueError, match=r"^learning_rate: auto measures .* not finite; give a"):
        steepness(model, terms, ("cat", "dog"))


def test_every_label_speaks_once_before_the_next_way_to_say_it():
    found = list(public_texts(("a", "b"), ("an apple", "a boat")))
    assert found[:3] == [("an apple", "a"), ("a boat", "b"), ("This is about an apple.", "a")]
    assert len(found) == 6


def test_no_record_is_read_where_labels_and_sizes_are_declared(place, monkeypatch):
    """Nor is there any: the file is gone."""
    config = small(place, *AUTO)
    (place.parent / "notes.csv").unlink()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a record was read")

    monkeypatch.setattr(public_numbers, "read_tables", refuse)
    one = settled(build(config))
    assert one.terms.optimizer.lr > 0
    [reason] = one.reasons
    assert reason.startswith(f"learning_rate: {one.terms.optimizer.lr:g} by the rule")


def test_records_do_not_change_it(bert):
    rates = [
        settled(open_rate(bert, clients=clients)).terms.optimizer.lr
        for clients in (tables(), {name: rows[::-1][:20] for name, rows in tables().items()})
    ]
    assert rates[0] == rates[1]


def test_a_run_states_its_number_and_keeps_it(place, monkeypatch):
    config = small(place, *AUTO)
    folder = RunFolder(Path(config.output_dir))
    chosen, one = settle(config, folder)
    assert chosen.train.learning_rate == one.terms.optimizer.lr != config.train.learning_rate
    train(chosen, until=0)
    assert saved_config(folder).train.learning_rate == chosen.train.learning_rate
    monkeypatch.setattr(settling, "_ruled", lambda _: pytest.fail("it was chosen again"))
    again, _ = settle(load_config(place, [*AUTO]), folder)
    assert again == chosen
    train(again, resume=True)
    assert f"learning rate {chosen.train.learning_rate:g}" in read_json(folder.run)["optimizer"]


def test_in_python_too_and_run_json_says_why(bert, tmp_path):
    asked = open_rate(bert, lifetime="off")
    run = asked.fit(tmp_path / "run", progress=False)
    rate = run.federation.terms.optimizer.lr
    [why] = read_json(tmp_path / "run" / "run.json")["chosen"]
    assert why.startswith(f"learning_rate: {rate:g} by the rule")
    again = asked.fit(tmp_path / "run", resume=True, progress=False)
    assert again.federation.terms.optimizer.lr == rate
    assert asked.result(tmp_path / "run").federation.terms.optimizer.lr == rate
    assert asked.learning_rate == "auto", "what was described is as it was"


def test_a_plan_says_it(place):
    plan = forecast(build(small(place, *AUTO)))
    assert any(notice.startswith("learning_rate: ") for notice in plan.notices)
    assert "learning rate 0.5" not in plan.optimizer


def test_an_audit_is_of_what_a_run_would_take(place):
    """And a worker of it can be told what that is."""
    subject = audit_verb._subject(str(place), AUTO)
    assert subject.federation.learning_rate is None
    assert audit_worker(subject.federation)


def test_sites_are_offered_the_number(bert, tmp_path):
    changes = {
        "optimizer": None,
        "learning_rate": "auto",
        "server_optimizer": MOMENTUM,
        "privacy": PRIVATE,
    }
    with pytest.raises(ValueError, match=r"num_examples: sites declare how many records"):
        at_sites(bert, **changes).fit(tmp_path / "none", courier=wire(tmp_path, bert))
    asked = at_sites(bert, num_examples=20, **changes)
    asked.fit(tmp_path / "run", courier=wire(tmp_path, bert), progress=False)
    offered = read_json(tmp_path / "run" / "federation.json")["terms"]["optimizer"]["lr"]
    assert offered == settled(asked).terms.optimizer.lr


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("train.learning_rate", "privacy={unit: none}"),
        ("train.learning_rate", "method={name: fedit, r: 2}"),
        ("train.learning_rate", "train.momentum=0.5"),
        ("train.learning_rate", "train.weight_decay=0.1"),
        ("train.learning_rate", "train.optimizer=adamw"),
        ("train.server_optimizer", "train.server_optimizer=none"),
        ("train.lr_scheduler_type", "train.lr_scheduler_type=linear"),
    ],
)
def test_what_has_no_rule_is_refused_by_its_key(place, key, change):
    with pytest.raises(ConfigError, match=rf"{key}: "):
        small(place, *AUTO, change)


_NUMBERS = {"text": "text", "label": "label", "target_mean": 0.0, "target_scale": 1.0}


def test_a_task_without_labels_to_speak_of_has_none(bert):
    with pytest.raises(ValueError, match=r"learning_rate: auto .* leave it out"):
        open_rate(bert, objective=st.Regression(**_NUMBERS))
    with pytest.raises(ValueError, match=r"learning_rate: auto is of the usual optimizer"):
        open_rate(bert, optimizer=st.optim.SGD(lr=1.0))
