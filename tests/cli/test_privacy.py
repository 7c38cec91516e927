"""``privacy verify``, and what a run that is not private says of itself."""

import json

from federation.small import PRIVATE
from silotune.core.files import read_json, write_json
from silotune.core.units import epsilon_text

ONE = "train.num_rounds=1"
SEEDED = "privacy.insecure_seeded_noise=true"


def test_a_good_run_adds_up(silotune, place):
    said = silotune("run", "small.yaml", *PRIVATE, ONE).stdout
    assert f"verify:   silotune privacy verify {place / 'run'}" in said
    result = silotune("privacy", "verify", "run")
    assert result.exit_code == 0
    assert "adds up:  every epsilon follows from the charges" in result.stdout
    assert "not shown: that the noise was really drawn" in result.stdout
    assert "not shown: that the records were what they were said to be" in result.stdout
    assert "not shown: that nobody who owns every file wrote all of them anew" in result.stdout
    assert "sites/west/ledger.jsonl" in result.stdout
    found = json.loads(silotune("privacy", "verify", "run", "--json").stdout)
    assert (found["ok"], found["private"], found["findings"]) == (True, True, [])
    assert found["silos"]["east"]["epsilon_rdp"] > found["silos"]["east"]["epsilon"] > 0
    assert len(found["not_shown"]) == 5
    assert found["not_compared"] == []
    alone = silotune("privacy", "verify", "run/privacy.json")
    assert alone.exit_code == 0
    assert "alone; no ledger to compare" in alone.stdout


def test_a_touched_certificate_is_refused_with_exit_code_1(silotune, place):
    silotune("run", "small.yaml", *PRIVATE, ONE)
    data = read_json(place / "run" / "privacy.json")
    data["silos"]["east"]["epsilon"] /= 2
    write_json(place / "run" / "privacy.json", data)
    result = silotune("privacy", "verify", "run", "--json")
    assert result.exit_code == 1
    assert "does not add up  silo east: epsilon: says" in result.stderr
    assert "refused:  1 finding; do not rely on this certificate" in result.stderr
    found = json.loads(result.stdout)
    assert (found["ok"], found["private"]) == (False, False)
    assert [finding["where"] for finding in found["findings"]] == ["silo east: epsilon"]


def test_silos_sign_and_others_demand_it(silotune, place):
    silotune("run", "small.yaml", *PRIVATE, ONE)
    assert silotune("privacy", "verify", "run", "--require-signatures").exit_code == 1
    result = silotune("privacy", "sign", "run", "--silo", "east", "--json")
    assert result.exit_code == 0
    east = json.loads(result.stdout)["keys"]["east"]
    result = silotune("privacy", "verify", "run", "--key", f"east={east}")
    assert result.exit_code == 0
    assert "signed:   by east" in result.stdout
    result = silotune("privacy", "verify", "run", "--require-signatures")
    assert result.exit_code == 1
    assert "signature of west: is missing" in result.stderr + result.stdout
    assert silotune("privacy", "sign", "run").exit_code == 0
    assert silotune("privacy", "verify", "run", "--require-signatures").exit_code == 0
    other = "--key", f"west={east}"
    assert "is by another key" in "".join(_said(silotune("privacy", "verify", "run", *other)))


def test_what_cannot_be_signed_or_demanded_is_a_sentence(silotune, place):
    silotune("run", "small.yaml", *PRIVATE, ONE)
    for words, said in (
        (("verify", "run", "--key", "east"), "key: give SILO=PUBLIC"),
        (("verify", "run", "--key", "east=12"), "is no public key"),
        (("sign", "run", "--silo", "north"), "silo: "),
        (("sign", "nowhere"), "no run is here"),
    ):
        result = silotune("privacy", *words)
        assert result.exit_code == 1
        assert said in result.stderr


def _said(result):
    return result.stdout, result.stderr


def test_what_is_not_there_is_a_sentence(silotune, place):
    result = silotune("privacy", "verify", "nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: nowhere")
    assert "verify" in silotune("privacy", "--help").stdout


def test_an_insecure_run_says_not_private_wherever_one_looks(silotune, place):
    result = silotune("run", "small.yaml", *PRIVATE, SEEDED, ONE)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(
        line.startswith("notice: privacy.insecure_seeded_noise: NOT PRIVATE") for line in lines
    )
    assert any("(NOT PRIVATE: seeded noise)" in line for line in lines if line.startswith("round"))
    assert any(line.startswith("privacy:  NOT PRIVATE.") for line in lines)
    assert "every record: ε" not in result.stdout
    assert "verify:" not in result.stdout
    run = place / "run"
    assert read_json(run / "run.json")["privacy"].startswith("NOT PRIVATE")
    for page in ("report.html", "adapter/README.md", "privacy.json"):
        text = (run / page).read_text()
        assert "NOT PRIVATE" in text or '"private": false' in text, page
        assert "protected" not in text
    found = json.loads(
        silotune("run", "small.yaml", *PRIVATE, SEEDED, ONE, "--resume", "--json").stdout
    )
    assert (found["private"], found["epsilon"]) == (False, None)
    verified = silotune("privacy", "verify", "run")
    assert verified.exit_code == 0
    assert "adds up, and claims nothing: NOT PRIVATE." in verified.stdout


def test_a_run_without_privacy_has_nothing_to_verify(silotune, place):
    silotune("run", "small.yaml", ONE)
    result = silotune("privacy", "verify", "run")
    assert result.exit_code == 0
    assert "claims nothing: NOT PRIVATE. This run used no privacy mechanism" in result.stdout


def test_a_merged_model_says_it_too(silotune, place):
    silotune("run", "small.yaml", *PRIVATE, SEEDED, ONE)
    silotune("export", "run", "--format", "merged", "--output", "merged")
    text = (place / "merged" / "README.md").read_text()
    assert "**No differential privacy.** Noise and sampling coins came from the seed" in text
    assert silotune("privacy", "verify", "merged/privacy.json").exit_code == 0


def test_what_records_have_paid_is_listed(silotune, place, book_folder):
    for name in ("first", "second"):
        silotune("run", "small.yaml", *PRIVATE, ONE, "--output-dir", name)
    result = silotune("privacy", "spent")
    assert result.exit_code == 0
    assert f"{book_folder}: 2 sets of records" in result.stdout
    assert f"east ({place / 'notes.csv'}): " in result.stdout
    assert "over 2 runs that had, or may have had, a record of this set" in result.stdout
    found = json.loads(silotune("privacy", "spent", str(book_folder), "--json").stdout)
    east, west = found["sets"]
    assert (east["whose"], west["whose"]) == ("east", "west")
    assert [run["rounds"] for run in east["runs"]] == [1, 1]
    assert [run["releases"] for run in east["runs"]] == [{"update": 1}] * 2
    one = read_json(place / "first" / "privacy.json")["silos"]["east"]["epsilon"]
    for run in east["runs"]:
        assert one <= run["life"]["epsilon"] <= 1.01 * one, "at most, on a coarser grid"
    said = read_json(place / "second" / "privacy.json")["silos"]["east"]["lifetime"]
    assert east["life"]["runs"] == 2
    assert said["epsilon"] <= east["life"]["epsilon"] <= 1.01 * said["epsilon"]
    dearer = json.loads(silotune("privacy", "spent", "--delta", "1e-6", "--json").stdout)
    assert dearer["sets"][0]["life"]["epsilon"] > said["epsilon"]


def test_a_second_run_says_at_its_end_what_records_have_paid(silotune, place):
    first = silotune("run", "small.yaml", *PRIVATE, ONE, "--output-dir", "first").stdout
    assert "for life:" not in first
    second = silotune("run", "small.yaml", *PRIVATE, ONE, "--output-dir", "second").stdout
    life = read_json(place / "second" / "privacy.json")["silos"]["east"]["lifetime"]
    told = f"for life: east, west: ε ≤ {epsilon_text(life['epsilon'])} at δ = 0.001 over 2 runs"
    assert told in second
    silotune("run", "small.yaml", *PRIVATE, ONE, SEEDED, "--output-dir", "seeded")
    fourth = silotune("run", "small.yaml", *PRIVATE, ONE, "--output-dir", "fourth").stdout
    assert "for life: east, west: ε ≤ ∞ at δ = 0.001 over 4 runs" in fourth
    assert "a run drew its noise from a seed" in fourth


def test_where_no_book_is_it_is_a_sentence(silotune, place, book_folder):
    result = silotune("privacy", "spent")
    assert result.exit_code == 1
    assert f"error: privacy.lifetime: there is no book in {book_folder}" in result.stderr
    assert not book_folder.exists()


def test_a_seeded_run_is_listed_as_unbounded(silotune, place):
    silotune("run", "small.yaml", *PRIVATE, ONE, SEEDED)
    result = silotune("privacy", "spent")
    assert "for life: ε at most ∞" in result.stdout
    assert "noise from a seed" in result.stdout
