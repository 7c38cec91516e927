"""``audit`` on the command line: parts, verdict, exit code."""

import json

import pytest

from silotune.audit.step import Verdict
from silotune.cli import audit
from silotune.federation.audit_effort import SHORT, THOROUGH
from silotune.federation.audit_part import Part

PRIVATE = (
    "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3}",
    "data.num_examples={east: 20, west: 20}",
)


def attack(verdict: Verdict, claimed: float, measured: float) -> Part:
    return Part(
        what="step, calibrated",
        verdict=verdict,
        text="attacked",
        claimed=claimed,
        measured=measured,
        delta=1e-5,
        decides=True,
    )


@pytest.mark.parametrize(
    ("part", "code", "said"),
    [
        (attack(Verdict.PASS, 4.377, 3.159), 0, "claimed ε ≤ 4.38, measured ε ≥ 3.15 with 99 %"),
        (attack(Verdict.FAIL, 4.377, 8.67), 1, "FAIL: this is not what is claimed"),
        (attack(Verdict.NO_POWER, 4.377, 0.0), 1, "a fault might not have shown"),
    ],
)
def test_the_verdict_is_the_exit_code(place, silotune, monkeypatch, part, code, said):
    monkeypatch.setattr(audit, "audit", lambda subject, effort, worker: iter([part]))
    result = silotune("audit", "small.yaml", *PRIVATE)
    assert result.exit_code == code
    assert said in result.output
    assert result.output.startswith(part.verdict)


def test_scripts_get_one_line(place, silotune, monkeypatch):
    part = attack(Verdict.PASS, 4.4, 3.2)
    monkeypatch.setattr(audit, "audit", lambda subject, effort, worker: iter([part]))
    result = silotune("audit", "small.yaml", *PRIVATE, "--json")
    found = json.loads(result.stdout)
    assert found["verdict"] == "PASS"
    assert found["parts"][0]["room"] == pytest.approx(1.2)


def test_a_configuration_without_privacy_is_told_so(place, silotune):
    result = silotune("audit", "small.yaml")
    assert result.exit_code == 1
    assert "nothing is claimed" in result.stderr


@pytest.mark.parametrize(("flags", "effort"), [((), SHORT), (("--thorough",), THOROUGH)])
def test_how_deep_it_goes_is_asked_for(place, silotune, monkeypatch, flags, effort):
    asked = []

    def found(subject, effort, worker):
        asked.append((effort, worker[-1]))
        return iter([attack(Verdict.PASS, 4.4, 3.2)])

    monkeypatch.setattr(audit, "audit", found)
    silotune("audit", "small.yaml", *PRIVATE, *flags)
    assert asked == [(effort, "audit-worker")]


@pytest.mark.slow
def test_a_small_configuration_passes(place, silotune, no_network):
    result = silotune("audit", "small.yaml", *PRIVATE, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["verdict"]) == (0, "PASS")
    step = next(p for p in found["parts"] if p["what"] == "step, calibrated")
    assert 0.0 < step["measured"] < step["claimed"]
