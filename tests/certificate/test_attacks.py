"""Attacks on the books of a run: each is refused by name, when it goes on and when it is verified.

The forger here is careful: every figure that follows is computed again. What one person who owns
every file can write anew without a trace is shown too, and that a signature ends it.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from by_config import verify
from federation.small import PRIVATE, small, train, write_small
from silotune.certificate.grounds import Grounds
from silotune.certificate.issue import NOTHING_CLAIMED
from silotune.certificate.sentences import Said, sentences
from silotune.core.files import read_json
from silotune.federation.verify import verify as verify_without_the_file_format
from silotune.privacy.accounting.accountant import COARSE, epsilon, epsilon_rdp
from silotune.privacy.accounting.charges import from_json
from silotune.privacy.lifetime.composition import Earlier, life

SILOS = ("east", "west")
ONE = "train.num_rounds=1"
NO_BOOK = "privacy.lifetime=off"
"""Copies of a run are gone on with here, of which a book for life would know too much."""


@pytest.fixture(scope="module")
def cut(tmp_path_factory, bert) -> Path:
    """Where a run stopped after two rounds, with a copy of it after one."""
    stopped = write_small(tmp_path_factory.mktemp("stopped"), bert)
    train(small(stopped, *PRIVATE, NO_BOOK), until=0)
    shutil.copytree(stopped.parent / "run", stopped.parent / "after-one")
    train(small(stopped, *PRIVATE, NO_BOOK), resume=True, until=1)
    return stopped.parent


class Stopped:
    """A run that was killed after two of three rounds, to be gone on with."""

    def __init__(self, cut: Path, run: Path) -> None:
        self.config = small(cut / "small.yaml", *PRIVATE, NO_BOOK, f"output_dir={run}")
        self.run, self.older = run, cut / "after-one"

    def resume(self) -> None:
        train(self.config, resume=True)


@pytest.fixture
def stopped(cut, tmp_path) -> Stopped:
    return Stopped(cut, shutil.copytree(cut / "run", tmp_path / "stopped"))


def findings(run: Path) -> str:
    return "\n".join(f"{f.where}: {f.text}" for f in verify(run).findings)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, data: list[dict], *, chained: bool = False) -> None:
    """A ledger, with the chain as it was, or made anew for every silo."""
    heads: dict[str, tuple[int, str]] = {}
    text = ""
    for old in data:
        line = old
        if chained and "previous" in old:
            number, head = heads.get(old["silo"], (0, ""))
            line = {**old, "line": number + 1, "previous": head}
        written = json.dumps(line, ensure_ascii=False) + "\n"
        heads[line["silo"]] = line.get("line", 0), hashlib.sha256(written.encode()).hexdigest()
        text += written
    path.write_text(text)


def ledgers(run: Path) -> list[Path]:
    return [run / "ledger.jsonl", *(run / "sites" / silo / "ledger.jsonl" for silo in SILOS)]


def head(path: Path) -> str:
    last = path.read_bytes().splitlines(keepends=True)[-1:]
    return hashlib.sha256(last[0]).hexdigest() if last else ""


def tamper(run: Path, change: Callable[[dict], None]) -> None:
    """Change the certificate, and make every figure follow."""
    data = read_json(run / "privacy.json")
    change(data)
    for silo in data["silos"].values():
        charges = [from_json(line["charge"]) for line in silo["charges"]]
        silo["epsilon"] = epsilon(charges, silo["delta"])
        silo["epsilon_rdp"] = epsilon_rdp(charges, silo["delta"])
    data["overall"]["epsilon"] = max(silo["epsilon"] for silo in data["silos"].values())
    (run / "privacy.json").write_text(json.dumps(data))


def without_recognition(data: dict) -> None:
    """It depends on the charges, and is left out by a forger who does not want to compute it."""
    data["recognition"] = {}


# Rounds are struck out.


def strike_rounds(run: Path) -> None:
    """One round of three is left, in ledgers and certificate."""
    for path in ledgers(run):
        write(path, [line for line in lines(path) if line["round"] == 0], chained=True)

    def fewer(data: dict) -> None:
        without_recognition(data)
        for name, silo in data["silos"].items():
            silo["steps"], silo["rounds"] = 2, 1
            silo["charges"][0]["times"], silo["charges"][0]["charge"]["steps"] = 1, 2
            if "head" in silo:
                silo["lines"], silo["head"] = 1, head(run / "sites" / name / "ledger.jsonl")

    tamper(run, fewer)


def test_rounds_that_are_struck_out_still_show_in_the_metrics(finished):
    strike_rounds(finished)
    for silo in SILOS:
        shutil.rmtree(finished / "sites" / silo / "sent")
    said = findings(finished)
    assert (
        "sites/east/ledger.jsonl: has no charge for round 1, in which metrics.jsonl shows that "
        "east took part" in said
    )
    assert "metrics.jsonl: round 2: says that west had spent" in said
    assert "sites/east/ledger.jsonl: holds 1 charges, run.json shows 3 of east" in said


def test_metrics_that_are_cut_as_well_fall_short_of_the_checkpoint(finished):
    strike_rounds(finished)
    metrics = finished / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:2]))
    said = findings(finished)
    assert "metrics.jsonl: has 1 rounds, the checkpoint is of after 3: some were lost" in said
    assert "metrics.jsonl: was changed or swapped" in said
    assert "sites/east/ledger.jsonl: holds 1 charges, but there were at least 3 when round" in said


def test_an_epsilon_of_the_metrics_is_that_of_the_charges(finished):
    metrics = finished / "metrics.jsonl"
    records = lines(metrics)
    records[2]["epsilon"]["east"] /= 2
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "metrics.jsonl: round 1: says that east had spent" in findings(finished)


# More noise is claimed.


def raise_sigma(run: Path, *, chained: bool) -> None:
    """Sigma 10 where it was 2, in every ledger, certificate, configuration, record and metrics."""
    for path in ledgers(run):
        data = lines(path)
        for line in data:
            line["charge"]["noise_multiplier"] = 10.0
        write(path, data, chained=chained)

    def louder(data: dict) -> None:
        without_recognition(data)
        for silo in data["silos"].values():
            silo["noise_multiplier"] = silo["charges"][0]["charge"]["noise_multiplier"] = 10.0

    tamper(run, louder)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["privacy"]["noise_multiplier"] = 10.0
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    described = (run / "federation.json").read_text()
    (run / "federation.json").write_text(
        described.replace('"noise_multiplier": 2.0', '"noise_multiplier": 10.0').replace(
            '"noise_multiplier": 2,', '"noise_multiplier": 10,'
        )
    )
    rewrite_facts(run)
    metrics = lines(run / "metrics.jsonl")
    for record in metrics[1:]:
        charge = {**lines(ledgers(run)[1])[0]["charge"], "steps": 2 * (record["round"] + 1)}
        spent = epsilon([from_json(charge)], 1e-3, grid=COARSE)
        record["epsilon"] = dict.fromkeys(SILOS, spent)
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))


def rewrite_facts(run: Path) -> None:
    """The digest of the configuration that lies there now."""
    from by_config import opening, saved_config
    from silotune.config import build
    from silotune.runs.folder import RunFolder

    facts = read_json(run / "run.json")
    facts["config_digest"] = opening.identity(build(saved_config(RunFolder(run))))
    (run / "run.json").write_text(json.dumps(facts))


def rebind_heads(run: Path) -> None:
    """The certificate's heads, as the ledgers are now."""

    def rebound(data: dict) -> None:
        for name, silo in data["silos"].items():
            silo["head"] = head(run / "sites" / name / "ledger.jsonl")

    tamper(run, rebound)


def rebind_record(run: Path) -> None:
    """The heads in ``run.json``."""
    facts = read_json(run / "run.json")
    for name in SILOS:
        facts["ledgers"][name]["head"] = head(run / "sites" / name / "ledger.jsonl")
    (run / "run.json").write_text(json.dumps(facts))


def rebind_files(run: Path) -> None:
    """Every digest in the certificate."""
    from silotune.runs.digests import digest_of_facts, digests_of
    from silotune.runs.facts import read_facts
    from silotune.runs.folder import RunFolder

    def rebound(data: dict) -> None:
        folder = RunFolder(run)
        data["files"], data["facts"] = digests_of(folder), digest_of_facts(read_facts(folder))

    tamper(run, rebound)


def rebind_silos(run: Path) -> None:
    """What the silos keep beside their ledgers; gone is as good as written anew."""
    for name in SILOS:
        shutil.rmtree(run / "sites" / name / "sent")


def test_more_noise_in_every_book_breaks_the_chain(finished):
    raise_sigma(finished, chained=False)
    said = findings(finished)
    assert "sites/east/ledger.jsonl, line 2: is not chained to the line before it" in said


def test_a_chain_made_anew_is_not_the_one_that_other_files_know(finished):
    """The forger mends one thing after the other, and is refused until he has written all anew."""
    raise_sigma(finished, chained=True)
    said = findings(finished)
    assert (
        "silo east: head: is not that of sites/east/ledger.jsonl: a line of it was changed" in said
    )
    rebind_heads(finished)
    said = findings(finished)
    assert "sites/east/ledger.jsonl: line 3 is not the one that run.json knows" in said
    rebind_record(finished)
    said = findings(finished)
    assert "run.json: is not what the certificate is bound to: it was changed" in said
    assert "metrics.jsonl: was changed or swapped" in said
    rebind_files(finished)
    said = findings(finished)
    assert "has other lines up to 3 than there were when round-000002.bin was sent" in said
    rebind_silos(finished)
    assert findings(finished) == "", "one person who owns every file can write all of them anew"
    assert any("wrote all of them anew" in limit for limit in verify(finished).limits)


# The result is another one.


def test_an_adapter_that_was_swapped_is_refused(finished):
    weights = finished / "adapter" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "adapter/adapter_model.safetensors: was changed or swapped" in findings(finished)


@pytest.mark.parametrize("name", ["adapter_config.json", "silotune.json"])
def test_what_is_said_of_an_adapter_is_bound_too(finished, name):
    (finished / "adapter" / name).write_text("{}")
    assert f"adapter/{name}: was changed or swapped" in findings(finished)


def test_an_adapter_cannot_be_put_beside_or_taken_away(finished):
    (finished / "adapter" / "adapter.silotune").write_bytes(b"mine")
    assert "adapter/adapter.silotune: is not bound by the certificate" in findings(finished)
    (finished / "adapter" / "adapter_model.safetensors").unlink()
    assert "adapter/adapter_model.safetensors: is missing" in findings(finished)


def test_a_certificate_without_digests_is_none_of_an_adapter(finished):
    tamper(finished, lambda data: data.update(files={}))
    assert "adapter_model.safetensors: is not bound by this certificate" in findings(finished)


def test_a_checkpoint_that_was_swapped_is_refused(stopped, finished):
    other = stopped.older / "checkpoint" / "state.bin"
    shutil.copy(other, finished / "checkpoint" / "state.bin")
    said = findings(finished)
    assert "checkpoint/state.bin: was changed or swapped" in said
    assert "checkpoint/state.bin: is of after 1 rounds, metrics.jsonl has 3" in said
    assert "run: says" in said


# Sentences are not what the numbers say.


def nothing_uncovered(data):
    data["not_covered"] = []


def one_less_uncovered(data):
    del data["not_covered"][0]


def everybody_is_the_adversary(data):
    data["adversary"] = "anybody"


def trusts_nobody(data):
    data["trust_model"] = "nobody is trusted"


def never_released(data):
    data["released"] = ["nothing"]


def other_noise(data):
    data["noise"] = "Gaussian, of the best kind"


def other_sampling(data):
    data["sampling"] = "Poisson, and amplified by shuffling"


def other_accountant(data):
    data["accountant"] = "PLD, grid 1e-9"


def checked_twice(data):
    data["cross_check"] = "by three universities"


def claims_more(data):
    data["not_claimed"] = []


def holds_always(data):
    data["overall"]["holds_if"] = "always"


def another_unit(data):
    data["unit"] = "client"


def another_relation(data):
    data["relation"] = "zero-out"


def another_hidden(data):
    data["hidden"] = "everything"


SENTENCES = [
    (nothing_uncovered, "not_covered: lacks: all metrics, notices and pictures of the data"),
    (one_less_uncovered, "not_covered: lacks: all metrics, notices and pictures of the data"),
    (everybody_is_the_adversary, "adversary: is not what follows from the numbers"),
    (trusts_nobody, "trust_model: is not what follows from the numbers"),
    (never_released, "released: lacks: after each round, every silo's trained tensors"),
    (other_noise, "noise: is not what follows from the numbers"),
    (other_sampling, "sampling: is not what follows from the numbers"),
    (other_accountant, "accountant: is not what follows from the numbers"),
    (checked_twice, "cross_check: is not what follows from the numbers"),
    (claims_more, "not_claimed: lacks: amplification by shuffling"),
    (holds_always, "overall: holds_if: is not what follows from the numbers"),
    (another_unit, "unit: is client, but the accounts are those of east, west"),
    (another_relation, "neighbours: is not what follows from the numbers"),
    (another_hidden, "hidden: is not what follows from the numbers"),
]


@pytest.mark.parametrize(("change", "said"), SENTENCES, ids=[c.__name__ for c, _ in SENTENCES])
def test_a_sentence_is_made_from_the_numbers_even_alone(finished, tmp_path, change, said):
    tamper(finished, change)
    alone = Path(shutil.copy(finished / "privacy.json", tmp_path / "alone.json"))
    for path in (alone, finished):
        assert said in findings(path)
        assert not verify(path).private


def test_grounds_that_are_changed_with_their_sentences_are_refused_beside_the_books(
    finished, tmp_path
):
    def public(data):
        data["grounds"]["evaluation"] = "public"
        del data["not_covered"][0]

    tamper(finished, public)
    alone = Path(shutil.copy(finished / "privacy.json", tmp_path / "alone.json"))
    assert findings(alone) == "", "or the test does not test what it says"
    said = findings(finished)
    assert "grounds: evaluation: says public, config.yaml says simulation" in said


# A description is taken away, or only one of two is changed.


def publicly(data):
    """Scores are said to be of public records; adds up alone."""
    data["grounds"]["evaluation"] = "public"
    del data["not_covered"][0]


def test_a_description_that_was_taken_away_is_missed(finished):
    """Nothing else says on what the sentences rest."""
    tamper(finished, publicly)
    (finished / "config.yaml").unlink()
    (finished / "federation.json").unlink()
    said = findings(finished)
    assert "federation.json: is missing: run.json has the digest of it" in said
    assert not verify(finished).private


def test_each_description_is_held_against_the_certificate(finished):
    """A configuration that is as it was does not vouch for the description beside it."""
    description = finished / "federation.json"
    written = read_json(description)
    written["terms"]["eval_every"], written["beside"]["baselines"] = 1, ["pooled"]
    description.write_text(json.dumps(written))
    said = findings(finished)
    assert "grounds: baselines: says [], federation.json says ['pooled']" in said
    written["terms"]["rounds"], written["beside"]["baselines"] = 7, []
    description.write_text(json.dumps(written))
    said = findings(finished)
    assert "federation.json: is not the configuration that run.json has the digest of" in said
    assert "config.yaml: " not in said
    (finished / "federation.json").unlink()
    assert "federation.json: is missing" in findings(finished)


# What no charge of this run shows: a life, what was measured, and the software.

EARLIER = {
    "seeded": False,
    "charges": [
        {
            "release": "update",
            "charge": {
                "kind": "poisson",
                "noise_multiplier": 1.0,
                "sampling_rate": 0.5,
                "steps": 4,
            },
        }
    ],
}
"""A run before this one, by which its records have paid more."""


def lived(data: dict, earlier: Sequence[dict] = (EARLIER,)) -> None:
    """The certificate as it would be with a book in which there are earlier runs; adds up."""
    data["lifetime"], data["grounds"]["recorded"] = "recorded", True
    for silo in data["silos"].values():
        own = [(line["release"], from_json(line["charge"])) for line in silo["charges"]]
        before = [
            Earlier(
                str(i),
                tuple((line["release"], from_json(line["charge"])) for line in run["charges"]),
                run["seeded"],
            )
            for i, run in enumerate(earlier)
        ]
        found = life(before, own, silo["delta"], data["relation"])
        paid = None if math.isinf(found.epsilon) else found.epsilon
        silo["lifetime"] = {
            "runs": found.runs,
            "epsilon": paid,
            "because": found.because,
            "earlier": list(earlier),
        }


def resaid(data: dict) -> None:
    """Sentences that follow from the grounds as they are now."""
    fresh = sentences(
        Said(
            unit=data["unit"],
            relation=data["relation"],
            mechanism=data["mechanism"],
            grid=data["grid"],
            counter=data["versions"]["dp-accounting"],
            finite=True,
            coupling=data["coupling"],
            grounds=Grounds.parse(data["grounds"]),
        )
    )
    data["overall"]["holds_if"] = fresh.pop("holds_if")
    data.update(fresh)


@pytest.fixture
def alone(finished, tmp_path) -> Callable[[Callable[[dict], None]], str]:
    """What is found in a certificate with two runs of life, after a change, without its folder."""

    def found(change: Callable[[dict], None]) -> str:
        data = read_json(finished / "privacy.json")
        lived(data)
        resaid(data)
        change(data)
        file = tmp_path / "alone.json"
        file.write_text(json.dumps(data))
        return findings(file)

    return found


def _east(change: Callable[[dict], None]) -> Callable[[dict], None]:
    return lambda data: change(data["silos"]["east"]["lifetime"])


LIVES = [
    (lambda life: life.update(because="audited"), "lifetime: because: says 'audited'"),
    (lambda life: life.update(certified_by="a friend"), "lifetime: has certified_by, which"),
    (lambda life: life.pop("because"), "lifetime: lacks because"),
    (lambda life: life.update(runs=2.5), "lifetime: runs is no number of runs: 2.5"),
    (lambda life: life.update(epsilon="low"), "lifetime: epsilon is no number: 'low'"),
    (
        lambda life: life.update(runs=3, earlier=[EARLIER, {"seeded": False, "charges": []}]),
        "lifetime: earlier 2 charged nothing",
    ),
    (
        lambda life: life.update(earlier=[{**EARLIER, "whose": "mine"}]),
        "lifetime: earlier 1 has whose, which",
    ),
    (
        lambda life: life.update(earlier=[{**EARLIER, "seeded": "no"}]),
        "lifetime: earlier 1: seeded is neither true nor false",
    ),
    (
        lambda life: life.update(
            earlier=[{**EARLIER, "charges": [{**EARLIER["charges"][0], "free": True}]}]
        ),
        "lifetime: a charge of earlier 1 has free, which",
    ),
    (
        lambda life: life.update(
            earlier=[{**EARLIER, "charges": [{**EARLIER["charges"][0], "release": "gift"}]}]
        ),
        "lifetime: a charge of earlier 1 is for 'gift'",
    ),
]


@pytest.mark.parametrize(("change", "said"), LIVES, ids=[said for _, said in LIVES])
def test_a_life_has_its_fields_and_no_others(alone, change, said):
    assert alone(lambda data: None) == "", "or the test does not test what it says"
    assert f"silo east: {said}" in alone(_east(change))


def test_a_life_that_is_rewritten_is_not_the_one_that_was_found(tmp_path, bert):
    """It adds up by itself: an earlier run is left out, and every figure follows."""
    place = write_small(tmp_path, bert)
    for name in ("first", "second"):
        train(small(place, *PRIVATE, ONE, f"output_dir={tmp_path / name}"))
    run = tmp_path / "second"
    assert findings(run) == ""
    assert read_json(run / "privacy.json")["silos"]["east"]["lifetime"]["runs"] == 2
    tamper(run, lambda data: lived(data, ()))
    forged = shutil.copy(run / "privacy.json", tmp_path / "alone.json")
    assert findings(Path(forged)) == "", "or the test does not test what it says"
    said = findings(run)
    assert "run.json: has the digest of another lifetime, coupling or versions" in said
    assert not verify(run).private


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["coupling"].update(moved=1e-5),
        lambda data: data["coupling"].update(moved_at_large=0.0),
        lambda data: data["versions"].update(silotune="9.9"),
    ],
    ids=["moved", "moved_at_large", "versions"],
)
def test_what_was_measured_and_by_what_is_bound(finished, tmp_path, change):
    tamper(finished, change)
    forged = shutil.copy(finished / "privacy.json", tmp_path / "alone.json")
    assert findings(Path(forged)) == "", "or the test does not test what it says"
    said = findings(finished)
    assert "run.json: has the digest of another lifetime, coupling or versions" in said


COUPLINGS = [
    (lambda found: found.update(moved=-1.0), "moved is -1.0: below 0"),
    (lambda found: found.update(moved_at_large=math.nan), "moved_at_large is nan: not finite"),
    (lambda found: found.update(moved=0.5), "moved is 0.5, more than"),
    (lambda found: found.update(together=0), "together is 0: at least one record goes"),
    (lambda found: found.update(others=-3), "others is -3: below 0"),
    (lambda found: found.update(others=0), "others is 0, though 8 go together"),
    (lambda found: found.update(moved_if_together=0.1), "moved_if_together is 0.1, though"),
    (lambda found: found.update(together=1), "moved is"),
    (lambda found: found.update(proved=1.0), "has proved, which is no field of it"),
    (lambda found: found.pop("moved"), "lacks moved"),
    (lambda found: found.clear(), "is empty, though single records are hidden"),
]


@pytest.mark.parametrize(("change", "said"), COUPLINGS, ids=[said for _, said in COUPLINGS])
def test_a_coupling_is_within_what_the_check_lets_pass(alone, change, said):
    assert f"coupling: {said}" in alone(lambda data: change(data["coupling"]))


# What nobody looks at is not there.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(certified_by="a friend"), "certificate: has certified_by, which"),
        (
            lambda data: data["silos"]["east"].update(audited=True),
            "silo east: has audited, which is no field of it",
        ),
        (lambda data: data["overall"].update(delta=0.0), "overall: has delta, which is no field"),
        (
            lambda data: data["recognition"].update(proved=1.0),
            "recognition: has proved, which is no field",
        ),
        (
            lambda data: data["mechanism"].update(amplified="by shuffling"),
            "mechanism: has amplified, which is no field",
        ),
        (lambda data: data["versions"].update(audit="1.0"), "versions: has audit, which is no"),
    ],
    ids=["certificate", "silo", "overall", "recognition", "mechanism", "versions"],
)
def test_a_certificate_has_no_field_that_nobody_looks_at(alone, change, said):
    assert said in alone(change)


def test_a_certificate_that_claims_nothing_has_nothing_else_either(tmp_path):
    alone = tmp_path / "privacy.json"
    for field in ("epsilon", "silos", "hidden"):
        data = {**NOTHING_CLAIMED, "version": 1, field: 0.1}
        alone.write_text(json.dumps(data))
        assert f"certificate: has {field}, which is no field of it" in findings(alone)


def test_a_record_has_no_field_that_nobody_looks_at(finished):
    facts = read_json(finished / "run.json")
    (finished / "run.json").write_text(json.dumps({**facts, "certified_by": "a friend"}))
    assert "run.json: has certified_by, which is no field of it" in findings(finished)


@pytest.mark.parametrize("status", ["running", "failed: no power", "stopped: interrupted"])
def test_a_certificate_of_an_end_is_of_a_run_that_ended(finished, status):
    facts = read_json(finished / "run.json")
    (finished / "run.json").write_text(json.dumps({**facts, "status": status, "finished": None}))
    said = findings(finished)
    assert f"status: run.json says {status}, but the certificate is bound to files" in said


def test_a_run_that_ended_has_a_time_of_its_end(finished):
    facts = read_json(finished / "run.json")
    (finished / "run.json").write_text(json.dumps({**facts, "finished": None}))
    assert "status: run.json says finished, and not when" in findings(finished)


@pytest.mark.parametrize("place", ["sites/north", "server"])
def test_a_ledger_of_nobody_is_found(finished, place):
    (finished / place).mkdir(parents=True)
    shutil.copy(finished / "sites" / "east" / "ledger.jsonl", finished / place)
    said = findings(finished)
    assert f"{place}/ledger.jsonl: is of no account here" in said


def test_charges_of_a_run_that_claims_nothing_are_found(finished):
    (finished / "privacy.json").write_text(json.dumps({**NOTHING_CLAIMED, "version": 1}))
    said = findings(finished)
    assert "ledger.jsonl: is of no account here" in said
    assert "sites/east/ledger.jsonl: is of no account here" in said


def test_what_was_not_there_is_named(finished):
    assert verify(finished).uncompared == ()
    shutil.rmtree(finished / "sites")
    (finished / "config.yaml").unlink()
    found = verify(finished)
    assert found.ok
    assert found.uncompared == ("sites/east/ledger.jsonl", "sites/west/ledger.jsonl")
    without_yaml = verify_without_the_file_format(finished)
    assert without_yaml.uncompared[0] != "config.yaml"
    (finished / "config.yaml").write_text("privacy: {unit: none}")
    assert verify_without_the_file_format(finished).uncompared[0] == "config.yaml"


def test_what_only_the_run_could_see_is_said_not_to_be_shown(finished, tmp_path):
    measured = "that how records moved each other, and charges of other runs, are as they were"
    assert any(limit.startswith(measured) for limit in verify(finished).limits)


# A run goes on only if nothing was lost.


def lose_folder(stopped: Stopped) -> None:
    shutil.rmtree(stopped.run / "sites" / "east")


def lose_ledger(stopped: Stopped) -> None:
    (stopped.run / "sites" / "east" / "ledger.jsonl").unlink()


def lose_silently(stopped: Stopped) -> None:
    """With all that the silo itself could notice it by."""
    lose_ledger(stopped)
    shutil.rmtree(stopped.run / "sites" / "east" / "sent")


def _keep(stopped: Stopped, kept: slice) -> None:
    place = stopped.run / "sites" / "east"
    ledger = place / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[kept]))
    shutil.rmtree(place / "sent")


def lose_first_line(stopped: Stopped) -> None:
    _keep(stopped, slice(1, None))


def lose_last_line(stopped: Stopped) -> None:
    _keep(stopped, slice(0, -1))


def older_folder(stopped: Stopped) -> None:
    place = stopped.run / "sites" / "east"
    shutil.rmtree(place)
    shutil.copytree(stopped.older / "sites" / "east", place)


def older_silos(stopped: Stopped) -> None:
    shutil.rmtree(stopped.run / "sites")
    shutil.copytree(stopped.older / "sites", stopped.run / "sites")


LOSSES = [
    (lose_folder, "holds 0 charges, ledger.jsonl shows 2 of east"),
    (lose_ledger, "holds 0 charges, ledger.jsonl shows 2 of east"),
    (lose_silently, "holds 0 charges, ledger.jsonl shows 2 of east"),
    (lose_first_line, "line 1: is line 2 of east and comes after line 0: lines were lost"),
    (lose_last_line, "holds 1 charges, ledger.jsonl shows 2 of east"),
    (older_folder, "holds 1 charges, ledger.jsonl shows 2 of east"),
    (older_silos, "holds 1 charges, ledger.jsonl shows 2 of east"),
]


@pytest.mark.parametrize(("lose", "said"), LOSSES, ids=[lose.__name__ for lose, _ in LOSSES])
def test_a_run_that_lost_charges_does_not_go_on_and_is_not_verified(stopped, lose, said):
    assert findings(stopped.run) == "", "or the test does not test what it says"
    lose(stopped)
    before = {path: path.read_bytes() for path in stopped.run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"sites/east/ledger\.jsonl") as refused:
        stopped.resume()
    assert said in str(refused.value)
    assert "Bring the folder of this account back" in str(refused.value) or "bring the file" in str(
        refused.value
    )
    after = {path: path.read_bytes() for path in before if path.is_file()}
    assert after == before, "nothing was written, the copy of the ledgers least of all"
    assert "sites/east/ledger.jsonl" in findings(stopped.run)


def _shown(stopped: Stopped, *, metrics: bool = True, said: bool = True) -> None:
    """The older silo, and a copy of its ledger that is as old; then what else shows it."""
    older_folder(stopped)
    copy = stopped.run / "ledger.jsonl"
    kept = [line for line in lines(copy) if line["silo"] == "west" or line["round"] == 0]
    write(copy, kept)
    if not said:
        shutil.copy(stopped.older / "privacy.json", stopped.run / "privacy.json")
    if not metrics:
        shutil.copy(stopped.older / "metrics.jsonl", stopped.run / "metrics.jsonl")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({}, "holds 1 charges, privacy.json shows 2 of east"),
        (
            {"said": False},
            "has no charge for round 1, in which metrics.jsonl shows that east took part",
        ),
        (
            {"said": False, "metrics": False},
            "has no charge for round 1, in which the checkpoint shows that east took part",
        ),
    ],
    ids=["certificate", "metrics", "checkpoint"],
)
def test_every_other_file_shows_what_a_ledger_lacks(stopped, left, said):
    _shown(stopped, **left)
    with pytest.raises(ValueError, match="resume: ") as refused:
        stopped.resume()
    assert said in findings(stopped.run) or said in str(refused.value)
    assert said.partition("round 1, in which")[2] in str(refused.value)


def test_a_ledger_that_was_written_anew_does_not_go_on(stopped):
    for path in ledgers(stopped.run)[1:]:
        data = lines(path)
        for line in data:
            line["charge"]["noise_multiplier"] = 10.0
        write(path, data, chained=True)
        shutil.rmtree(path.parent / "sent")
    with pytest.raises(ValueError, match=r"line 2 is not the one that ledger\.jsonl knows"):
        stopped.resume()


def test_a_folder_with_charges_and_no_record_begins_no_new_run(stopped):
    for name in ("run.json", "config.yaml", "metrics.jsonl", "checkpoint/state.bin"):
        (stopped.run / name).unlink()
    with pytest.raises(ValueError, match=r"holds the charges of a run whose run\.json is gone"):
        train(stopped.config)


def test_a_run_goes_on_from_a_silo_that_is_ahead(stopped):
    """Killed between the charge and everything that is written after it."""
    for name in ("ledger.jsonl", "metrics.jsonl", "privacy.json", "checkpoint/state.bin"):
        shutil.copy(stopped.older / name, stopped.run / name)
    stopped.resume()
    assert findings(stopped.run) == ""
    charged = [(line["silo"], line["round"]) for line in lines(stopped.run / "ledger.jsonl")]
    assert sorted(charged) == [(silo, i) for silo in SILOS for i in range(3)]
