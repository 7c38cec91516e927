"""What an audit of transcripts finds in mechanisms that are given to it."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from by_config import build
from federation.small import PRIVATE, small, write_small
from silotune.audit.canaries import silence, silent
from silotune.audit.checks import failed
from silotune.audit.coins import coins_of, rate_of, sampling_checks
from silotune.audit.correlations import correlation_checks, over_rounds
from silotune.audit.noise_claimed import (
    Noise,
    in_claimed_units,
    steps_in_claimed_units,
    still,
)
from silotune.audit.noise_shape import shape_checks
from silotune.audit.public_seeds import coin_checks, seed_checks
from silotune.audit.sensitivity import effect_checks, effects
from silotune.audit.transcript import Course, Transcript, audited, cycle_of, transcribed
from silotune.federation.audit_subject import Stand
from silotune.privacy import ExampleLevel
from silotune.terms import open_model
from silotune.testing.tiny_models import tiny_bert

LABELS, SILOS = ("cat", "dog"), ("east", "west")
RECORDS, ROUNDS = 24, 16


@cache
def _files() -> Path:
    folder = Path(mkdtemp())
    return write_small(folder, tiny_bert(folder / "model"))


@cache
def stand(method: str = "ffa-lora") -> Stand:
    """A tiny BERT as that method adapts it; models are left as they were found."""
    terms = build(small(_files(), *PRIVATE, f"method.name={method}")).terms
    return Stand(model=open_model(terms, LABELS), terms=terms, given=False, about="")


def course(method: str, rounds: int = ROUNDS, steps: int = 0) -> Course:
    steps = steps or max(3, cycle_of(stand(method).model.axes.schedule))
    return Course(rounds=rounds, local_steps=steps, micro_batch=8)


def transcript(
    method: str, used: Mapping[str, object], home: Path, rounds: int = ROUNDS, steps: int = 0
) -> Transcript:
    own = stand(method)
    objective, rows = silence(own.model, own.terms)
    records = {name: (silent(rows, RECORDS), mechanism) for name, mechanism in used.items()}
    trainer, silos = audited(own.model, objective, course(method, rounds, steps), records, home)
    return transcribed(own.model, trainer, silos, course(method, rounds, steps))


def noise_alarms(noises: list[Noise]) -> dict[str, list[str]]:
    groups = {
        "noise": shape_checks(noises),
        "independence": [*correlation_checks(noises), *seed_checks(noises)],
    }
    return {name: [c.what for c in failed(checks)] for name, checks in groups.items()}


def alarms(
    claimed: ExampleLevel,
    made: Callable[[str], object],
    home: Path,
    method: str = "ffa-lora",
    rounds: int = ROUNDS,
    steps: int = 0,
) -> dict[str, list[str]]:
    """What failed of noise, independence and sampling.

    Args:
        claimed: by every silo.
        made: gives the mechanism of a silo that is really at work.
        home: of the silos.
        method: by name.
        rounds: of the run.
        steps: of a round; 0 for as many as an audit takes.
    """
    found = transcript(method, {name: made(name) for name in SILOS}, home, rounds, steps)
    claims = dict.fromkeys(SILOS, claimed)
    noises = in_claimed_units(found, claims)
    checks = sampling_checks(
        found.read, claims, dict.fromkeys(SILOS, RECORDS), rounds * found.local_steps
    )
    for silo in SILOS:
        release = next(n for n in noises if n.of == silo)
        drawn = coins_of(found.read[silo], RECORDS)[: found.local_steps]
        checks += coin_checks(drawn, release, rate_of(claimed))
    sampling = [c.what for c in failed(checks)]
    steps = steps_in_claimed_units(found, claims)
    single = [c.what for c in failed([*shape_checks(steps), *over_rounds(steps)])]
    return {**noise_alarms(noises), "steps": single, "moved": still(found), "sampling": sampling}


def sensitivity_alarms(mechanism: object, method: str = "ffa-lora") -> list[str]:
    """Canaries that move a message too far. The mechanism is used as it is, without `certain`."""
    own = stand(method).model
    found = effects(own, mechanism, own.plan, course(method).local_steps)
    assert not any(effect.unseen for effect in found)
    return [check.what for check in failed(effect_checks(found))]
