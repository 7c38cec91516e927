"""What workers are told and asked besides training comes to what one process does by itself."""

from dataclasses import replace

import pytest

from by_config import open_federation
from federation.small import BUDGET, small
from silotune.config import build
from silotune.core import Role, joined
from silotune.federation import worker_answers
from silotune.federation.identity import whole
from silotune.federation.scoring import Ask, Where, here
from silotune.federation.trained_models import ModelState
from silotune.federation.worker_answers import open_worker, share_of
from silotune.federation.worker_orders import (
    Opening,
    Share,
    answers_frame,
    answers_in,
    measure_in,
    measure_order,
    opening_frame,
    opening_in,
    planned_frame,
    planned_in,
)
from silotune.federation.workers import worker_command
from silotune.runs.folder import RunFolder

BEGAN = "2026-12-01T00:00:00+00:00"


def same(one, other) -> bool:
    tensors = [[a.counts, *a.totals.values(), *a.kept.values()] for a in (one, other)]
    names = [[*a.totals, *a.kept] for a in (one, other)]
    return names[0] == names[1] and all(a.equal(b) for a, b in zip(*tensors, strict=True))


def test_shares_of_the_answers_are_all_answers_to_the_last_bit(place):
    built = open_federation(small(place, "train.per_device_eval_batch_size=1"))
    first = built.agreement.model.first
    moved = first.updated({key: t + 0.1 for key, t in first.only({Role.B}).items()})
    site = built.agreement.model.sites[0]
    folded = {site.name: moved.pair(site.name)}
    models = [ModelState(factors=first), ModelState(factors=moved, folded=folded)]
    asks = [Ask(models, Where("east", "valid")), Ask(models[:1], Where("west", "valid"))]
    whole = here(built)(asks)
    assert not same(*(here(built)([Ask([m], Where("east", "valid"))])[0] for m in models))
    for shares in (1, 2, 5):
        parts = [
            answers_in(answers_frame(share_of(built, *measure_in(order))), whole[0].derive)
            for order in (measure_order(asks, Share(i, shares)) for i in range(shares))
        ]
        ours = [joined(own for own in ask if len(own.counts)) for ask in zip(*parts, strict=True)]
        assert all(map(same, ours, whole))
        assert [a.metrics() for a in ours] == [a.metrics() for a in whole]
    with pytest.raises(ValueError, match=r"splits\.test: there are no such records"):
        share_of(built, [Ask(models, Where("east", "test"))], Share(0, 1))


def test_a_worker_opens_what_it_is_told_and_calibrates_nothing(place, tmp_path, monkeypatch):
    federation = build(small(place, *BUDGET, "privacy.lifetime=off"))
    opening = Opening(federation, "a-run", BEGAN)
    told = opening_in(opening_frame(opening))
    assert (told.run, told.began) == ("a-run", BEGAN)
    assert whole(told.federation) == whole(federation)
    built = open_federation(small(place, *BUDGET))
    planned = built.agreement.planned
    assert planned_in(planned_frame(planned)) == planned != {}
    monkeypatch.setattr("silotune.terms.agreement.planned_charges", None)
    monkeypatch.setattr(worker_answers.os, "dup2", lambda *_: None)
    (tmp_path / "run" / "sites").mkdir(parents=True)
    frames = iter([opening_frame(opening), planned_frame(planned)])
    assert callable(open_worker(RunFolder(tmp_path / "run"), lambda: next(frames)))
    assert next(frames, None) is None
    short = {size: replace(charge, steps=1) for size, charge in planned.items()}
    frames = iter([opening_frame(opening), planned_frame(short)])
    with pytest.raises(ValueError, match="noise: what was handed over for 20 declared records"):
        open_worker(RunFolder(tmp_path / "run"), lambda: next(frames))


def test_what_the_coordinator_cannot_open_either_is_told_by_it_alone(place, tmp_path):
    federation = build(small(place, "model.name_or_path=nowhere", "privacy.lifetime=off"))
    frames = iter([opening_frame(Opening(federation, "a-run", BEGAN))])
    with pytest.raises(StopIteration):  # it waits for what a coordinator without a model never says
        open_worker(RunFolder(tmp_path / "run"), lambda: next(frames))


def test_workers_of_a_pool_share_the_machine(place, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    pool = ("runtime=pool", "workers=3")
    assert build(small(place, *pool)).machine.threads == 2
    assert build(small(place, *pool, "train.threads=5")).machine.threads == 5
    assert build(small(place, "runtime=in-process")).machine.threads is None
    assert worker_command(build(small(place, *pool)))[-1] == "worker"
