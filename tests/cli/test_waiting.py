"""``plan`` and ``run`` for sites that nobody is at: what is asked, and how the offer goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from silotune.core.files import read_json, write_json
from silotune.federation.acceptance import SitesRefuseError

ASKED = """\
model: {{name_or_path: {model}, task: sequence-classification}}
data: {{columns: {{text: text, label: label}}, labels: [cat, dog], max_length: 32}}
federation: {{sites: [a, b], kit: north}}
privacy: {{unit: none}}
train: {{num_rounds: 3, local_steps: 2, batch_size: 8}}
evaluation: site
runtime: folder
"""


@pytest.fixture
def asked(tmp_path, bert, monkeypatch, silotune) -> Path:
    """A configuration of two sites, and its federation beside it."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "asked.yaml"
    file.write_text(ASKED.format(model=json.dumps(str(bert))))
    assert silotune("federation", "create", "north", "--sites", "a,b", "--with-keys").exit_code == 0
    return file


def test_a_plan_names_what_sites_have_not_declared_yet(asked, silotune):
    told = silotune("plan", "asked.yaml")
    assert told.exit_code == 1
    assert "num_examples=300, or of each num_examples='{a: 300, ...}'" in told.stderr
    for words in ("num_examples=300", "num_examples={a: 300, b: 200}"):
        assert silotune("plan", "asked.yaml", words).exit_code == 0


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_kit_that_is_not_there(asked, silotune, verb):
    told = silotune(verb, "asked.yaml", "federation.kit=south", "num_examples=300")
    assert told.exit_code == 1
    assert told.stderr.startswith("error: federation.kit: there is no federation in south; ")


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the offer stays. Continue with: "),
        (
            SitesRefuseError("sites: a: no"),
            1,
            "the offer stays. When it is mended, continue with: ",
        ),
    ],
)
def test_who_stops_waiting_is_told_how_the_offer_goes_on(
    asked, silotune, monkeypatch, ends, code, said
):
    def waits(*_):
        raise ends

    monkeypatch.setattr("silotune.federation.acceptance.Offering.accepted", waits)
    told = silotune("run", "asked.yaml", "train.num_rounds=2")
    assert told.exit_code == code
    again = "silotune run asked.yaml train.num_rounds=2 --output-dir runs/asked --resume"
    assert said + again in told.stdout
    before = json.loads(Path("runs/asked/offer.json").read_text())
    assert silotune(*again.split()[1:]).exit_code == code
    assert json.loads(Path("runs/asked/offer.json").read_text()) == before


def test_a_run_that_has_not_ended_has_no_certificate_yet(place, silotune):
    assert silotune("run", "small.yaml", "train.num_rounds=1").exit_code == 0
    facts = Path("run/run.json")
    Path("run/privacy.json").unlink()
    assert "privacy.json: is missing" in silotune("privacy", "verify", "run").stderr
    write_json(facts, read_json(facts) | {"status": "stopped: interrupted"})
    told = silotune("privacy", "verify", "run").stderr
    assert told.startswith("error: run: no certificate is there yet; it comes when the run ends")
    assert "this one is stopped: interrupted; go on with --resume" in told
