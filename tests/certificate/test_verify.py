"""A certificate that adds up passes; one that was touched is refused, by name."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from by_config import verify
from covering import full
from federation.small import PRIVATE, charge_again, small, train, write_small
from silotune.certificate.consistency import tolerance
from silotune.certificate.guarantee import RELATIONS
from silotune.core import RecordError
from silotune.core.files import read_json, write_json
from silotune.privacy.accounting.accountant import epsilon, epsilon_rdp
from silotune.privacy.accounting.charges import from_json
from silotune.runs.privacy_statement import read_certificate

SEEDED = "privacy.insecure_seeded_noise=true"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, bert):
    """Result folders by the overrides that made them, each trained once."""
    folders = {}

    def made(*overrides: str) -> Path:
        if overrides not in folders:
            place = write_small(tmp_path_factory.mktemp("trained"), bert)
            unit = ("train.weighting=uniform",) if "privacy.unit=client" in overrides else ()
            config = small(place, *PRIVATE, *unit, *overrides)
            train(config)
            folders[overrides] = Path(config.output_dir)
        return folders[overrides]

    return made


@pytest.fixture
def copy(trained, tmp_path):
    """A run's folder to tamper with."""

    def copied(*overrides: str) -> Path:
        return shutil.copytree(trained(*overrides), tmp_path / "run")

    return copied


def tamper(folder: Path, change) -> None:
    """Change the certificate in place; a change may give another one."""
    data = read_json(folder / "privacy.json")
    data = change(data) or data
    (folder / "privacy.json").write_text(json.dumps(data))


def findings(path: Path) -> str:
    return "\n".join(f"{f.where}: {f.text}" for f in verify(path).findings)


def consistent(data):
    """Every figure computed from the charges again, as a careful forger would."""
    for silo in data["silos"].values():
        charges = [from_json(line["charge"]) for line in silo["charges"]]
        silo["epsilon"] = epsilon(charges, silo["delta"])
        silo["epsilon_rdp"] = epsilon_rdp(charges, silo["delta"])
        life = {"runs": int(bool(charges)), "epsilon": silo["epsilon"], "because": ""}
        silo["lifetime"] = {**life, "earlier": []}
    data["overall"]["epsilon"] = max(silo["epsilon"] for silo in data["silos"].values())
    data["recognition"] = {}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        full(("privacy.noise=gaussian",)),
        full(("privacy.noise=gaussian", "privacy.relation=replace-one")),
        ("privacy.sampling=truncated-poisson", "privacy.relation=zero-out"),
        ("privacy.sampling=rotation", "privacy.noise=correlated"),
        full(("privacy.relation=replace-one",)),
        full(("data.person=silo",)),
        (
            "privacy.count_noise=5",
            "privacy.metric_noise=3",
            "evaluation=site",
            "data.num_held_out=2",
        ),
        full(("train.local_steps=1", "evaluation=site")),
    ],
    ids=lambda overrides: "-".join(o.partition("=")[2] for o in overrides) or "poisson",
)
def test_a_good_certificate_passes(trained, overrides):
    folder = trained(*overrides)
    found = verify(folder)
    assert found.findings == ()
    assert found.ok
    assert found.private
    assert found.compared == (
        "run.json",
        "config.yaml",
        "federation.json",
        "ledger.jsonl",
        "sites/east/ledger.jsonl",
        "sites/west/ledger.jsonl",
        "metrics.jsonl",
        "checkpoint/state.bin",
        "adapter",
    )
    said = read_certificate(folder / "privacy.json")
    assert {n: again.epsilon for n, again in found.silos.items()} == pytest.approx(
        {n: silo.epsilon for n, silo in said.silos.items()}
    )


def test_a_certificate_alone_is_enough(trained, tmp_path):
    shutil.copy(trained() / "privacy.json", tmp_path / "alone.json")
    found = verify(tmp_path / "alone.json")
    assert found.private
    assert found.compared == ()
    assert set(found.silos) == {"east", "west"}


def lower_epsilon(data):
    data["silos"]["east"]["epsilon"] *= 0.9


def raise_epsilon(data):
    data["silos"]["east"]["epsilon"] *= 1.1


def lower_overall(data):
    data["overall"]["epsilon"] *= 0.9


def lower_steps(data):
    data["silos"]["east"]["steps"] -= 2


def lower_rdp(data):
    data["silos"]["east"]["epsilon_rdp"] *= 0.9


def raise_sigma(data):
    data["silos"]["east"]["noise_multiplier"] = 3.0


def lower_rate(data):
    data["silos"]["east"]["sampling_rate"] = 0.1


def drop_charges(data):
    data["silos"]["east"]["charges"] = []


def more_rounds(data):
    data["silos"]["east"]["rounds"] = 9


def large_delta(data):
    for silo in data["silos"].values():
        silo["delta"] = 0.06
    data["target_delta"] = 0.06


def other_delta(data):
    data["silos"]["west"]["delta"] = 1e-4


def small_budget(data):
    data["target_epsilon"] = 0.5


def another_kind(data):
    data["mechanism"]["sampling"] = "rotation"


def no_reason(data):
    data["private"] = False


def nothing_proved(data):
    data["mechanism"]["sampling"] = "truncated-poisson"
    for silo in data["silos"].values():
        charge = silo["charges"][0]["charge"]
        charge |= {"kind": "truncated-poisson", "largest": 32, "num_examples": 20}


def too_coarse_a_grid(data):
    for silo in data["silos"].values():
        silo["charges"][0]["charge"]["grid_points"] = 16


def on_no_grid(data):
    data["silos"]["east"]["charges"][0]["charge"]["grid_points"] = 0


def not_a_number(data):
    data["silos"]["east"]["epsilon"] = math.nan


def claimed_without_noise(data):
    data["silos"]["east"]["epsilon"] = None


def secret_seed(data):
    data["mechanism"]["source"] = "a friend"


def stated_though_secret(data):
    data["silos"]["east"]["epsilon_if_secret"] = 0.1


def better_recognition(data):
    data["recognition"]["at_most"] = 0.001


def other_rule(data):
    data["overall"]["rule"] = "hope"


def unknown_charge(data):
    data["silos"]["east"]["charges"][0]["charge"]["kind"] = "shuffled"


ALONE = [
    (lower_epsilon, r"silo east: epsilon: says .*too low"),
    (raise_epsilon, r"silo east: epsilon: says .*not what they cost"),
    (lower_overall, r"overall: epsilon: says .* the largest of the accounts"),
    (lower_steps, r"silo east: steps: says 4, its charges come to 6"),
    (lower_rdp, r"silo east: epsilon_rdp: says"),
    (raise_sigma, r"silo east: noise_multiplier: says 3, it was charged for 2"),
    (lower_rate, r"silo east: sampling_rate: says 0.1, it was charged for 0.4"),
    (drop_charges, r"silo east: steps: says 6, its charges come to 0"),
    (more_rounds, r"silo east: rounds: says 9"),
    (large_delta, r"silo east: delta: 0.06 is not below 1 / num_examples = 1 / 20"),
    (other_delta, r"silo west: delta: .* is not target_delta"),
    (small_budget, r"silo east: epsilon: .* more than the budget of 0.5"),
    (another_kind, r"silo east: charges: Charge is not the charge of sampling rotation"),
    (no_reason, r"private: is true exactly if"),
    (nothing_proved, r"silo east: charges: have no proved price"),
    (too_coarse_a_grid, r"silo east: charges: grid_points: nothing is proved for discrete noise"),
    (on_no_grid, r"silo east: charges: Charge is not the charge of .* with noise discrete"),
    (not_a_number, r"silo east: epsilon: "),
    (claimed_without_noise, r"silo east: epsilon: is not finite, and yet private is true"),
    (secret_seed, r"mechanism: noise is from 'a friend'"),
    (stated_though_secret, r"silo east: epsilon_if_secret: is stated"),
    (better_recognition, r"recognition: at_most: says 0.001"),
    (other_rule, r"overall: rule: is 'hope', its grounds give maximum"),
    (unknown_charge, r"silo east: charges: a charge must name its kind"),
]


@pytest.mark.parametrize(("change", "said"), ALONE, ids=[change.__name__ for change, _ in ALONE])
def test_what_does_not_follow_is_refused_even_alone(copy, tmp_path, change, said):
    folder = copy()
    tamper(folder, change)
    alone = Path(shutil.copy(folder / "privacy.json", tmp_path / "alone.json"))
    for path in (folder, alone):
        assert re.search(said, findings(path)), findings(path)
        assert not verify(path).private


def fewer_steps(data):
    east = data["silos"]["east"]
    east["steps"] = east["charges"][0]["charge"]["steps"] = 4
    east["rounds"] = east["charges"][0]["times"] = 2


def more_noise(data):
    for silo in data["silos"].values():
        silo["noise_multiplier"] = silo["charges"][0]["charge"]["noise_multiplier"] = 4.0


def rarer_records(data):
    for silo in data["silos"].values():
        silo["sampling_rate"] = silo["charges"][0]["charge"]["sampling_rate"] = 0.1


def more_records(data):
    for silo in data["silos"].values():
        silo["num_examples"] = 90


def smaller_clip(data):
    data["max_grad_norm"] = 0.1


def no_charge(data):
    east = data["silos"]["east"]
    east["charges"], east["steps"], east["rounds"] = [], 0, 0


def one_silo_less(data):
    del data["silos"]["west"]


def another_run(data):
    data["run"] = "0123456789ab"


def another_relation(data):
    data["relation"] = "zero-out"
    data["neighbours"] = RELATIONS["zero-out"].format(noun="record")


def a_budget(data):
    data["target_epsilon"] = 50.0


def another_grid(data):
    for silo in data["silos"].values():
        silo["charges"][0]["charge"]["grid_points"] = 2**19


def hidden_retry(data):
    data["silos"]["east"]["charges"][0]["times"] = 5


FORGED = [
    (
        fewer_steps,
        r"silo east: charges: update: 2 charges of 4 steps here, 3 charges of 6 steps in",
    ),
    (more_noise, r"silo east: noise_multiplier: says 4.0, config.yaml says 2.0"),
    (more_noise, r"silo east: charges: update: 0 charges of 0 steps here, 3 charges of 6 steps in"),
    (rarer_records, r"silo east: charges: config.yaml charges Charge\(sampling_rate=0.4"),
    (more_records, r"silo west: num_examples: says 90, run.json says 20"),
    (smaller_clip, r"max_grad_norm: says 0.1, config.yaml says 1.0"),
    (smaller_clip, r"max_grad_norm: says 0.1, sites/east/ledger.jsonl has 1"),
    (no_charge, r"silo east: charges: update: 0 charges of 0 steps here, 3 charges of 6 steps in"),
    (one_silo_less, r"silos: says \['east'\], run.json says \['east', 'west'\]"),
    (one_silo_less, r"silo west: has charges in ledger.jsonl, and no account here"),
    (another_run, r"run: says 0123456789ab, run.json says"),
    (another_relation, r"relation: says zero-out, config.yaml says add-remove"),
    (a_budget, r"target_epsilon: says 50.0, config.yaml says None"),
    (another_grid, r"silo east: charges: update: 0 charges of 0 steps here, 3 charges of 6 steps"),
    (hidden_retry, r"silo east: charges: update: 5 charges of 6 steps here, 3 charges of 6 steps"),
]


@pytest.mark.parametrize(("change", "said"), FORGED, ids=[change.__name__ for change, _ in FORGED])
def test_a_forgery_that_adds_up_by_itself_is_refused_beside_the_books(copy, tmp_path, change, said):
    folder = copy()
    tamper(folder, change)
    tamper(folder, consistent)
    alone = Path(shutil.copy(folder / "privacy.json", tmp_path / "alone.json"))
    assert findings(alone) == "", "or the test does not test what it says"
    assert re.search(said, findings(folder)), findings(folder)


def test_a_ledger_that_differs_is_found(copy):
    folder = copy()
    ledger = folder / "sites" / "east" / "ledger.jsonl"
    charge_again(ledger, 1)
    assert "3 charges of 6 steps here, 4 charges of 8 steps in sites/east" in findings(folder)
    ledger.write_text('{"version": 3}\n')
    assert "sites/east/ledger.jsonl: " in findings(folder)
    assert "not every charge can be read" in findings(folder)


def test_a_configuration_that_is_not_the_runs_is_found(copy):
    folder = copy()
    config = folder / "config.yaml"
    whole = config.read_text()
    config.write_text(whole.replace("local_steps: 2", "local_steps: 1"))
    said = findings(folder)
    assert "config.yaml: is not the configuration that run.json has the digest of" in said
    assert "silo east: charges: config.yaml charges Charge" in said
    config.write_text(re.sub(r"(?ms)^privacy:$.*?^(?=\w)", "privacy: {unit: none}\n", whole))
    assert "unit: says example, config.yaml hides nothing" in findings(folder)
    config.write_text("privacy: {unit: none}")
    assert "config.yaml: " in findings(folder)


def test_an_insecure_run_claims_nothing_and_that_adds_up(trained):
    found = verify(trained(SEEDED))
    assert found.findings == ()
    assert not found.private
    assert found.statement.largest_epsilon() == math.inf
    assert 0 < found.silos["east"].epsilon < 10


def test_an_insecure_run_must_claim_nothing(copy, tmp_path):
    folder = copy(SEEDED)

    def claim(data):
        data["silos"]["east"]["epsilon"] = 1.0

    tamper(folder, claim)
    assert "silo east: epsilon: is claimed, though the noise came from the seed" in findings(folder)

    def private(data):
        data["private"] = True

    tamper(folder, private)
    assert "private: says true, but the noise came from the seed" in findings(folder)

    def promise(data):
        data["recognition"] = {"false_alarms": 0.01, "at_most": 0.02}

    tamper(folder, lambda data: data.update(private=False))
    tamper(folder, promise)
    assert "recognition: is claimed, though nothing is private" in findings(folder)


def test_the_insecure_flag_cannot_be_taken_away(copy, tmp_path):
    folder = copy(SEEDED)

    def hide(data):
        data["private"], data["not_private_because"] = True, ""
        data["mechanism"]["source"] = "operating system"
        for silo in data["silos"].values():
            silo["epsilon_if_secret"] = None

    tamper(folder, hide)
    tamper(folder, consistent)
    said = findings(folder)
    assert "private: config.yaml says privacy.insecure_seeded_noise: true" in said
    assert "private: says true; run.json says: NOT PRIVATE" in said
    assert not verify(folder).private


def test_damage_is_a_finding_and_no_accident(copy):
    damages = {
        "format": 1,
        "private": "yes",
        "relation": "friends",
        "target_epsilon": "six",
        "mechanism": [],
        "recognition": {"at_most": "none"},
        "silos": {},
    }
    folder = copy()
    whole = (folder / "privacy.json").read_text()
    for field, value in damages.items():
        (folder / "privacy.json").write_text(whole)
        tamper(folder, lambda data, f=field, v=value: data.update({f: v}))
        assert verify(folder).findings, field
    for field in ("epsilon", "steps", "charges", "delta", "epsilon_if_secret"):
        (folder / "privacy.json").write_text(whole)
        tamper(folder, lambda data, f=field: data["silos"]["east"].update({f: "many"}))
        assert verify(folder).findings, field


def test_an_old_certificate_says_why_it_cannot_be_checked(copy):
    folder = copy()

    def old(data):
        del data["format"]
        for silo in data["silos"].values():
            del silo["charges"]

    tamper(folder, old)
    assert findings(folder) == (
        "format: is 1, and only 3 is bound to ledger and adapter; verify it with the silotune that "
        "made it"
    )


def test_no_privacy_claims_nothing(copy):
    folder = copy()
    write_json(folder / "privacy.json", {"unit": "none"})
    assert "ledger.jsonl: is of no account here, and has charges" in findings(folder)
    (folder / "ledger.jsonl").unlink()
    shutil.rmtree(folder / "sites")
    assert findings(folder) == (
        "unit: says none, config.yaml says example\nunit: says none, federation.json says example"
    )
    (folder / "config.yaml").unlink()
    assert findings(folder) == "unit: says none, federation.json says example"
    (folder / "federation.json").unlink()
    assert "federation.json: is missing" in findings(folder)
    (folder / "run.json").unlink()
    found = verify(folder)
    assert found.ok
    assert not found.private


def test_what_is_no_certificate_is_said(tmp_path):
    with pytest.raises(RecordError, match=r"privacy\.json"):
        verify(tmp_path)
    wrong = tmp_path / "privacy.json"
    for text in ("{}", '{"version": 1}', '{"version": 1, "silos": [], "overall": 1}', "x"):
        wrong.write_text(text)
        with pytest.raises(RecordError):
            verify(wrong)


def test_another_version_of_the_library_may_differ_a_little(trained):
    said = read_certificate(trained() / "privacy.json")
    other = read_certificate(trained() / "privacy.json")
    object.__setattr__(other, "versions", {"dp-accounting": "0.0.1"})
    assert tolerance(said) < tolerance(other) < 0.01


def test_an_optional_release_cannot_be_left_out(copy, tmp_path):
    folder = copy(
        "privacy.count_noise=5",
        "privacy.metric_noise=3",
        "evaluation=site",
        "data.num_held_out=2",
    )
    releases = [line["release"] for line in silo_of(folder)["charges"]]
    assert sorted(releases) == ["count", "metric", "update"]

    def forget(data):
        for silo in data["silos"].values():
            silo["charges"] = [line for line in silo["charges"] if line["release"] == "update"]

    tamper(folder, forget)
    tamper(folder, consistent)
    alone = Path(shutil.copy(folder / "privacy.json", tmp_path / "alone.json"))
    assert "silo east: charges: count is said to be released, and not charged" in findings(alone)
    said = findings(folder)
    assert "silo east: charges: count: 0 charges of 0 steps here, 1 charges of 1 steps in" in said
    assert "silo east: charges: metric: 0 charges of 0 steps here, 3 charges of 3 steps in" in said


def silo_of(folder: Path):
    return read_json(folder / "privacy.json")["silos"]["east"]


def test_clients_that_the_server_hides_are_verified_by_its_ledger(copy):
    folder = copy("privacy.unit=client")
    found = verify(folder)
    assert found.findings == ()
    assert found.private
    assert "server/ledger.jsonl" in found.compared

    def rarer(data):
        line = data["silos"]["every client"]["charges"][0]
        data["silos"]["every client"]["sampling_rate"] = line["charge"]["sampling_rate"] = 0.5

    tamper(folder, rarer)
    tamper(folder, consistent)
    said = findings(folder)
    assert "silo every client: charges: config.yaml charges Charge(sampling_rate=1.0" in said
    assert "3 charges of 3 steps in server/ledger.jsonl" in said


def test_a_run_that_goes_on_has_a_certificate_on_the_quick_grid(tmp_path, bert):
    config = small(write_small(tmp_path, bert), *PRIVATE)
    train(config, until=0)
    folder = Path(config.output_dir)
    assert read_json(folder / "privacy.json")["grid"] == 1e-3
    assert findings(folder) == ""
    tamper(folder, lower_epsilon)
    assert "silo east: epsilon: says" in findings(folder)
