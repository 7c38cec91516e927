"""The federation as a user of the file format meets it: a ``Config`` in, keys in refusals."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from silotune.certificate.circumstances import Described
from silotune.certificate.verify import Verification
from silotune.certificate.verify import verify as verify_described
from silotune.config import Config, build, dump, load_config, naming_keys
from silotune.data import Prepared
from silotune.federation import audit_subject, built, data_summary, doctor, inputs, opening, plan
from silotune.federation import export as exporting
from silotune.federation import results as finished
from silotune.federation.built import BuiltFederation
from silotune.federation.run import described
from silotune.federation.verify import DESCRIBERS
from silotune.privacy import mechanisms_from_choice, planned_charges
from silotune.runs.folder import RunFolder
from silotune.terms import BuiltModel
from silotune.terms import open_model as open_from_terms


def open_model(config: Config, labels: tuple[str, ...]) -> BuiltModel:
    federation = build(config)
    with naming_keys():
        return open_from_terms(federation.terms, labels, federation.machine)


def open_federation(config: Config) -> BuiltFederation:
    with naming_keys():
        return built.build_federation(build(config))


@contextmanager
def opened(config: Config, command: Sequence[str] = (), worker: Sequence[str] = (), *, resume):
    with naming_keys():
        running = opening.opened(
            build(config),
            Path(config.output_dir),
            command,
            resume=resume,
            config=dump(config),
            worker=worker,
        )
        job = running.__enter__()
    try:
        yield job
    finally:
        running.__exit__(None, None, None)


def is_finished(folder: RunFolder, config: Config) -> bool:
    return opening.is_finished(folder, build(config))


def saved_config(folder: RunFolder) -> Config:
    return load_config(folder.config, [], of_run=True)


def read_tables(config: Config) -> Prepared:
    federation = build(config)
    with naming_keys():
        return inputs.read_tables(federation.terms, federation.records)


def forecast(config: Config) -> plan.Plan:
    with naming_keys():
        return plan.forecast(build(config))


def divide(config: Config) -> data_summary.Division:
    with naming_keys():
        return data_summary.divide(build(config))


def configuration(config: Config):
    return doctor.configuration(build(config), Path(config.output_dir))


def of_config(config: Config) -> audit_subject.Subject:
    with naming_keys():
        return audit_subject.of_federation(build(config))


def of_run(folder: RunFolder) -> audit_subject.Subject:
    RunFolder.existing(folder.path)
    return audit_subject.of_run(build(saved_config(folder)), folder)


def mechanisms(config: Config, sizes: Mapping[str, int]):
    terms = build(config).terms
    with naming_keys():
        return mechanisms_from_choice.client_mechanisms(terms.privacy, sizes, terms.training)


def central_mechanism(config: Config, clients: int):
    terms = build(config).terms
    with naming_keys():
        return mechanisms_from_choice.server_mechanism(terms.privacy, clients, terms.training)


def declared_sizes(config: Config, records: Mapping[str, int]):
    federation = build(config)
    with naming_keys():
        return built.public_sizes(federation.terms, federation.records, records)


def releases(config: Config, name: str, held_out: int):
    terms = build(config).terms
    return planned_charges.releases(terms.privacy, name, held_out, terms.seed)


def training(config: Config) -> planned_charges.Training:
    return build(config).terms.training


def evaluate(folder: RunFolder, split=None, masked_experts: Sequence[str] = ()):
    RunFolder.existing(folder.path)
    with naming_keys():
        return finished.evaluate(build(saved_config(folder)), folder, split, masked_experts)


def export_merged(folder: RunFolder, output: Path, silo: str | None = None, **options):
    RunFolder.existing(folder.path)
    with naming_keys():
        federation = build(saved_config(folder))
        return exporting.export_merged(federation, folder, output, silo, **options)


def verify(path: Path) -> Verification:
    def describe(folder: RunFolder) -> Described:
        federation = build(saved_config(folder))
        return Described(federation.terms, described(federation), opening.identity(federation))

    return verify_described(path, {"config.yaml": describe, **DESCRIBERS})
