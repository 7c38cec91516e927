"""Subject: what an audit is about, made ready for it: mechanisms with secret draws, and a model.

A run is audited from its folder alone: its certificate says how much noise each silo had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from silotune.config import Config
from silotune.privacy import ExampleLevel, Poisson, Rotation
from silotune.privacy.mechanisms.dp_fedavg import ClientLevel
from silotune.runs.facts import PrivacyStatement, SiloPrivacy, read_facts, read_statement
from silotune.runs.folder import RunFolder
from silotune.testing.tiny_models import tiny_bert, tiny_llama, tiny_vit

from .build import BuiltModel, open_model
from .inputs import known_labels, read_tables
from .mechanisms import central_mechanism, declared_sizes, mechanisms
from .opening import saved_config

MOST_TRAINED = 100_000
"""Numbers trained; with more, a tiny model stands in."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is audited.

    Attributes:
        config: as resolved.
        sizes: each silo's declared number of records.
        labels: the public label set.
        certificate: of a run; None for a configuration.
    """

    config: Config
    sizes: Mapping[str, int]
    labels: tuple[str, ...]
    certificate: PrivacyStatement | None = None


def of_config(config: Config) -> Subject:
    """A configuration; the data is opened for names, sizes and labels that it does not declare.

    Raises:
        ValueError: in words, naming the key of the configuration.
    """
    labels, declared = known_labels(config), config.data.num_examples
    if labels is not None and isinstance(declared, dict):
        return Subject(config=config, sizes=declared, labels=labels)
    prepared = read_tables(config)
    records = {name: len(silo.train) for name, silo in prepared.silos.items()}
    return Subject(config=config, sizes=declared_sizes(config, records)[0], labels=prepared.labels)


def of_run(folder: RunFolder) -> Subject:
    """A run, from its folder alone.

    Raises:
        ValueError: in words, if there is none, or it claims nothing.
    """
    RunFolder.existing(folder.path)
    certificate = read_statement(folder)
    if certificate is None:
        raise ValueError(f"{folder.path}: a run without privacy claims nothing that can be audited")
    return Subject(
        config=saved_config(folder),
        sizes={name: silo.num_examples for name, silo in certificate.silos.items()},
        labels=tuple(read_facts(folder).labels),
        certificate=certificate,
    )


def secret_mechanisms(subject: Subject) -> dict[str, ExampleLevel]:
    """Every silo's, with secret draws; of a run, with the noise that its certificate states."""
    config, certificate = subject.config, subject.certificate
    if certificate is None:
        found = mechanisms(config, subject.sizes)
    else:
        found = {}
        for name, silo in certificate.silos.items():
            found |= mechanisms(_with_noise(config, silo), {name: silo.num_examples})
    secret = dict[str, ExampleLevel]()
    for name, mechanism in found.items():
        assert isinstance(mechanism, ExampleLevel)
        secret[name] = replace(mechanism, insecure_seed=None)
    return secret


def calibrated_server(subject: Subject) -> ClientLevel:
    """The server's mechanism, calibrated: all clients are asked, with mu = 1 or as configured."""
    config, clients = subject.config, len(subject.sizes)
    if subject.certificate is not None:
        (every,) = subject.certificate.silos.values()
        config, clients = _with_noise(config, every), every.num_examples
    central = central_mechanism(config, clients)
    assert isinstance(central, ClientLevel)
    z = min(1.0, central.noise_multiplier)  # where clipping adapts, more may be too much
    calibrated = replace(central, noise=replace(central.noise, multiplier=z), insecure_seed=None)
    if isinstance(central.sampling, Rotation):
        return calibrated
    return replace(calibrated, sampling=Poisson(1.0))


def small_model(subject: Subject, folder: Path) -> tuple[BuiltModel, str]:
    """The configured model if it is small, or a tiny one that trains the same roles; and which.

    Raises:
        ValueError: if its layers ask a router.
    """
    config = subject.config
    model = open_model(config, subject.labels)
    which = config.model.name_or_path
    if model.recipe.adapter and model.recipe.adapter.routed:
        raise ValueError(
            f"method.name: {config.method.name} cannot be audited: what a router passes on depends "
            "on the whole prompt, so no canary can be aimed at one number; `silotune run` still "
            "proves the gradient of every example before it trains"
        )
    if model.trained > MOST_TRAINED:
        model = open_model(_with_tiny_model(config, folder), subject.labels)
        which = f"a tiny model that trains the same roles as {which}"
    roles = ", ".join(sorted(model.recipe.trained()))
    return model, (
        f"{which}: {model.trained:,} numbers are trained ({roles}), and the gradient of every "
        "single example is what autograd gives for it alone"
    )


def _with_noise(config: Config, silo: SiloPrivacy) -> Config:
    """With the noise that a certificate states."""
    given = {"target_epsilon": None, "noise_multiplier": silo.noise_multiplier}
    return config.model_copy(update={"privacy": config.privacy.model_copy(update=given)})


def _with_tiny_model(config: Config, folder: Path) -> Config:
    make = {
        "sequence-classification": tiny_bert,
        "causal-lm": tiny_llama,
        "image-classification": tiny_vit,
    }[config.model.task]
    model = {"name_or_path": str(make(folder / "model")), "dtype": "float32"}
    free = {"gradient_checkpointing": "none", "head_init": "random"}
    method = {"target_modules": None, "layers_to_transform": None}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model | free),
            "method": config.method.model_copy(update=method),
        }
    )
