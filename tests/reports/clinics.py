"""A run as it really looks: three clinics, twenty rounds, one of them late once."""

import math
from dataclasses import replace

from silotune.core.files import write_json, write_text
from silotune.data.summary import Lengths, SiloSummary
from silotune.methods import FFALoRA
from silotune.runs.facts import SILO_ALONE, RunFacts, Summary
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.privacy_statement import FORMAT, PrivacyStatement, SiloPrivacy
from silotune.runs.scored import Scored

CLINICS = {"north": 1200, "harbour": 800, "hill": 400}
LABELS = ("cardiology", "neurology", "orthopaedics", "paediatrics", "surgery")
ROUNDS = 20


def rounds() -> list[RoundRecord]:
    """The state before training and twenty rounds that approach a plateau."""

    def accuracy(step: int, best: float, wobble: float) -> float:
        return 0.23 + (best - 0.23) * (1 - math.exp(-step / 4)) + 0.012 * math.sin(wobble * step)

    lines = []
    for done in range(ROUNDS + 1):
        score = accuracy(done, 0.87, 2.3)
        silos = {
            name: {"accuracy": accuracy(done, best, 1.7 + i), "loss": 1.6 - best * score}
            for i, (name, best) in enumerate(zip(CLINICS, (0.90, 0.86, 0.81), strict=True))
        }
        late = {"hill": "later than round_deadline (3600 s)"} if done == 8 else {}
        spent = {n: 6 * math.sqrt(done / ROUNDS) * (1 - 0.04 * i) for i, n in enumerate(CLINICS)}
        lines.append(
            RoundRecord(
                round=done - 1,
                seconds=0.0 if done == 0 else 4.1 + 0.2 * math.sin(done),
                bytes_up=0 if done == 0 else (3 - len(late)) * 298_240,
                bytes_down=0 if done == 0 else 3 * 298_240,
                clients=tuple(name for name in CLINICS if name not in late) if done else (),
                missing=late,
                aggregation_error=0.0 if done < 3 else 2.1e-8 * (1.5 + math.sin(done)),
                epsilon=spent if done else {},
                metrics={"accuracy": score, "loss": 1.6 - score},
                silos=silos,
                update_norm=0.0 if done == 0 else 3 / done,
                noise_to_signal=_noise(done),
            )
        )
    return lines


def _noise(done: int) -> float | None:
    """It takes over as less is left to learn; in two of the last rounds nothing else is seen."""
    if done == 0:
        return None
    return math.inf if done in {17, 19} else 0.35 * 1.19**done


def facts() -> RunFacts:
    """What run.json holds."""
    alone = {"north": 0.781, "harbour": 0.702, "hill": 0.544}
    return RunFacts(
        run="triage-7c2f91",
        started="2026-03-02T09:15:04+00:00",
        finished="2026-03-02T09:16:41+00:00",
        status="finished",
        seed=0,
        metric="accuracy",
        versions={"python": "3.12.3", "silotune": "0.1.0", "torch": "2.13.0", "peft": "0.21.2"},
        config_digest="9f2c" * 16,
        model_digest="53aa" * 16,
        parameters={"trained": 75_653, "shared": 75_653, "total": 22_861_961},
        command=("silotune", "run", "examples/triage.yaml", "train.seed=0"),
        host={"device": "cpu", "threads": 2},
        silos={name: {"num_examples": size} for name, size in CLINICS.items()},
        labels=LABELS,
        baselines={SILO_ALONE: {name: {"accuracy": score} for name, score in alone.items()}},
    )


def scored() -> Scored:
    """How its result did on 200 held-out records: each class of 40 is mistaken six times."""
    wrong = [(i, j, 2) for i in range(5) for j in (i + 1, i + 2, i + 3)]
    pairs = sorted([*((i, i, 34) for i in range(5)), *((i, j % 5, n) for i, j, n in wrong)])
    return Scored(
        part="held out",
        records=200,
        metrics={"accuracy": 0.85, "loss": 0.4, "macro_f1": 0.85},
        errors={"loss": 0.05, "macro_f1": 0.021},
        classes=pairs,
        silos={"north": 100, "harbour": 77, "hill": 23},
    )


def statement() -> PrivacyStatement:
    """What privacy.json holds."""
    return PrivacyStatement(
        format=FORMAT,
        run="triage-7c2f91",
        unit="example",
        relation="add-remove",
        mechanism={"sampling": "poisson", "noise": "gaussian", "source": "operating system"},
        sampling="Poisson, coins from the operating system",
        noise="Gaussian on the clipped sum of every step, from the operating system",
        accountant="PLD (dp-accounting 0.6.0), grid 1e-4",
        grid=1e-4,
        cross_check="Rényi divergences",
        adversary="the server, the other silos and whoever sees their messages or the adapter",
        trust_model="each silo trusts itself only",
        max_grad_norm=1.0,
        target_epsilon=6.0,
        target_delta=1e-5,
        silos={
            name: _account(size, sigma, epsilon, 20 if name != "hill" else 19)
            for (name, size), sigma, epsilon in zip(
                CLINICS.items(), (1.42, 1.97, 3.61), (5.98, 5.97, 5.71), strict=True
            )
        },
        overall={
            "epsilon": 5.98,
            "rule": "maximum",
            "holds_if": "records are disjoint by origin",
        },
        recognition={"false_alarms": 0.01, "at_most": 0.183},
        versions={"silotune": "0.1.0", "dp-accounting": "0.6.0"},
        released=("the update of B and of the head after every round", "the final adapter"),
        not_covered=(
            "a person with records at several silos: their epsilons add up",
            "metrics and the split of the data in a simulation",
        ),
        not_claimed=("averaging over silos: every silo's update is seen",),
    )


def seeded() -> PrivacyStatement:
    """The same, of a run whose noise came from the seed."""
    whole = statement()
    return replace(
        whole,
        private=False,
        not_private_because="the seed",
        mechanism={**whole.mechanism, "source": "seed"},
        silos={
            name: replace(
                silo, epsilon=math.inf, epsilon_rdp=math.inf, epsilon_if_secret=silo.epsilon
            )
            for name, silo in whole.silos.items()
        },
        overall={**whole.overall, "epsilon": math.inf},
        recognition={},
    )


def _account(size: int, sigma: float, epsilon: float, rounds: int) -> SiloPrivacy:
    charge = {
        "kind": "poisson",
        "sampling_rate": 128 / size,
        "noise_multiplier": sigma,
        "steps": 10 * rounds,
        "grid_points": 0,
    }
    return SiloPrivacy(
        num_examples=size,
        sampling_rate=128 / size,
        noise_multiplier=sigma,
        steps=10 * rounds,
        rounds=rounds,
        epsilon=epsilon,
        epsilon_rdp=1.06 * epsilon,
        delta=1e-5,
        charges=[{"release": "update", "times": rounds, "charge": charge}],
    )


def summary() -> Summary:
    """What the configuration says."""
    shares = ((5, 3, 2, 1, 1), (1, 2, 4, 2, 1), (1, 1, 1, 3, 2))
    split = {
        name: SiloSummary(
            records=size,
            labels={
                label: round(size * share / sum(of))
                for label, share in zip(LABELS, of, strict=True)
            },
            lengths=Lengths(p50=24, p95=51, max=64),
            duplicates=2,
            empty=0,
        )
        for (name, size), of in zip(CLINICS.items(), shares, strict=True)
    }
    return Summary(
        title="triage",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        task="sequence-classification",
        method="ffa-lora",
        method_title=FFALoRA.title,
        method_words=FFALoRA().description,
        rank=8,
        lora_alpha=8,
        target_modules="query, value",
        data="demo:triage",
        num_rounds=ROUNDS,
        local_steps=10,
        batch_size=128,
        optimizer="sgd, learning rate 0.5",
        evaluation="simulation",
        pooling="mean",
        max_length=64,
        split=split,
    )


def hostile(name: str) -> RunFacts:
    """Facts whose every text is ``name``."""
    return replace(
        facts(),
        run=name,
        status=f"failed: {name}",
        versions={name: name},
        command=(name, name),
        host={"device": name},
        silos={name: {"num_examples": 10}},
        labels=(name,),
        baselines={SILO_ALONE: {name: {"accuracy": 0.5}}},
    )


def write_run(path, lines=None, run=None, privacy=None) -> RunFolder:
    """A result folder on disk; every part can be replaced, privacy is left out unless given."""
    folder = RunFolder.create(path)
    write_json(folder.run, (run or facts()).to_json())
    write_text(folder.config, "model:\n  name_or_path: tiny  # <&>\n")
    for line in rounds() if lines is None else lines:
        folder.append_round(line)
    if privacy is not None:
        write_json(folder.privacy, privacy.to_json())
    return folder
