"""A run that ends with the mean of its last states: what is scored, saved, said, paid and sent."""

import json
from pathlib import Path

import pytest
import torch

import silotune as st
from by_config import evaluate, open_federation, opened
from covering import full
from federation.objects import SEEDED
from federation.results import finished, last_state, logits, tokens
from federation.small import BUDGET, NO_WORKER, PRIVATE, small, train, weights
from silotune.config import ConfigError
from silotune.core import Role
from silotune.core.files import read_json
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.tail_average import NAME
from silotune.federation.results import model_in
from silotune.federation.run import finish, rounds
from silotune.runs.folder import RunFolder
from sites.wire import federation, simulation, wire
from sites.wire import weights as weights_in

TAIL = ("train.tail_average=0.7", "train.num_rounds=4")
"""The last three of four rounds."""

OWN = {"run", "facts", "files", "silos"}
"""What a certificate says of one run alone: names and digests."""

PAID = ("epsilon", "epsilon_rdp", "delta", "steps", "rounds", "sampling_rate", "noise_multiplier")

BOTH, ONE = "method={name: fedit, r: 2}", "method={name: ffa-lora, r: 2}"


@pytest.mark.parametrize("method", [ONE, BOTH], ids=["ffa-lora", "fedit"])
def test_what_is_saved_is_the_mean_and_is_what_was_scored_and_is_said(
    place, bert, tmp_path, method
):
    config = small(place, *TAIL, method)
    records = train(config)
    run = RunFolder(Path(config.output_dir))
    agreement = open_federation(config).agreement
    state = last_state(run)
    result = agreement.result(state)
    heads = (s.factors.only({Role.HEAD}).values() for s in (state, result))
    assert not any(torch.equal(a, b) for a, b in zip(*heads, strict=True))
    found = model_in(run.adapter, agreement.model)
    adapted, batch = agreement.model.trainer.adapted, tokens(bert)
    adapted.load(result.factors, result.folded)
    expected = logits(adapted.model.eval(), batch)
    adapted.load(found.factors, found.folded)
    torch.testing.assert_close(logits(adapted.model, batch), expected, atol=1e-5, rtol=1e-4)
    assert evaluate(run, None).metrics == pytest.approx(records[-1].metrics, rel=1e-4)
    assert read_json(run.run)["averaged"] == [1, 3]
    for page in (run.adapter / "README.md", run.report):
        assert "the mean of those after rounds 2 to 4" in page.read_text()


def test_before_the_tail_a_round_is_scored_as_it_is_and_then_as_the_mean(place):
    with_tail = train(small(place, *TAIL))
    without = train(small(place, TAIL[1], f"output_dir={place.parent / 'plain'}"))
    same = [a.metrics == b.metrics for a, b in zip(with_tail, without, strict=True)]
    assert same == [True, True, True, False, False]  # a mean of one is that one
    assert [a.update_norm for a in with_tail] == [b.update_norm for b in without]


@pytest.mark.parametrize("method", [BOTH, full(ONE)])
def test_a_run_that_was_killed_ends_in_the_same_bits(place, method):
    whole = small(place, *TAIL, method)
    train(whole)
    cut = small(place, *TAIL, method, f"output_dir={place.parent / 'cut'}")
    train(cut, until=2)
    train(cut, resume=True)
    assert weights(cut) == weights(whole)


@pytest.mark.parametrize("hidden", [PRIVATE, full(BUDGET)], ids=["noise", "epsilon"])
def test_nothing_is_paid_for_it(place, hidden):
    """Charges, epsilon and what the certificate says are those of the last state alone."""
    said = []
    for i, tail in enumerate(("0", "0.7")):
        config = small(
            place,
            TAIL[1],
            *hidden,
            f"train.tail_average={tail}",
            f"output_dir={place.parent / str(i)}",
            f"privacy.lifetime.folder={place.parent / f'book {i}'}",
        )
        run = finished(config)
        ledger = (run.site("east") / "ledger.jsonl").read_text().splitlines()
        statement = read_json(run.privacy)
        charged = [json.loads(line)["charge"] for line in ledger]
        paid = {silo: [own[k] for k in PAID] for silo, own in statement["silos"].items()}
        said.append((charged, paid, {k: v for k, v in statement.items() if k not in OWN}))
    assert said[0] == said[1]


def test_a_run_that_ends_before_its_tail_gives_its_last_state(place):
    config = small(place, "train.tail_average=0.25", "train.num_rounds=4")
    with opened(config, [], NO_WORKER, resume=False) as job:
        for record in rounds(job):
            if record.round == 1:
                break
        finish(job, status="stopped: a test")
    run = RunFolder(Path(config.output_dir))
    assert read_json(run.run)["averaged"] == []
    assert "the mean of those" not in (run.adapter / "README.md").read_text()


def test_where_states_have_no_mean_it_is_refused_by_its_key(place):
    for method in ("fedsa-lora", "dora"):
        with pytest.raises(ConfigError, match=r"train\.tail_average: .*set it to 0"):
            small(place, f"method={{name: {method}, r: 2}}", "train.tail_average=0.5")
    with pytest.raises(ConfigError, match=r"train\.tail_average"):
        small(place, "train.tail_average=1.5")
    with pytest.raises(ValueError, match="tail_average: must be a share from 0 to 1"):
        federation(place, tail_average=-0.1)


@pytest.mark.parametrize(
    ("method", "privacy"),
    [("FedIT", st.NoDP()), ("FFALoRA", SEEDED), full("FFALoRA", st.NoDP()), full("FedIT", SEEDED)],
)
def test_sites_score_and_take_the_mean_and_it_is_the_simulations(tmp_path, bert, method, privacy):
    changes = {"method": getattr(st.methods, method)(r=2), "privacy": privacy, "tail_average": 0.7}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    courier = wire(tmp_path, bert)
    federation(bert, **changes).fit(tmp_path / "there", courier=courier, progress=False)
    assert weights_in(tmp_path / "there") == weights_in(tmp_path / "here")
    run = read_json(tmp_path / "there" / "run.json")
    assert run["averaged"] == [0, 2]
    for name in courier.own:
        own = Path(courier.own[name].home) / "runs" / run["run"]
        assert weights_in(own) == weights_in(tmp_path / "here")


def test_clients_that_are_hidden_have_it_too(place):
    client = "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3}"
    config = small(place, *TAIL, client, "train.weighting=uniform", PRIVATE[1])
    run = finished(config)
    memory = load_checkpoint(run.state).state.memory
    assert any(name.startswith(NAME) for name in memory)
    assert read_json(run.run)["averaged"] == [1, 3]
