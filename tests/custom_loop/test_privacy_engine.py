"""Somebody's own loop, made private."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup

import custom_loop_toys as toys
from covering import full
from custom_loop_toys import TERMS, bert, collate, gpt2, losses, notes, train
from silotune.adapters import AdaptedModel
from silotune.core import Role
from silotune.custom_loop import LoRA, PrivacyEngine, PrivateLoop, adapt, privacy_engine
from silotune.custom_loop.batch import Records
from silotune.engine import GradientCheckError
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.ledger.entry import SiloStoreError

PAIRS = LoRA(r=4, lora_alpha=16, target_modules=["query", "value"])
NOISE = {"noise_multiplier": 1.5, "target_delta": 1e-3}
SEEDED = {**NOISE, "insecure_seeded_noise": True}
EVERYTHING = ("A", "B", "head")


def model(train=("B", "head"), **fields) -> AdaptedModel:
    return adapt(bert(**fields), PAIRS, train=train)


def sgd(adapted: AdaptedModel, lr: float = 0.1):
    return torch.optim.SGD(adapted.trainable_parameters(), lr=lr)


PROVED = []
"""The usual model, once a first loop has made sure of it."""


def private(adapted=None, optimizer=None, terms=NOISE, **arguments) -> tuple:
    usual = adapted is None and arguments.keys() <= {"folder", "num_examples", "steps"}
    adapted = adapted or model()
    optimizer = optimizer or torch.optim.AdamW(adapted.trainable_parameters(), lr=0.05)
    given = {"dataset": notes(), "num_examples": 80, "collate_fn": collate}
    given |= {"batch_size": 16, "steps": 4}
    with pytest.MonkeyPatch.context() as patch:
        if usual and PROVED:
            patch.setattr(privacy_engine, "check_gradients", lambda *_: None)
        loop = PrivacyEngine(**terms).make_private(
            model=adapted, optimizer=optimizer, **(given | arguments)
        )
    if usual:
        PROVED[:] = [adapted]
    return loop, adapted


def loop_of(adapted, optimizer, mechanism, records=None, steps=3, micro_batch=5) -> PrivateLoop:
    """Without a choice, so that noise may be off."""
    return PrivateLoop(
        mechanism=mechanism,
        steps=steps,
        delta=1e-3,
        relation="add-remove",
        model=adapted,
        tensors={k: p for k, p in adapted.tensors.items() if p.requires_grad},
        optimizer=optimizer,
        records=Records(records or notes(12), collate, micro_batch),
    )


def mechanism(sigma=0.0, norm=math.inf, rate=1.0, expected=12.0, seed=None) -> ExampleLevel:
    return ExampleLevel(
        sampling=Poisson(rate),
        noise=Gaussian(sigma),
        max_grad_norm=norm,
        expected_batch_size=expected,
        insecure_seed=seed,
    )


# ---- what it does


def test_the_quick_start(tmp_path, no_network):
    train = notes()
    base = bert()

    model = adapt(
        base, LoRA(r=8, lora_alpha=16, target_modules=["query", "value"]), train=("B", "head")
    )
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-3)

    private = PrivacyEngine(
        target_epsilon=6, target_delta=1e-5, max_grad_norm=1.0
    ).make_private(
        model=model, optimizer=optimizer, dataset=train, collate_fn=collate,
        num_examples=80, batch_size=16, steps=5, micro_batch_size=4,
    )  # fmt: skip
    schedule = get_linear_schedule_with_warmup(private.optimizer, 2, 5)

    for batch in private.loader:
        for part in batch:
            logits = model(**part["inputs"]).logits
            private.backward(cross_entropy(logits, part["labels"], reduction="none"))
        private.optimizer.step()
        schedule.step()
    spent = private.spent()
    model.save_pretrained(tmp_path)

    assert (spent.steps, spent.delta) == (5, 1e-5)
    assert 5.9 < spent.epsilon <= 6
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_without_noise_and_bound_it_is_a_plain_loop():
    adapted, plain = model(EVERYTHING), model(EVERYTHING)
    with torch.no_grad():
        for p in (adapted, plain):
            for key, t in p.tensors.items():
                if key.role is Role.B:
                    t.fill_(0.1)
    loop = loop_of(adapted, sgd(adapted), mechanism())
    train(loop, adapted)
    optimizer, everyone = sgd(plain), collate(notes(12))
    for _ in range(3):
        optimizer.zero_grad()
        losses(plain, everyone).mean().backward()
        optimizer.step()
    for key, tensor in plain.tensors.items():
        torch.testing.assert_close(adapted.tensors[key], tensor, rtol=1e-4, atol=1e-6)


def test_one_record_moves_a_step_by_no_more_than_the_bound():
    records, norm = notes(13), 0.01
    ends = []
    for some in (records, records[:-1]):
        adapted = model(EVERYTHING)
        loop = loop_of(adapted, sgd(adapted, 1.0), mechanism(norm=norm, expected=1.0), some, 1)
        train(loop, adapted)
        ends.append(torch.cat([p.detach().flatten() for p in adapted.tensors.values()]))
    moved = float((ends[0] - ends[1]).norm())
    assert 0.5 * norm < moved <= norm * 1.001


def test_micro_batches_do_not_change_a_step():
    ends = []
    for size in (1, 5, 100):
        adapted = model()
        loop = loop_of(adapted, sgd(adapted), mechanism(1.0, 0.1, seed=3), micro_batch=size)
        train(loop, adapted)
        ends.append(adapted.extract())
    for other in ends[1:]:
        for key, tensor in ends[0].items():
            torch.testing.assert_close(other[key], tensor, rtol=1e-4, atol=1e-6)


def test_an_empty_batch_takes_a_noised_step_and_is_charged():
    adapted = model()
    before = adapted.extract()
    loop = loop_of(adapted, sgd(adapted), mechanism(1.0, 1.0, rate=1e-9), steps=1)
    batch = next(iter(loop.loader))
    assert list(batch) == []
    loop.optimizer.step()
    after = adapted.extract()
    trained = [k for k in before if adapted.tensors[k].requires_grad]
    assert all(not torch.equal(after[k], before[k]) for k in trained)
    assert all(torch.equal(after[k], before[k]) for k in before.keys() - set(trained))
    assert loop.spent().steps == 1


@pytest.mark.usefixtures("same_secrets")
def test_noise_has_the_size_that_is_stated():
    adapted = model()
    before = adapted.extract()
    loop = loop_of(adapted, sgd(adapted, 1.0), mechanism(2.0, 0.5, rate=1e-9, expected=4.0))
    train(loop, adapted, 1)
    after = adapted.extract()
    moved = torch.cat([(after[k] - before[k]).flatten() for k in before if k.role is not Role.A])
    assert float(moved.std()) == pytest.approx(2.0 * 0.5 / 4.0, rel=0.2)


def test_steps_draw_their_own_coins_and_noise():
    adapted = model()
    loop = loop_of(adapted, sgd(adapted), mechanism(1.0, 1.0, rate=0.5), notes(60), steps=2)
    seen = []
    records = loop._records.parts

    def listen(drawn):
        seen.append(list(drawn))
        return records(drawn)

    loop._records.parts = listen
    train(loop, adapted)
    assert seen[0] != seen[1]
    assert all(10 < len(drawn) < 50 for drawn in seen)


def test_what_is_spent_is_what_the_accountant_says():
    loop, adapted = private()
    assert loop.spent() == (0.0, 1e-3, 0)
    train(loop, adapted, 3)
    assert loop.spent().epsilon == epsilon([loop.mechanism.charge(3)], 1e-3)
    assert len(loop.loader) == 1
    seeded, adapted = private(terms=SEEDED)
    train(seeded, adapted, 1)
    assert seeded.spent().epsilon == math.inf


def test_a_step_is_charged_before_anything_moves():
    adapted = model()
    optimizer = sgd(adapted)
    loop, _ = private(adapted, optimizer)
    before = adapted.extract().digest()

    def fail(*_):
        assert loop.spent().steps == 1
        assert adapted.extract().digest() == before
        raise OSError("broken")

    optimizer.step = fail
    with pytest.raises(OSError, match="broken"):
        train(loop, adapted, 1)
    assert loop.spent().steps == 1
    assert all(p.grad is None for p in adapted.tensors.values())


def test_the_noise_pays_for_all_steps_and_no_more_are_taken():
    loop, adapted = private(terms=TERMS, steps=3)
    train(loop, adapted)
    spent = loop.spent()
    assert spent.steps == 3
    assert 5.9 < spent.epsilon <= 6.0
    assert list(loop.loader) == []
    with pytest.raises(ValueError, match="there is no batch to step"):
        loop.optimizer.step()


def test_sizes_are_public():
    with pytest.raises(ValueError, match=r"^num_examples: none is declared"):
        private(dataset=notes(199), num_examples=None)
    loop, _ = private(dataset=notes(287), num_examples=None)
    assert loop.mechanism.sampling.rate == 16 / 280
    loop, _ = private(dataset=notes(87), num_examples=100)
    assert loop.mechanism.sampling.rate == 0.16


@pytest.mark.parametrize(
    "fields",
    [
        full({"noise": "discrete"}),
        {"noise": "discrete", "relation": "replace-one"},
        full({"noise": "discrete", "sampling": "truncated-poisson", "relation": "zero-out"}),
        full({"sampling": "truncated-poisson", "relation": "zero-out", "max_batch_size": 20}),
        {"noise": "correlated", "sampling": "rotation"},
    ],
)
def test_every_mechanism_trains_and_is_priced(fields, tmp_path):
    loop, adapted = private(terms={**NOISE, **fields}, folder=tmp_path)
    train(loop, adapted)
    relation = fields.get("relation", "add-remove")
    assert loop.spent().epsilon == epsilon([loop.mechanism.charge(4)], 1e-3, relation=relation)
    loop.close()


def test_a_language_model_trains_on_every_token_of_its_own_record():
    def loss(model, part):
        logits = model(**part["inputs"]).logits[:, :-1]
        targets = part["inputs"]["input_ids"][:, 1:]
        found = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        mask = part["inputs"]["attention_mask"][:, 1:]
        return (found.view(targets.shape) * mask).sum(1) / mask.sum(1).clamp(min=1)

    adapted = adapt(gpt2(), LoRA(r=2, target_modules=["c_attn"]), train=("A", "B"))
    loop, _ = private(adapted, losses=loss, micro_batch_size=6)
    for batch in loop.loader:
        for part in batch:
            loop.backward(loss(adapted, part))
        loop.optimizer.step()
    assert loop.spent().steps == 4


# ---- optimisers and schedules


def test_schedules_work_on_it():
    adapted = model()
    optimizer = sgd(adapted)
    loop, _ = private(adapted, optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(loop.optimizer, lambda step: 0.5**step)
    train(loop, adapted, 2, schedule)
    assert optimizer.param_groups[0]["lr"] == loop.optimizer.param_groups[0]["lr"] == 0.025
    assert isinstance(loop.optimizer, torch.optim.Optimizer)
    optimizer.param_groups[0]["lr"] = 0.0
    before = adapted.extract().digest()
    train(loop, adapted, 1)
    assert adapted.extract().digest() == before


def test_the_users_optimiser_alone_moves_nothing():
    adapted = model()
    optimizer = sgd(adapted)
    loop, _ = private(adapted, optimizer)
    before = adapted.extract().digest()
    batch = next(iter(loop.loader))
    for part in batch:
        loop.backward(losses(adapted, part))
    optimizer.step()
    assert adapted.extract().digest() == before


# ---- checkpoints


@pytest.mark.parametrize("cut", [1, 3])
def test_a_restored_loop_ends_in_the_same_bits(cut):
    """With seeded noise, which alone can be compared."""
    whole, adapted = private(terms=SEEDED)
    train(whole, adapted)
    first, begun = private(terms=SEEDED)
    train(first, begun, cut)
    state, weights = copy.deepcopy(first.state_dict()), begun.extract()
    again, restored = private(terms=SEEDED)
    restored.load(weights)
    again.load_state_dict(state)
    assert again.spent().steps == cut
    train(again, restored)
    assert again.spent().steps == 4
    assert restored.extract().digest() == adapted.extract().digest()


def test_a_checkpoint_survives_the_disk_and_holds_no_secret(tmp_path):
    loop, adapted = private()
    train(loop, adapted, 2)
    torch.save(loop.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state.keys() == {"version", "run", "taken", "charged", "terms", "optimizer"}
    again, other = private()
    again.load_state_dict(state)
    train(again, other)
    assert again.spent().steps == 4


def test_going_back_gives_no_step_back():
    loop, adapted = private()
    train(loop, adapted, 1)
    state = copy.deepcopy(loop.state_dict())
    train(loop, adapted, 2)
    loop.load_state_dict(state)
    assert loop.spent().steps == 3
    train(loop, adapted)
    assert loop.spent().steps == 4


def test_with_a_folder_every_process_counts(tmp_path):
    loop, adapted = private(folder=tmp_path)
    train(loop, adapted, 1)
    state = copy.deepcopy(loop.state_dict())
    with pytest.raises(SiloStoreError, match="another process"):
        private(folder=tmp_path)
    train(loop, adapted, 2)
    loop.close()
    again, other = private(folder=tmp_path)
    again.load_state_dict(state)
    assert again.spent().steps == 3
    train(again, other)
    assert again.spent().steps == 4
    again.close()
    entries = read_ledger(tmp_path / "ledger.jsonl")
    assert [(e.round, e.attempt) for e in entries] == [(0, 0), (1, 0), (2, 0), (1, 1)]


def test_a_folder_that_comes_later_counts_what_was_before(tmp_path):
    loop, adapted = private()
    train(loop, adapted, 2)
    state = copy.deepcopy(loop.state_dict())
    for left in (2, 1):
        again, other = private(folder=tmp_path)
        again.load_state_dict(state)
        assert len(again.loader) == left
        train(again, other, 1)
        again.close()
    assert [e.charge.steps for e in read_ledger(tmp_path / "ledger.jsonl")] == [2, 1, 1]


def test_the_budget_of_a_folder_does_not_begin_again(tmp_path):
    loop, adapted = private(folder=tmp_path)
    train(loop, adapted, 2)
    state = copy.deepcopy(loop.state_dict())
    loop.close()
    again, other = private(folder=tmp_path)
    with pytest.raises(ValueError, match=r"^folder: holds charges of another.*load_state_dict"):
        next(iter(again.loader))
    stranger, adapted = private()
    train(stranger, adapted, 1)
    with pytest.raises(ValueError, match=r"^folder: holds charges of another"):
        again.load_state_dict(stranger.state_dict())
    again.load_state_dict(state)
    train(again, other)
    assert again.spent().steps == 4
    again.close()
    assert len(read_ledger(tmp_path / "ledger.jsonl")) == 4


def test_a_stream_goes_on_and_never_back(tmp_path):
    stream = {**NOISE, "noise": "correlated", "sampling": "rotation"}
    loop, adapted = private(terms=stream, folder=tmp_path)
    train(loop, adapted, 1)
    early = copy.deepcopy(loop.state_dict())
    train(loop, adapted, 1)
    late = copy.deepcopy(loop.state_dict())
    loop.close()
    again, other = private(terms=stream, folder=tmp_path)
    with pytest.raises(ValueError, match="noise may not be drawn for a step again"):
        again.load_state_dict(early)
    again.load_state_dict(late)
    train(again, other)
    assert again.spent().steps == 4
    again.close()
    with pytest.raises(ValueError, match="folder: correlated noise goes on from a secret key"):
        private(terms=stream)


def test_a_stream_that_is_restored_is_the_stream_that_goes_on(tmp_path):
    stream = {**SEEDED, "noise": "correlated", "sampling": "rotation"}
    whole, adapted = private(terms=stream, folder=tmp_path / "whole")
    train(whole, adapted)
    first, begun = private(terms=stream, folder=tmp_path / "cut")
    train(first, begun, 2)
    state, weights = copy.deepcopy(first.state_dict()), begun.extract()
    first.close()
    again, restored = private(terms=stream, folder=tmp_path / "cut")
    restored.load(weights)
    again.load_state_dict(state)
    train(again, restored)
    assert restored.extract().digest() == adapted.extract().digest()
    whole.close()
    again.close()


def test_a_state_of_another_loop_is_refused():
    loop, adapted = private()
    train(loop, adapted, 1)
    state = loop.state_dict()
    for change in ({"batch_size": 8}, {"steps": 5}, {"terms": {**NOISE, "noise_multiplier": 9.0}}):
        other, _ = private(**change)
        with pytest.raises(ValueError, match="made with other arguments"):
            other.load_state_dict(state)
    other, another = private()
    train(other, another, 1)
    with pytest.raises(ValueError, match="restore into a new one"):
        other.load_state_dict(state)


# ---- the order of calls


def test_calls_out_of_order_are_refused():
    loop, adapted = private(micro_batch_size=3, terms=SEEDED)
    with pytest.raises(ValueError, match="there is no batch to step"):
        loop.optimizer.step()
    with pytest.raises(ValueError, match="no part of a batch is in hand"):
        loop.backward(torch.ones(3))
    loader = iter(loop.loader)
    batch = next(loader)
    with pytest.raises(ValueError, match="not all parts of the batch"):
        loop.optimizer.step()
    for call in (loop.state_dict, lambda: loop.load_state_dict({})):
        with pytest.raises(ValueError, match="a batch is in hand"):
            call()
    parts = iter(batch)
    part = next(parts)
    with pytest.raises(ValueError, match="not all parts of the batch"):
        loop.optimizer.step()
    loop.backward(losses(adapted, part))
    with pytest.raises(ValueError, match="no part of a batch is in hand"):
        loop.backward(losses(adapted, part))
    with pytest.raises(ValueError, match="not all parts of the batch"):
        loop.optimizer.step()
    with pytest.raises(ValueError, match="asked for already"):
        next(iter(batch))
    for part in parts:
        loop.backward(losses(adapted, part))
    with pytest.raises(ValueError, match="closure"):
        loop.optimizer.step(lambda: 0.0)
    with pytest.raises(ValueError, match="last batch was not stepped"):
        next(iter(loop.loader))
    loop.optimizer.step()
    with pytest.raises(ValueError, match="there is no batch to step"):
        loop.optimizer.step()
    assert loop.spent().steps == 1


def test_a_part_without_backward_is_refused():
    loop, _ = private(micro_batch_size=3, terms=SEEDED)
    parts = iter(next(iter(loop.loader)))
    next(parts)
    with pytest.raises(ValueError, match="backward: was not called"):
        next(parts)


def test_a_batch_can_be_given_up_and_is_charged():
    loop, adapted = private(micro_batch_size=3, terms=SEEDED)
    loop.abandon()
    assert loop.spent().steps == 0
    before = adapted.extract().digest()
    next(iter(next(iter(loop.loader))))
    loop.abandon()
    assert adapted.extract().digest() == before
    assert loop.spent().steps == 1
    train(loop, adapted)
    assert loop.spent().steps == 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda found: found.mean(), r"one a record, of shape \(\d+,\), not \(\); use reduction"),
        (lambda found: found[:, None], r"not \(\d+, 1\)"),
        (lambda found: found[:-1], "one a record"),
        (lambda found: 1.0, "not float"),
        (lambda found: found.detach(), "have no graph"),
        (lambda found: found - found.mean(), "depends on others of its part"),
        (lambda found: found / found.sum(), "depends on others of its part"),
    ],
)
def test_losses_that_are_not_one_a_record_are_refused(wrong, words):
    loop, adapted = private(terms=SEEDED)
    part = next(iter(next(iter(loop.loader))))
    with pytest.raises(ValueError, match=words):
        loop.backward(wrong(losses(adapted, part)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda found, labels: found / len(found),
        lambda found, labels: found * (found >= found.detach().median()),
        lambda found, labels: 2 * found / found.detach().mean(),
        lambda found, labels: found * len(found) / (1 + (labels == labels[0]).sum()),
    ],
)
def test_losses_that_others_decide_are_refused_where_they_can_be_compared(wrong):
    def coupled(part):
        return wrong(losses(adapted, part), part["labels"])

    loop, adapted = private(terms=SEEDED, losses=losses)
    part = next(iter(next(iter(loop.loader))))
    with pytest.raises(ValueError, match=r"losses: a record's is .* alone"):
        loop.backward(coupled(part))
    loop, adapted = private(terms=SEEDED, losses=losses)
    train(loop, adapted, 1)


def test_what_is_unfrozen_later_is_refused_by_name():
    adapted = model()
    loop, _ = private(adapted, terms=SEEDED)
    stranger = adapted.model.bert.embeddings.word_embeddings.weight
    for part in next(iter(loop.loader)):
        stranger.requires_grad_(True)
        with pytest.raises(ValueError, match=r"^model: .*word_embeddings\.weight was unfrozen"):
            loop.backward(losses(adapted, part))
        stranger.requires_grad_(False)
        loop.backward(losses(adapted, part))
    assert stranger.grad is None
    loop.optimizer.step()
    pair = next(p for key, p in adapted.tensors.items() if key.role is Role.A)
    pair.requires_grad_(True)
    with pytest.raises(ValueError, match="was unfrozen after make_private"):
        train(loop, adapted, 1)


def test_what_is_priced_cannot_be_replaced():
    loop, _ = private()
    for name in ("steps", "mechanism"):
        with pytest.raises(AttributeError):
            setattr(loop, name, None)


# ---- what is made private


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dataset": []}, "dataset: is empty"),
        ({"dataset": iter([])}, "dataset: must have a length"),
        ({"steps": 0}, "steps: must be a whole number"),
        ({"batch_size": 0}, "batch_size: must be a whole number"),
        ({"micro_batch_size": 0}, "micro_batch_size: must be a whole number"),
        ({"steps": True}, "steps: must be a whole number"),
        ({"batch_size": "8"}, "batch_size: must be a whole number"),
        ({"num_examples": 20.5}, "num_examples: must be a whole number"),
        ({"collate_fn": None}, "collate_fn: must be a function"),
        ({"losses": 5}, "losses: must be a function"),
        ({"folder": 5}, "folder: must be a path"),
        ({"batch_size": 81}, r"^batch_size: must be at most num_examples = 80, not 81; lower it$"),
        ({"num_examples": 5000}, r"^target_delta: must be below"),
        ({"collate_fn": lambda records: {"inputs": {}}}, "found no tensor"),
        ({"collate_fn": lambda records: {"inputs": {"x": torch.ones(4)}}}, "one of input_ids"),
        ({"collate_fn": lambda records: {"input_ids": torch.ones(1, 4).int()}}, "must count"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        private(**arguments)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "^target_epsilon: needed"),
        ({"target_epsilon": 1.0, "noise_multiplier": 1.0}, "^target_epsilon: each determines"),
        ({"noise_multiplier": 0.0}, "^noise_multiplier: must be a positive"),
        ({"noise_multiplier": 1.0, "max_grad_norm": math.inf}, "^max_grad_norm: must be"),
        ({"noise_multiplier": 1.0, "noise": "correlated"}, "^noise: correlated belongs"),
    ],
)
def test_engines_that_promise_nothing_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        PrivacyEngine(**fields)


def test_optimisers_must_hold_what_is_trained_and_nothing_else():
    adapted = model()
    with pytest.raises(ValueError, match=r"optimizer: does not hold .*, which is trained"):
        private(adapted, torch.optim.SGD(adapted.trainable_parameters()[1:], lr=0.1))
    with pytest.raises(ValueError, match="optimizer: holds parameters that are not trained"):
        private(adapted, torch.optim.SGD(adapted.model.parameters(), lr=0.1))
    optimizer = sgd(adapted)
    loop, _ = private(adapted, optimizer)
    with pytest.raises(ValueError, match="add_param_group"):
        loop.optimizer.add_param_group({"params": []})
    stranger = adapted.model.bert.embeddings.LayerNorm.weight
    optimizer.add_param_group({"params": [stranger]})
    with pytest.raises(ValueError, match="optimizer: holds parameters that are not trained"):
        train(loop, adapted, 1)


def test_optimisers_that_do_not_step_alone_are_refused():
    adapted = model()
    with pytest.raises(ValueError, match=r"^optimizer: LBFGS needs a closure"):
        private(adapted, torch.optim.LBFGS(adapted.trainable_parameters()))
    with pytest.raises(ValueError, match=r"^optimizer: must be a torch\.optim\.Optimizer, not Non"):
        PrivacyEngine(**NOISE).make_private(
            model=adapted, optimizer=None, dataset=notes(), batch_size=8, steps=1
        )


def test_models_that_are_not_ours_are_refused():
    plain = bert()
    with pytest.raises(ValueError, match="model: must be what adapt"):
        PrivacyEngine(**NOISE).make_private(
            model=plain,
            optimizer=torch.optim.SGD(plain.parameters(), lr=0.1),
            dataset=notes(),
            batch_size=8,
            steps=1,
        )


def test_a_tensor_that_trains_past_the_mechanism_is_refused():
    adapted = model()
    adapted.model.bert.embeddings.LayerNorm.weight.requires_grad_(True)
    with pytest.raises(
        GradientCheckError, match=r"LayerNorm\.weight: trained, but neither clipped"
    ):
        private(adapted)


class Mixing(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0, keepdim=True)


class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.3, training=True)


@pytest.mark.parametrize(("module", "why"), [(Mixing, "mixes the examples"), (Dropping, "random")])
def test_a_model_that_mixes_records_or_is_random_is_refused(module, why):
    base = bert()
    base.bert.pooler.activation = nn.Sequential(nn.Tanh(), module())
    with pytest.raises(GradientCheckError, match=why):
        private(adapt(base, PAIRS))


class Best(nn.Module):
    def forward(self, x):
        return x * nn.functional.one_hot(x.argmax(dim=-1), x.shape[-1])


def test_a_hard_choice_is_refused_and_one_by_one_is_the_cure():
    adapted = model()
    adapted.model.bert.pooler.activation = Best()
    with pytest.raises(GradientCheckError, match=r"activation \(argmax\) .* micro_batch_size to 1"):
        private(adapted)
    private(adapted, micro_batch_size=1)


class Halved(nn.Module):
    """A map that keeps its weight in half precision."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner.bfloat16()

    def forward(self, x):
        return self.inner(x.bfloat16()).float()


def test_in_half_precision_records_go_one_by_one():
    """Whatever a few made-up records show."""
    base = bert()
    base.bert.pooler.dense = Halved(base.bert.pooler.dense)
    adapted = adapt(base, PAIRS)
    with pytest.raises(GradientCheckError, match=r"half precision .* set micro_batch_size to 1"):
        private(adapted)
    private(adapted, micro_batch_size=1)


class Padded(nn.Module):
    """Adds something of the last column, padding or not."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0.1 * x[:, -1:]


def test_a_model_that_looks_at_padding_is_refused():
    base = bert()
    layer = base.bert.encoder.layer[0].output
    layer.LayerNorm = Padded(layer.LayerNorm)
    with pytest.raises(GradientCheckError, match=r"LayerNorm\S* \(\w+\) mixes the examples"):
        private(adapt(base, PAIRS))


def test_a_module_of_its_own_that_trains_beside_the_model_is_refused():
    loop, adapted = private()
    head = nn.Linear(1, 1)
    for batch in loop.loader:
        for part in batch:
            with pytest.raises(
                ValueError, match=r"reach a parameter of shape \(1, 1\) that is not"
            ):
                loop.backward(head(losses(adapted, part)[:, None])[:, 0])
            return


def test_batch_normalisation_is_refused():
    base = bert()
    base.bert.pooler.activation = nn.BatchNorm1d(16)
    with pytest.raises(ValueError, match="one record cannot be computed alone"):
        private(adapt(base, PAIRS))


def test_the_check_takes_the_users_own_losses_and_made_up_records():
    seen = []

    def own(model, part):
        seen.append(len(part["labels"]))
        found = losses(model, part)
        return found - found.mean() if len(found) > 1 else found

    with pytest.raises(GradientCheckError, match="mixes the examples"):
        private(losses=own, synthetic=collate(notes(3)))
    assert max(seen) == 3


def test_made_up_records_have_nothing_of_real_ones():
    from silotune.custom_loop.made_up import made_up

    form = collate([notes()[0]] * 4)
    a = made_up(form, bert())
    other = collate([{"ids": [39 - i for i in notes()[0]["ids"]], "label": 1}] * 4)
    b = made_up(other, bert())
    assert torch.equal(a["inputs"]["input_ids"], b["inputs"]["input_ids"])
    assert a["inputs"]["input_ids"].max() < toys.VOCABULARY
    assert not torch.equal(a["inputs"]["input_ids"], form["inputs"]["input_ids"])
    assert a["labels"].eq(0).all()
    assert a["inputs"]["attention_mask"].sum(dim=1).tolist() == [3, 5, 4, 6]


def test_tuples_of_tensors_and_the_usual_collate_function():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(torch.tanh(self.body(x)))

    from silotune.adapters import LoRA as Pair
    from silotune.adapters import initial_factors, inject
    from silotune.core import Site

    net = Net()
    sites = [Site("body", net.body, 3, 4), Site("out", net.out, 4, 2)]
    adapted = inject(net, sites, [], Pair(rank=2))
    adapted.load(initial_factors(sites, Pair(rank=2), 0))
    adapted.train_only({Role.B})
    data = torch.utils.data.TensorDataset(torch.randn(40, 3), torch.arange(40) % 2)
    loop = PrivacyEngine(**NOISE).make_private(
        model=adapted,
        optimizer=sgd(adapted),
        dataset=data,
        num_examples=40,
        batch_size=8,
        steps=2,
    )
    for batch in loop.loader:
        for x, y in batch:
            loop.backward(cross_entropy(adapted(x), y, reduction="none"))
        loop.optimizer.step()
    assert loop.spent().steps == 2


def test_the_model_is_left_as_it_was():
    adapted = model()
    adapted.model.eval()
    before = adapted.extract().digest()
    trained = {k for k, p in adapted.tensors.items() if p.requires_grad}
    private(adapted)
    assert adapted.extract().digest() == before
    assert not adapted.model.training
    assert trained == {k for k, p in adapted.tensors.items() if p.requires_grad}
