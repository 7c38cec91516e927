"""Subject: what an audit is about, made ready for it: mechanisms with secret draws, and a model.

A run is audited from its folder alone: its certificate says how much noise each silo had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from silotune.objectives import find
from silotune.privacy import ClientDP, ExampleDP, ExampleLevel, Poisson, Rotation
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from silotune.privacy.mechanisms_from_choice import client_mechanisms, server_mechanism
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy, read_statement
from silotune.terms import BuiltModel, Terms, open_model

from .built import public_sizes
from .description import Description
from .inputs import read_tables

MOST_TRAINED = 100_000
"""Numbers trained; with more, a tiny model stands in."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is audited.

    Attributes:
        federation: as described.
        sizes: each silo's declared number of records.
        labels: the public label set.
        certificate: of a run; None for a federation that has not run.
    """

    federation: Description
    sizes: Mapping[str, int]
    labels: tuple[str, ...]
    certificate: PrivacyStatement | None = None

    @property
    def terms(self) -> Terms:
        """What was agreed."""
        return self.federation.terms


def of_federation(federation: Description) -> Subject:
    """The data is opened for names, sizes and labels that are not declared.

    Raises:
        ValueError: in words, naming the field.
    """
    terms, records = federation.terms, federation.records
    labels, declared = terms.objective.label_names, records.num_examples
    if labels is not None and isinstance(declared, Mapping):
        return Subject(federation=federation, sizes=declared, labels=labels)
    prepared = read_tables(terms, records)
    true_sizes = {name: len(silo.train) for name, silo in prepared.silos.items()}
    sizes, _ = public_sizes(terms, records, true_sizes)
    return Subject(federation=federation, sizes=sizes, labels=prepared.labels)


def of_run(federation: Description, folder: RunFolder) -> Subject:
    """A run, from its folder alone.

    Args:
        federation: that it is of.
        folder: of the run.

    Raises:
        ValueError: in words, if there is none, or it claims nothing.
    """
    RunFolder.existing(folder.path)
    certificate = read_statement(folder)
    if certificate is None:
        raise ValueError(f"{folder.path}: a run without privacy claims nothing that can be audited")
    return Subject(
        federation=federation,
        sizes={name: silo.num_examples for name, silo in certificate.silos.items()},
        labels=tuple(read_facts(folder).labels),
        certificate=certificate,
    )


def secret_mechanisms(subject: Subject) -> dict[str, ExampleLevel]:
    """Every silo's, with secret draws; of a run, with the noise that its certificate states."""
    terms, certificate = subject.terms, subject.certificate
    if certificate is None:
        found = client_mechanisms(terms.privacy, subject.sizes, terms.training)
    else:
        found = {}
        for name, silo in certificate.silos.items():
            privacy = _with_noise(terms, silo)
            found |= client_mechanisms(privacy, {name: silo.num_examples}, terms.training)
    secret = dict[str, ExampleLevel]()
    for name, mechanism in found.items():
        assert isinstance(mechanism, ExampleLevel)
        secret[name] = replace(mechanism, insecure_seed=None)
    return secret


def secret_server(subject: Subject) -> ClientLevel:
    """The server's, with secret draws; of a run, with the noise that its certificate states."""
    terms, clients = subject.terms, len(subject.sizes)
    privacy = terms.privacy
    if subject.certificate is not None:
        (every,) = subject.certificate.silos.values()
        privacy, clients = _with_noise(terms, every), every.num_examples
    central = server_mechanism(privacy, clients, terms.training)
    assert isinstance(central, ClientLevel)
    return replace(central, insecure_seed=None)


def calibrated_server(central: ClientLevel) -> ClientLevel:
    """The same, where all clients are asked, with mu = 1 or as configured."""
    z = min(1.0, central.noise_multiplier)  # where clipping adapts, more may be too much
    calibrated = replace(central, noise=replace(central.noise, multiplier=z))
    if isinstance(central.sampling, Rotation):
        return calibrated
    return replace(calibrated, sampling=Poisson(1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Stand:
    """What is attacked.

    Attributes:
        model: the configured one, or a tiny one in its place.
        terms: that it was opened by.
        given: whether it is an object, which no other process can open.
        about: which it is, in words.
    """

    model: BuiltModel
    terms: Terms
    given: bool
    about: str

    @property
    def routed(self) -> bool:
        """Whether its layers ask a router, so that canaries must go through the whole model."""
        adapter = self.model.axes.adapter
        return adapter is not None and adapter.routed


def small_model(subject: Subject, folder: Path) -> Stand:
    """The configured model if it is small, or a tiny one that trains the same roles.

    Args:
        subject: whose model.
        folder: where a tiny one is made, which must stay as long as other processes open it.
    """
    federation, terms = subject.federation, subject.terms
    machine = federation.machine.settled()
    model = open_model(terms, subject.labels, machine, federation.given)
    given, which = federation.given is not None, terms.model
    routed = model.axes.adapter is not None and model.axes.adapter.routed  # experts fit it alone
    if model.trained > MOST_TRAINED and not routed:
        terms, given = _with_tiny_model(terms, folder), False
        model = open_model(terms, subject.labels, machine)
        which = f"a tiny model that trains the same roles as {which}"
    roles = ", ".join(sorted(model.axes.trained()))
    about = (
        f"{which}: {model.trained:,} numbers are trained ({roles}), and the gradient of every "
        "single example is what autograd gives for it alone"
    )
    return Stand(model=model, terms=terms, given=given, about=about)


def _with_noise(terms: Terms, silo: SiloPrivacy) -> ExampleDP | ClientDP:
    """With the noise that a certificate states."""
    return replace(terms.hiding, target_epsilon=None, noise_multiplier=silo.noise_multiplier)


def _with_tiny_model(terms: Terms, folder: Path) -> Terms:
    from silotune.testing import tiny_models  # takes seconds

    make = getattr(tiny_models, find(terms.objective.task).stand_in)
    objective: Any = terms.objective
    if objective.head_init != "random":
        objective = replace(objective, head_init="random")
    if find(objective.task).embeds and objective.pooling == "model":  # which the tiny one lacks
        objective = replace(objective, pooling="mean")
    return replace(
        terms,
        model=str(make(folder / "model")),
        dtype="float32",
        quantization="none",
        products="float32",
        gradient_checkpointing="none",
        objective=objective,
        method=replace(
            terms.method, target_modules=None, target_parameters=None, layers_to_transform=None
        ),
    )
