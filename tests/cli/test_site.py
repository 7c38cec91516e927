"""At a site: what is asked for is shown, a person's word counts for one offer, books must agree."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

from covering import full
from silotune import ExampleDP, NoDP
from silotune.core.files import read_json, write_json
from silotune.federation.offer import Offer
from silotune.site.home import Home
from silotune.testing.tiny_models import tiny_bert
from sites.offers import offer, terms
from sites.wire import federation, wire

POLICY = """\
policy:
  coordinator: lead
  privacy:
    max_epsilon: 6
    max_delta: 1e-5
    lifetime: {epsilon: 20, delta: 1e-5}
    relations: [add-remove]
    noise: [gaussian, discrete]
  methods: [ffa-lora]
  max_rounds: 100
  max_local_steps: 50
"""


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    """Of a site whose file is in the current folder."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "site.yaml"
    file.write_text(
        f"name: h1\ndata: {{path: notes.csv, num_examples: 3900}}\nhome: home\n"
        f"models: {{'{'1' * 64}': mini}}\n{POLICY}"
    )
    file.chmod(0o600)
    return Home(tmp_path / "home")


def allow(text: str, instead: str) -> None:
    file = Path("site.yaml")
    old = file.read_text()
    assert text in old
    file.write_text(old.replace(text, instead))


def test_nothing_was_offered(home, silotune):
    assert silotune("site", "offers").output == "h1: no run was offered\n"
    assert json.loads(silotune("site", "offers", "--json").stdout)["offers"] == []
    result = silotune("site", "show", "r1")
    assert result.exit_code == 1
    assert "r1: no such run was offered" in result.output


def test_an_offer_is_shown_and_approved(home, silotune):
    home.keep(offer().to_bytes())
    assert "waits for a person" in silotune("site", "offers").output
    shown = silotune("site", "show", "r1")
    assert "what leaves this site" in shown.output
    word = f"r1 --digest {offer().digest[:16]}"
    assert f"silotune site approve {word}" in shown.output
    told = silotune("site", "approve", *word.split())
    assert told.exit_code == 0
    assert f"r1: approved, offer {offer().digest}" in told.output
    assert "takes part" in silotune("site", "offers").output
    assert silotune("site", "refuse", "r1").exit_code == 0
    assert "refuses (policy:approve)" in silotune("site", "offers").output


def test_an_offer_that_is_altered_is_not_the_one_that_was_looked_at(home, silotune):
    home.keep(offer().to_bytes())
    assert "was not shown here" in silotune("site", "approve", "r1").output
    silotune("site", "show", "r1")
    assert silotune("site", "approve", "r1").exit_code == 0
    altered = offer(terms(rounds=21))
    home.keep(altered.to_bytes())
    assert "waits for a person" in silotune("site", "offers").output
    for words, why in (
        (["r1"], "error: r1: the offer, as it is now, was not shown here"),
        (["r1", "--digest", offer().digest[:16]], "error: --digest: is not that of the offer"),
    ):
        result = silotune("site", "approve", *words)
        assert result.exit_code == 1
        assert why in result.output
    assert silotune("site", "approve", "r1", "--digest", altered.digest).exit_code == 0
    assert "takes part" in silotune("site", "offers").output


def test_the_key_of_who_asks_is_shown_where_it_is_known(home, silotune, tmp_path):
    home.keep(offer(coordinator="lead").to_bytes())
    assert "lead, whose key this site does not have" in silotune("site", "show", "r1").output
    said = silotune("federation", "create", "lead", "--sites", "h1", "--with-keys").output
    (told,) = [row for row in said.splitlines() if row.startswith("your key: ")]
    key = told.removeprefix("your key: ").partition(";")[0]
    (kit,) = tmp_path.glob("lead/**/h1.kit")
    assert silotune("site", "join", kit).exit_code == 0
    assert f"lead, key {key}" in silotune("site", "show", "r1").output
    home.keep(offer(coordinator="other").to_bytes())
    assert "other, whose key this site does not have" in silotune("site", "show", "r1").output


def test_a_digest_of_few_digits_could_be_another_ones(home, silotune):
    home.keep(offer().to_bytes())
    result = silotune("site", "approve", "r1", "--digest", offer().digest[:7])
    assert result.exit_code == 1
    assert "give at least 8 digits" in result.output
    assert home.approval("r1") is None


def test_approving_what_the_policy_refuses_is_said_to_be_in_vain(home, silotune):
    home.keep(offer(terms(rounds=101)).to_bytes())
    silotune("site", "show", "r1")
    told = silotune("site", "approve", "r1")
    assert told.exit_code == 0
    assert "refused all the same, by policy.max_rounds in site.yaml" in told.output
    assert "refuses (policy:max_rounds)" in silotune("site", "offers").output
    assert (
        "refused by policy.max_rounds: 101 are asked for" in silotune("site", "show", "r1").output
    )
    allow("max_rounds: 100", "max_rounds: 101")
    assert "takes part" in silotune("site", "offers").output


def test_a_base_that_is_lacking_is_named_with_the_line_that_brings_it(home, silotune):
    lacking = offer(base_files="2" * 64)
    home.keep(lacking.to_bytes())
    line = f"models: {{{'2' * 64}: FOLDER}}"
    assert line in silotune("site", "show", "r1").output
    told = silotune("site", "approve", "r1").output
    assert f"it lacks the base; name its folder in site.yaml: {line}" in told
    rows = json.loads(silotune("site", "offers", "--json").stdout)["offers"]
    assert [row["lacks_base"] for row in rows] == [True]
    said = silotune("site", "offers").output
    assert "lacks the base" in said
    assert "takes part" not in said
    allow("1" * 64, "2" * 64)
    assert "takes part" in silotune("site", "offers").output
    assert line not in silotune("site", "show", "r1").output


def test_everything_that_is_refused_is_shown_at_once(home, silotune):
    home.keep(offer(terms(rounds=101, local_steps=51), coordinator="another").to_bytes())
    said = silotune("site", "show", "r1").output
    for key in ("coordinator", "max_rounds", "max_local_steps"):
        assert f"refused by policy.{key}: " in said


def test_a_file_that_is_wrong_allows_nothing(home, silotune):
    home.keep(offer().to_bytes())
    allow("max_rounds", "max_round")
    for verb in (["offers"], ["show", "r1"], ["approve", "r1"], ["spent"], ["verify", "r1"]):
        result = silotune("site", *verb)
        assert result.exit_code == 1
        assert "policy.max_round: unknown key; did you mean max_rounds?" in result.output
    assert home.approval("r1") is None


def test_another_file_is_named(home, silotune, tmp_path):
    home.keep(offer().to_bytes())
    (tmp_path / "site.yaml").rename(tmp_path / "other.yaml")
    assert silotune("site", "offers").exit_code == 1
    assert "r1" in silotune("site", "offers", "--site", "other.yaml").output


def test_nothing_of_an_offer_reaches_the_terminal_as_it_is(home, silotune):
    home.keep(offer(title="\x1b[2J\x1b]0;x\x07 fine \u202e").to_bytes())
    for words in (["offers"], ["show", "r1"], ["offers", "--json"], ["show", "r1", "--json"]):
        output = silotune("site", *words).output
        assert "fine" in output
        assert not set(output) & set("\x1b\x07\u202e")


def test_a_damaged_offer_hides_no_other(home, silotune):
    home.keep(offer(run="a").to_bytes())
    home.keep(offer(run="b").to_bytes())
    (home.path / "offers" / "a.json").write_bytes(b"{}")
    output = silotune("site", "offers").output
    assert "a.json: damaged" in output
    assert "waits for a person" in output


def test_an_offer_that_cannot_be_judged_hides_no_other(home, silotune, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(importlib.import_module("silotune.site.refusal"), "epsilon_of", fails)
    home.keep(offer(run="a").to_bytes())
    home.keep(offer(run="b", title="another").to_bytes())
    output = silotune("site", "offers").output
    assert output.count("(policy:terms)") == 2


def test_json_has_what_the_words_have(home, silotune):
    home.keep(offer(terms(privacy=ExampleDP(noise_multiplier=0.7))).to_bytes())
    found = json.loads(silotune("site", "show", "r1", "--json").stdout)
    assert found["epsilon"] > 6
    assert found["refused"][0]["key"] == "privacy.max_epsilon"
    assert found["offer"] == home.offer("r1").digest
    assert "what leaves this site" in found["sections"]


def test_a_model_is_opened_for_what_the_policy_allows_alone(home, silotune, bert):
    home.keep(offer().to_bytes())
    result = silotune("site", "show", "r1", "--count")
    assert result.exit_code == 1
    assert "have SHA-256 (there are none), not" in result.output
    allow("1" * 64, "2" * 64)
    result = silotune("site", "show", "r1", "--count")
    assert "is not among this site's; name its folder" in result.output
    home.keep(offer(terms(rounds=101)).to_bytes())
    result = silotune("site", "show", "r1", "--count")
    assert "is not tried on a model" in result.output


@pytest.fixture(scope="module")
def federated(tmp_path_factory):
    """The federation of a run of two sites, and the home of one of them, east."""
    folder = tmp_path_factory.mktemp("federated")
    model = tiny_bert(folder / "bert")
    courier = wire(folder, model)
    privacy = ExampleDP(target_epsilon=8, target_delta=1e-3)
    asked = federation(model, privacy=privacy, rounds=2)
    asked.fit(folder / "run", courier=courier, progress=False)
    return asked, courier.own["east"].home


@pytest.fixture
def ended(home, federated) -> Home:
    """A site, east, that took part in a run which has ended."""
    _, own = federated
    for text, instead in (("name: h1", "name: east"), ("3900", "20"), ("1e-5", "1e-3")):
        allow(text, instead)
    allow("max_epsilon: 6", "max_epsilon: 8")
    shutil.copytree(own, home.path)
    return home


def run_of(home: Home) -> str:
    (found,) = home.offers()
    assert isinstance(found, Offer)
    return found.run


def test_a_certificate_that_agrees_with_the_sites_own_books(ended, silotune):
    result = silotune("site", "verify", run_of(ended))
    assert result.exit_code == 0, result.output
    assert "adds up" in result.output
    assert "the offer, ledger.jsonl" in result.output
    found = json.loads(silotune("site", "verify", run_of(ended), "--json").stdout)
    assert found["ok"]


def test_a_run_that_has_ended_is_not_refused_by_a_policy_that_was_tightened_since(ended, silotune):
    allow("max_rounds: 100", "max_rounds: 1")
    assert "has the result" in silotune("site", "offers").output
    (row,) = json.loads(silotune("site", "offers", "--json").stdout)["offers"]
    assert (row["finished"], row["refused"]) == (True, "policy:max_rounds")


def test_a_result_that_came_early_does_not_hide_that_the_run_may_go_on(ended, silotune):
    """A coordinator may say at any round that it has ended, and ask for the next one."""
    write_json(ended.run(run_of(ended)) / "finished.json", {"round": 1})
    found = " ".join(silotune("site", "offers").output.split())
    assert "has a result of 1 round; waits for a person" in found
    (row,) = json.loads(silotune("site", "offers", "--json").stdout)["offers"]
    assert (row["finished"], row["result_of"]) == (False, 1)


def test_a_certificate_that_lacks_a_charge(ended, silotune):
    """The site was charged once more than the coordinator says."""
    place, run = ended.run(run_of(ended)), run_of(ended)
    text = read_json(place / "certificate.json")
    text["silos"]["east"]["charges"][0]["times"] -= 1
    write_json(place / "certificate.json", text)
    result = silotune("site", "verify", run)
    assert result.exit_code == 1
    assert "does not add up" in result.output
    assert "silo east: charges" in result.output


def test_a_ledger_that_lacks_a_charge(ended, silotune):
    place, run = ended.run(run_of(ended)), run_of(ended)
    ledger = place / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    result = silotune("site", "verify", run)
    assert result.exit_code == 1
    assert "silo east: head" in result.output


@pytest.mark.parametrize(
    ("field", "value"),
    [("relation", "zero-out"), ("target_delta", 1e-4), ("run", "x"), ("max_grad_norm", 2.0)],
)
def test_a_certificate_of_other_terms(ended, silotune, field, value):
    place, run = ended.run(run_of(ended)), run_of(ended)
    text = read_json(place / "certificate.json")
    text[field] = value
    write_json(place / "certificate.json", text)
    found = json.loads(silotune("site", "verify", run, "--json").stdout)
    assert not found["ok"]
    assert any(f["where"] == field and "the offer says" in f["text"] for f in found["findings"])


def test_a_certificate_that_claims_nothing_or_leaves_the_site_out(ended, silotune):
    place, run = ended.run(run_of(ended)), run_of(ended)
    text = read_json(place / "certificate.json")
    del text["silos"]["east"]
    write_json(place / "certificate.json", text)
    assert "silo east: has no account" in silotune("site", "verify", run).output
    write_json(place / "certificate.json", {"unit": "none"})
    result = silotune("site", "verify", run)
    assert result.exit_code == 1
    assert "says none, ledger.jsonl has charges" in result.output
    assert "says none, the offer says example" in result.output


def test_a_certificate_with_an_account_of_somebody_who_was_not_asked(ended, silotune):
    place, run = ended.run(run_of(ended)), run_of(ended)
    text = read_json(place / "certificate.json")
    text["silos"]["evil\x1b[2J"] = text["silos"]["west"]
    write_json(place / "certificate.json", text)
    result = silotune("site", "verify", run)
    assert result.exit_code == 1
    assert "silo evil?[2J: is none of the participants of the offer" in result.output
    assert "\x1b[2J" not in result.output


def test_nothing_of_a_certificate_reaches_the_terminal_as_it_is(ended, silotune):
    place, run = ended.run(run_of(ended)), run_of(ended)
    whole = read_json(place / "certificate.json")
    for field in ("relation", "run", "scope", "unit"):
        write_json(place / "certificate.json", {**whole, field: "\x1b[2J\u202e"})
        result = silotune("site", "verify", run)
        assert result.exit_code == 1
        assert not set(result.output) & set("\x1b\u202e"), field
    silos = {"\x1b[2J": {}, **whole["silos"]}
    write_json(place / "certificate.json", {**whole, "silos": silos})
    assert "\x1b" not in silotune("site", "verify", run).output


@pytest.mark.parametrize(
    "text", [full("[" * 100_000), '{"version": 1, "silos": ' * 10_000, full("[]"), "{}"]
)
def test_a_certificate_that_is_none_is_damaged(ended, silotune, text):
    (ended.run(run_of(ended)) / "certificate.json").write_text(text)
    result = silotune("site", "verify", run_of(ended))
    assert result.exit_code == 1
    assert "damaged" in result.output


def test_a_run_without_a_certificate(ended, silotune):
    (ended.run(run_of(ended)) / "certificate.json").unlink()
    result = silotune("site", "verify", run_of(ended))
    assert result.exit_code == 1
    assert "no certificate has come" in result.output
    assert "no such run was offered" in silotune("site", "verify", "another").output


def test_of_a_run_that_hides_nothing_no_certificate_is_waited_for(home, silotune):
    home.keep(offer(terms(privacy=NoDP())).to_bytes())
    assert "no limit" in silotune("site", "offers").output
    result = silotune("site", "verify", "r1")
    assert result.exit_code == 1
    assert "no certificate comes of it" in " ".join(result.output.split())


def test_what_was_spent_is_told_and_shown_beside_the_next_offer(ended, silotune):
    output = silotune("site", "spent").output
    assert "limit for life: epsilon 20.00 at delta 0.001" in output
    assert run_of(ended) in output
    found = json.loads(silotune("site", "spent", "--json").stdout)
    assert found["limit"] == {"epsilon": 20.0, "delta": 1e-3}
    spent = max(each["life"]["epsilon"] for each in found["sets"])
    assert 0 < spent < 20
    shown = json.loads(silotune("site", "show", run_of(ended), "--json").stdout)
    assert shown["spent_epsilon"] == spent


def test_what_an_offer_trains_is_counted_on_the_sites_own_model(ended, silotune, federated):
    asked, _ = federated
    given = ended.offer(run_of(ended))
    allow(f"{'1' * 64}': mini", f"{given.base_files}': {asked.terms.model}")
    output = silotune("site", "show", given.run, "--count").output
    assert "numbers are trained, and" in output
    assert "which is here" in output
