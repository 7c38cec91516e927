"""What is sent is what is accounted: every field of every message and public file of a private run.

A field is here with the reason why it may be seen; a field that is not here fails the test. Two
runs whose data differ in a record that no coin drew must then be the same to the last byte.
"""

import json
import os
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import silotune_link.process as pipes
from by_config import mechanisms, opened, read_tables
from covering import every_pair, full
from federation.small import SILOS, charge_again, notes, small, train, write_csv, write_small
from silotune.config import build
from silotune.core import (
    ClientTask,
    ClientUpdate,
    Role,
    decode_result,
    decode_task,
    encode_result,
    encode_task,
    pack,
    seed_of,
    unpack,
)
from silotune.core.files import read_json, read_lines
from silotune.engine import QuorumError, federate
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.engine.client_errors import ERRORS, FAILED
from silotune.engine.loop import make_tasks
from silotune.federation.identity import whole
from silotune.federation.run import finish, rounds, summary
from silotune.federation.worker_orders import (
    DESCRIBED,
    MEASURE,
    PLANNED,
    measure_in,
    planned_frame,
)
from silotune.optim import SGD
from silotune.privacy import ExampleLevel, Gaussian, Poisson
from silotune.runs.folder import RunFolder
from silotune.runtimes import InProcess, messages
from silotune.runtimes.responder import Responder
from silotune.testing.tiny_models import tiny_bert
from spies import Tapped, file_fields, public_text, result_fields, task_fields
from toys import Notes, agreed, axes, begin, experiment, silos, trainer

CONFIGURED = "is in the configuration, which everybody has"
EVENT = "an event at a machine, which others see anyway: stated as not covered"
FACTORS = "post-processing of what was released before; in round 0, of the seed"

TASK = {
    "task.run": "an identifier drawn before anything was read",
    "task.round": "counts rounds, whose number is configured",
    "task.client": CONFIGURED,
    "task.plan.phases": CONFIGURED,
    "task.plan.share": CONFIGURED,
    "task.plan.fold": CONFIGURED,
    "task.plan.own_start": CONFIGURED,
    "task.plan.fixed": CONFIGURED,
    "task.plan.upload": CONFIGURED,
    "task.rank": CONFIGURED,
    "task.leaning_on": "SHA-256 of what it was sent the round before, if it was: " + EVENT,
    "task.kept": "names of tensors that are as the receiver knows them",
    "task.steps": CONFIGURED,
    "task.learning_rates": CONFIGURED,
    "task.remembers_since": CONFIGURED,
    "task.seed": "train.seed, round and client; not of coins or noise",
    "task.seeded": CONFIGURED,
    "task.seeded.seed": CONFIGURED,
    "task.seeded.keys": "names of the model's tensors",
    "task.seeded.digest": "of tensors that everybody draws from the seed",
    "task.tensor": FACTORS,
}

RESULT = {
    "result.run": "of the task",
    "result.round": "of the task",
    "result.client": "of the task",
    "result.meters": "empty, unless an optional release is configured (below)",
    "result.refusal": "empty, or one of a few sentences that are the same for all data",
    "result.resent": EVENT,
    "update.run": "of the task",
    "update.round": "of the task",
    "update.client": "of the task",
    "update.upload": CONFIGURED,
    "update.scales": "largest numbers of update.tensor: post-processing, as rounding it is",
    "update.tensor": "clipped, noised and charged: post-processing of the mechanism's releases",
}

RELEASED = {
    "result.meters.records": "a noisy count, charged as release: count; over 1",
    "result.meters.accuracy": "a noisy count, charged as release: metric; over a declared number",
}

RUN_JSON = {
    "run.json.version": "of the format",
    "run.json.run": "drawn before anything was read",
    "run.json.started": EVENT,
    "run.json.finished": EVENT,
    "run.json.status": "finished, or why not: an event, or a sentence without a record in it",
    "run.json.privacy": CONFIGURED,
    "run.json.seed": CONFIGURED,
    "run.json.metric": CONFIGURED,
    "run.json.versions": "software",
    "run.json.upgrades": "software, and the round that a process began with it",
    "run.json.optimizer": CONFIGURED,
    "run.json.adapter_check": "on made-up records, of an adapter that is sent anyway",
    "run.json.config_digest": CONFIGURED,
    "run.json.model_digest": "of the public base model",
    "run.json.base_files": "of the public base model",
    "run.json.start_digest": "of an adapter that everybody holds before the run",
    "run.json.parameters": "sizes of the public base model and the configured adapter",
    "run.json.command": "what the user typed",
    "run.json.chosen": "by public numbers, and by texts made of what labels are called",
    "run.json.averaged": "numbers of rounds, which follow from the configuration",
    "run.json.host": "the coordinator's machine",
    "run.json.silos": "declared numbers of records",
    "run.json.labels": "the declared label set",
    "run.json.baselines": "empty outside a simulation",
    "run.json.final": "scores on public records; empty without any",
    "run.json.worse_than_before": "post-processing of the scores in metrics.jsonl",
    "run.json.scored": "of scores on public records; null without any",
    "run.json.ledgers": "lengths and digests of the ledgers",
    "run.json.observed": "digest of lifetime, coupling, versions and who accepted, all in "
    "privacy.json",
}

METRICS = {
    "metrics.jsonl.version": "of the format",
    "metrics.jsonl.round": "counts rounds",
    "metrics.jsonl.seconds": EVENT,
    "metrics.jsonl.bytes_up": "sizes that follow from the model",
    "metrics.jsonl.bytes_down": "sizes that follow from the model",
    "metrics.jsonl.clients": EVENT,
    "metrics.jsonl.missing": EVENT + ", with a refusal as reason",
    "metrics.jsonl.aggregation_error": "post-processing of the updates",
    "metrics.jsonl.epsilon": "post-processing of the ledgers",
    "metrics.jsonl.metrics": "scores on public records, or noisy and charged",
    "metrics.jsonl.silos": "empty outside a simulation",
    "metrics.jsonl.update_norm": "post-processing of the updates",
    "metrics.jsonl.noise_to_signal": "post-processing of update_norm by what is configured, and of "
    "who took part",
}

LEDGER = {
    "ledger.jsonl.version": "of the format",
    "ledger.jsonl.line": "counts lines",
    "ledger.jsonl.previous": "digest of the line before",
    "ledger.jsonl.sent": "digest of the update, which is clipped, noised and charged",
    "ledger.jsonl.run": "of the run",
    "ledger.jsonl.silo": CONFIGURED,
    "ledger.jsonl.round": "counts rounds",
    "ledger.jsonl.attempt": EVENT,
    "ledger.jsonl.release": CONFIGURED,
    "ledger.jsonl.charge": "sampling, sigma and executed steps: configured; never drawn sizes",
    "ledger.jsonl.max_grad_norm": CONFIGURED,
    "ledger.jsonl.time": EVENT,
    "ledger.jsonl.value": "what an optional release sent",
}

PRIVACY_JSON = {
    "privacy.json.version": "of the format",
    "privacy.json.format": "of the format",
    "privacy.json.run": "of the run",
    "privacy.json.private": CONFIGURED,
    "privacy.json.not_private_because": CONFIGURED,
    "privacy.json.unit": CONFIGURED,
    "privacy.json.hidden": CONFIGURED,
    "privacy.json.neighbours": CONFIGURED,
    "privacy.json.grounds": CONFIGURED + "; people are counted in a simulation only",
    "privacy.json.files": "digests of public files",
    "privacy.json.facts": "digest of run.json",
    "privacy.json.relation": CONFIGURED,
    "privacy.json.mechanism": CONFIGURED,
    "privacy.json.sampling": CONFIGURED,
    "privacy.json.noise": CONFIGURED,
    "privacy.json.accountant": "software",
    "privacy.json.grid": "of the accountant",
    "privacy.json.cross_check": "software",
    "privacy.json.adversary": CONFIGURED,
    "privacy.json.trust_model": CONFIGURED,
    "privacy.json.transport": CONFIGURED,
    "privacy.json.federation": "empty in a simulation; what sites declare when they accept",
    "privacy.json.max_grad_norm": CONFIGURED,
    "privacy.json.target_epsilon": CONFIGURED,
    "privacy.json.target_delta": CONFIGURED,
    "privacy.json.silos": "declared sizes, and what follows from the ledgers",
    "privacy.json.overall": "post-processing of the ledgers",
    "privacy.json.recognition": "post-processing of the ledgers",
    "privacy.json.coupling": "measured on made-up records, before any is read",
    "privacy.json.versions": "software",
    "privacy.json.lifetime": "whether a book is kept: the silo's choice, and not of its records",
    "privacy.json.released": CONFIGURED,
    "privacy.json.not_covered": CONFIGURED + "; people are counted in a simulation only",
    "privacy.json.not_claimed": CONFIGURED,
}

SILO = {
    "num_examples": "declared",
    "sampling_rate": "of declared numbers",
    "noise_multiplier": "of declared numbers and the budget",
    "steps": "of the ledger",
    "rounds": "of the ledger",
    "epsilon": "of the ledger",
    "epsilon_rdp": "of the ledger",
    "epsilon_if_secret": "of the ledger",
    "delta": CONFIGURED,
    "charges": "of the ledger, without the numbers that were released",
    "presumed": "of orders that were sent; empty in a simulation",
    "last_heard": EVENT + "; null in a simulation",
    "lines": "of the ledger",
    "head": "digest of its last line",
    "lifetime": "charges of runs on the same declared place, whatever its records are",
}

CHECKPOINT = {
    "drawn": "names of tensors that a seed decides, and the seed",
    "changed": "names of tensors that the last round changed",
    "holders": "who took part in the last round: " + EVENT + "; nobody where clients are hidden",
    "round": "counts rounds",
    "run": "of the run",
    "config": "digest of the configuration",
    "kept": "the texts of run.json, config.yaml and federation.json",
}

TIMES = ("seconds", "started", "finished", "time", "previous", "head", "files", "facts")
"""What tells a time, and digests of what does."""

BESIDE = {
    "config.yaml",
    "federation.json",
    "run.json",
    "metrics.jsonl",
    "ledger.jsonl",
    "privacy.json",
    "report.html",
    "checkpoint/state.bin",
    "checkpoint/metrics.jsonl",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "adapter/silotune.json",
    "adapter/README.md",
}
"""Every file of a run that does not belong to a silo; made of what is above."""

PRIVATE = (
    "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3, insecure_seeded_noise: true}",
    "data.num_examples={east: 20, west: 20}",
    "train.batch_size=4",
)
ONE_STEP = "train.local_steps=1"
"""Then every record's coins stay what they are when the last record goes."""


@pytest.fixture(autouse=True)
def double_precision():
    """Runs are as users have them, not in the double precision of the other laws."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def place(tmp_path, bert) -> Path:
    """A configuration whose data are a folder with a public valid part."""
    config = write_small(tmp_path, bert)
    (tmp_path / "parts").mkdir()
    write_csv(tmp_path / "parts" / "valid.csv", notes(6, seed=9))
    write_records(config, notes())
    return config


@pytest.fixture(autouse=True)
def same_identity(monkeypatch):
    """Runs have the same name, so that what differs is of the data."""

    class Fixed:
        hex = "0123456789abcdef"

    monkeypatch.setattr("silotune.federation.opening.uuid.uuid4", Fixed)


def write_records(config: Path, records) -> None:
    write_csv(config.parent / "parts" / "train.csv", records)


def settings(config: Path, *overrides: str):
    parts = f"data.path={config.parent / 'parts'}"
    return small(config, *PRIVATE, parts, "evaluation=public", *overrides)


def spied(config) -> tuple[Tapped, RunFolder]:
    """A whole run with every message, its folder moved out of the way of the next one."""
    with opened(config, ["silotune"], ["no", "worker"], resume=False) as job:
        spy = Tapped(job.runtime)
        list(rounds(replace(job, runtime=spy)))
        finish(job)
    return spy, job.folder


def moved(folder: RunFolder, name: str) -> Path:
    return folder.path.rename(folder.path.parent / name)


EVALUATIONS = pytest.mark.parametrize("evaluation", [full("public"), "site"])


# Every field has a reason.


def check_messages(tasks: list[bytes], results: list[bytes], *, also=()) -> None:
    allowed = RESULT | {field: RELEASED[field] for field in also}
    for blob in tasks:
        assert {path for path, _ in task_fields(blob)} <= TASK.keys()
        assert encode_task(decode_task(blob)) == blob, "bytes that no field explains"
    for blob in results:
        told = list(result_fields(blob))
        assert {path for path, _ in told} <= allowed.keys()
        assert encode_result(decode_result(blob)) == blob, "bytes that no field explains"
        sealed = decode_result(blob).sealed
        assert not sealed or pack(*unpack(sealed)) == sealed, "bytes that no field explains"


def check_parts(blobs: list[bytes]) -> None:
    """Tasks that lean on those of the round before: nothing more is in them either."""
    for blob in blobs:
        assert {path for path, _ in task_fields(blob)} <= TASK.keys()


def check_update(task: ClientTask, result: ClientUpdate, shapes) -> None:
    """Of the shapes that were asked for: nothing more is hidden in it."""
    shared, header = unpack(result.sealed)
    assert {key: tuple(t.shape) for key, t in shared.items()} == shapes
    address = {"run": task.run, "round": task.round, "client": task.client}
    fewer_bits = {} if task.plan.upload == "float32" else {"upload": task.plan.upload}
    scales = {"scales": header.get("scales")} if task.plan.upload == "int8" else {}
    assert header == address | fewer_bits | scales
    assert {tensor.dtype for tensor in shared.values()} == {getattr(torch, task.plan.upload)}


SENT = {
    "ffa-lora": [{Role.B, Role.HEAD}],
    "fedex-lora": [{Role.A, Role.B, Role.HEAD}],
    "flora": [{Role.A, Role.B, Role.HEAD}],
    "fedsa-lora": [{Role.A}],
    "fedsvd": [{Role.B, Role.HEAD}],
    "rolora": [{Role.B, Role.HEAD}, {Role.A, Role.HEAD}],
    "xgblora": [{Role.A, Role.B, Role.HEAD}],
    "mole": [{Role.GATE, Role.HEAD}],
}
"""Roles that are sent, round by round in turn."""


def experts(place: Path) -> str:
    """An override with the adapters that two silos keep; they are trained without privacy."""
    train(small(place, "method.name=fedsa-lora", f"output_dir={place.parent / 'experts'}"))
    own = [RunFolder(place.parent / "experts").site(silo) / "adapter" for silo in SILOS]
    return f"method.experts={json.dumps(list(map(str, own)))}"


@every_pair(
    method=list(SENT), evaluation=["public", "site"], upload=["float32", "bfloat16", "int8"]
)
def test_every_field_of_every_message_has_a_reason(place, evaluation, method, upload):
    more = [f"train.upload_dtype={upload}", *([experts(place)] if method == "mole" else [])]
    config = settings(place, f"evaluation={evaluation}", f"method.name={method}", *more)
    spy, folder = spied(config)
    scoring = 3 * len(SILOS) if evaluation == "site" else 0
    assert len(spy.tasks) == len(spy.results) == 3 * len(SILOS) + scoring, "rounds are never fewer"
    check_messages(spy.tasks, spy.results)
    check_parts(spy.parts)
    shapes = {key: tuple(t.shape) for key, t in load_checkpoint(folder.state)[0].factors.items()}
    for asked, told in zip(spy.tasks, spy.results, strict=True):
        result = decode_result(told)
        assert (dict(result.meters), result.refusal, result.resent) == ({}, "", False)
        task = decode_task(asked)
        roles = SENT[method][task.round % len(SENT[method])]
        moving = {k: s for k, s in shapes.items() if k.role in roles and k not in task.plan.fixed}
        assert {key.role for key in moving} == roles
        if result.sealed:
            check_update(task, result, moving)


def test_messages_have_no_other_fields():
    """Neither on the wire nor beside it, as a runtime in this process hands them over."""
    assert {f"task.{f.name}" for f in fields(ClientTask)} - TASK.keys() == {
        "task.plan",  # its parts have their own reasons
        "task.factors",  # the tensors, and of the fold: post-processing, as all that a server sends
        "task.folded",
        "task.change",  # which of these are new
    }
    assert {f"result.{f.name}" for f in fields(ClientUpdate)} - RESULT.keys() == {"result.sealed"}


@EVALUATIONS
@pytest.mark.usefixtures("drawn")
def test_every_field_of_every_public_file_has_a_reason(place, evaluation):
    config = settings(place, f"evaluation={evaluation}")
    _, folder = spied(config)
    allowed = RUN_JSON | METRICS | LEDGER | PRIVACY_JSON
    for name, content in file_fields(folder.path, ()).items():
        for line in content if isinstance(content, list) else [content]:
            assert {f"{name}.{field}" for field in line} <= allowed.keys()
    for account in read_json(folder.privacy)["silos"].values():
        assert account.keys() <= SILO.keys()
    header = unpack(folder.state.read_bytes())[1]
    assert header.keys() == CHECKPOINT.keys()
    beside = {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()}
    public = (
        {"checkpoint/valid.json"} if evaluation == "public" else set()
    )  # digest of such records
    assert {name for name in beside if not name.startswith("sites/")} == BESIDE | public
    for line in read_lines(folder.metrics):
        assert line["silos"] == {}
        assert bool(line["metrics"]) == (evaluation == "public")
    assert summary_of(folder)["split"] == {}
    described = json.loads(json.dumps(whole(build(config))))  # which reads no record
    assert read_json(folder.description).items() >= described.items()
    made = read_json(folder.adapter / "silotune.json")
    assert made.keys() == {"version", "terms", "labels", "model_digest", "began"}
    assert made["began"] == read_json(folder.run)["started"], "which tells a time, and is public"
    assert made["terms"] == described["terms"]
    assert tuple(made["labels"]) == config.data.labels


def summary_of(folder: RunFolder) -> dict:
    from by_config import open_federation, saved_config

    return vars(summary(open_federation(saved_config(folder))))


# What depends on no drawn record depends on no record.


def never_drawn(config, silo: str, records: int, row: int) -> bool:
    """Whether no coin of a whole run takes ``row`` of ``silo``."""
    mechanism = mechanisms(config, dict(config.data.num_examples))[silo]
    drawn = set()
    for i in range(config.train.num_rounds):
        draws = mechanism.draws(seed_of(config.train.seed, "client", i, silo), None)
        for batch in mechanism.batches(records, config.train.local_steps, draws):
            drawn |= set(batch)
    return row not in drawn


def seeded(place: Path, silo: str, row: int, drawn: bool, *overrides: str):
    """A configuration under whose seed that training record is drawn, or is not."""
    for seed in range(100):
        config = settings(place, f"train.seed={seed}", *overrides)
        records = len(read_tables(config).silos[silo].train)
        if never_drawn(config, silo, records, row % records) != drawn:
            return config
    raise AssertionError("no seed will do")


def both(place: Path, config, other) -> tuple[list[tuple[Tapped, Path]], list[dict]]:
    """The same run on the records that are there, and on ``other``."""
    first, folder = spied(config)
    summaries = [summary_of(folder)]
    runs = [(first, moved(folder, "first"))]
    shutil.rmtree(os.environ["SILOTUNE_LIFETIME_FOLDER"])  # each world has a book of its own
    write_records(place, other)
    second, folder = spied(config)
    summaries.append(summary_of(folder))
    return [*runs, (second, moved(folder, "second"))], summaries


def check_same(runs, summaries) -> None:
    (one, first), (two, second) = runs
    assert one.tasks == two.tasks
    assert one.results == two.results
    assert summaries[0] == summaries[1]
    assert file_fields(first, TIMES) == file_fields(second, TIMES)
    assert timeless(first / "checkpoint/state.bin") == timeless(second / "checkpoint/state.bin")
    for name in ("config.yaml", "adapter/adapter_model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def timeless(state: Path) -> bytes:
    """A checkpoint but for the times in the text of run.json that it keeps."""
    tensors, header = unpack(state.read_bytes())
    facts = json.loads(header["kept"]["run.json"])
    told = {field: value for field, value in facts.items() if field not in TIMES}
    return pack(tensors, {**header, "kept": {**header["kept"], "run.json": json.dumps(told)}})


def without_last_training_record(place: Path, config, silo: str) -> list[dict[str, str]]:
    """All records but the one that ``silo`` trains on last."""
    last = read_tables(config).silos[silo].train["text"][-1]
    return [r for r in notes() if (r["silo"], r["text"]) != (silo, last)]


@EVALUATIONS
@pytest.mark.usefixtures("checked", "drawn")
def test_a_record_that_was_not_drawn_leaves_no_trace(place, evaluation):
    """One record fewer: so is the number of records, held out or not, and nobody can tell."""
    config = seeded(place, "west", -1, False, f"evaluation={evaluation}", ONE_STEP)
    fewer = without_last_training_record(place, config, "west")
    assert len(fewer) == len(notes()) - 1
    check_same(*both(place, config, fewer))


@pytest.mark.full
@EVALUATIONS
@pytest.mark.usefixtures("checked", "drawn")
def test_what_is_in_a_record_that_was_not_drawn_leaves_no_trace(place, evaluation):
    """Another text, length and label in its place, over several local steps."""
    config = seeded(place, "east", 0, False, f"evaluation={evaluation}")
    first = read_tables(config).silos["east"].train["text"][0]
    longer = {"text": "dog " + "ran " * 20, "label": "dog", "silo": "east"}
    other = [longer if (r["silo"], r["text"]) == ("east", first) else r for r in notes()]
    assert other != notes()
    check_same(*both(place, config, other))


@pytest.mark.full
@pytest.mark.usefixtures("checked", "drawn")
def test_a_held_out_record_leaves_no_trace(place):
    config = settings(place, "evaluation=site")
    held = read_tables(config).silos["west"].valid["text"][0]
    assert len(read_tables(config).silos["west"].valid) > 1
    fewer = [r for r in notes() if (r["silo"], r["text"]) != ("west", held)]
    check_same(*both(place, config, fewer))


def test_a_record_that_was_drawn_does_leave_one(place):
    """Or the tests above could not fail."""
    config = seeded(place, "west", -1, True, ONE_STEP)
    fewer = without_last_training_record(place, config, "west")
    (one, first), (two, second) = both(place, config, fewer)[0]
    assert one.results != two.results
    assert file_fields(first, TIMES) != file_fields(second, TIMES)


def test_what_a_simulation_shows_is_not_covered_and_says_so(place):
    config = seeded(place, "west", -1, False, "evaluation=simulation", ONE_STEP)
    runs, summaries = both(place, config, without_last_training_record(place, config, "west"))
    assert summaries[0] != summaries[1], "it shows how the records divide"
    assert runs[0][0].results == runs[1][0].results, "and its messages do not"
    said = read_json(runs[0][1] / "privacy.json")
    assert any("simulation" in text and "metrics" in text for text in said["not_covered"])


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
def test_a_record_without_a_finite_gradient_is_as_if_it_were_not_there(tmp_path):
    """How many were left out is known to the silo alone."""
    a = axes("ffa-lora", SGD(lr=0.3))
    (client, whole), *_ = silos().items()
    long = Notes((*whole.train.ids, (1,) * LONG))  # it has its part of a batch to itself

    def result(train: Notes, home: Path) -> ClientUpdate:
        silo = replace(whole, train=train, privacy=mechanism(rate=1.0), home=home)
        b = trainer(a)
        exp = experiment(a, [client], private=True, rounds=1, local_steps=1)
        own = agreed(exp, {client: silo})
        runtime = Tapped(InProcess(replace(b, objective=Broken(b.objective)), own))
        list(federate(exp, runtime, begin(a)))
        return decode_result(runtime.results[0])

    assert result(long, tmp_path / "with it") == result(whole.train, tmp_path / "without")
    assert read_lines(tmp_path / "with it" / "dropped.jsonl")[0]["records"] == 1
    assert not (tmp_path / "without" / "dropped.jsonl").exists()


# Nothing is said of an error but that it happened.

SECRET = "patient 4711 has no finite loss"
WRONGS = [ValueError(SECRET), RuntimeError(SECRET), KeyError(SECRET), MemoryError(SECRET)]
wrongs = pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: type(wrong).__name__)


LONG = 60
"""Tokens of a record that gives no number: so many that a part of a batch is cut for it alone."""


class Broken:
    """An objective that gives NaN for long records, or raises."""

    def __init__(self, inner, wrong=None) -> None:
        self.inner, self.wrong, self.metric = inner, wrong, inner.metric

    def losses(self, model, batch):
        if self.wrong:
            raise self.wrong
        long = batch["attention_mask"].sum(1) == LONG
        return self.inner.losses(model, batch) * torch.where(long, torch.nan, 1.0)

    def measure(self, model, batch):
        raise self.wrong


def mechanism(rate: float = 0.5) -> ExampleLevel:
    return ExampleLevel(
        sampling=Poisson(rate),
        noise=Gaussian(1.0),
        max_grad_norm=1.0,
        expected_batch_size=6.0,
        insecure_seed=1,
    )


def failing(tmp_path: Path, wrong: Exception, **changes):
    a = axes("ffa-lora", SGD(lr=0.3))
    members = {
        name: replace(
            silo,
            home=tmp_path / name,
            held_out=silo.train,
            **({"privacy": mechanism()} | changes),
        )
        for name, silo in silos().items()
    }
    for name in members:
        (tmp_path / name).mkdir()
    b = trainer(a)
    exp = experiment(a, list(members), private=True)
    return exp, replace(b, objective=Broken(b.objective, wrong=wrong)), agreed(exp, members)


def first_task(exp):
    return make_tasks(exp, exp.clients, begin(exp.axes))[0]


@wrongs
@pytest.mark.parametrize("kind", [b"T", b"S"])
def test_an_error_ends_at_the_silo_whatever_carries_its_messages(tmp_path, wrong, kind):
    exp, b, members = failing(tmp_path, wrong)
    in_process = InProcess(b, members)
    task = first_task(exp)
    reply = Responder(b, members).answer(messages.message(kind, {}, encode_task(task)))
    answer = messages.opened(reply)
    if kind == b"T":
        (result,) = in_process.train([task])
    else:
        (result,) = in_process.evaluate([task])
    assert answer.kind == messages.RESULT
    assert result == decode_result(answer.body)
    assert (result.refusal, result.sealed, dict(result.meters)) == (FAILED, b"", {})
    assert b"4711" not in reply
    check_messages([], [answer.body])
    kept = read_lines(tmp_path / task.client / ERRORS)
    assert [line["round"] for line in kept] == [0, 0]
    assert all(SECRET in line["error"] and "Traceback" in line["error"] for line in kept)


def test_a_client_that_the_server_hides_says_no_more(tmp_path):
    from silotune.privacy import NoPrivacy

    exp, b, members = failing(tmp_path, WRONGS[0], privacy=NoPrivacy(batch_size=6), discreet=True)
    runtime = InProcess(b, members)
    task = first_task(exp)
    (result,) = runtime.train([task])
    assert result.refusal == FAILED


def test_without_privacy_an_error_is_told(tmp_path):
    from silotune.privacy import NoPrivacy

    exp, b, members = failing(tmp_path, WRONGS[0], privacy=NoPrivacy(batch_size=6))
    runtime = InProcess(b, members)
    task = first_task(exp)
    with pytest.raises(ValueError, match="4711"):
        list(runtime.train([task]))


def test_an_error_that_cannot_be_noted_is_not_told_either(tmp_path, monkeypatch):
    from silotune.core import RecordError

    def full(*_):
        raise RecordError(SECRET)

    monkeypatch.setattr("silotune.engine.client_errors.append_line", full)
    exp, b, members = failing(tmp_path, WRONGS[0])
    runtime = InProcess(b, members)
    task = first_task(exp)
    (result,) = runtime.train([task])
    assert result.refusal == FAILED


@pytest.mark.parametrize("evaluation", ["public", "site", "simulation"])
@pytest.mark.usefixtures("drawn")
def test_the_text_of_an_error_is_in_no_public_file(place, monkeypatch, evaluation, capfd):
    """Not in a simulation either: there is one way only, and its owner can read the folders."""
    config = settings(place, f"evaluation={evaluation}")
    with opened(config, ["silotune"], ["no", "worker"], resume=False) as job:
        inner = job.built.agreement.model.trainer
        broken = replace(inner, objective=Broken(inner.objective, wrong=WRONGS[0]))
        silos = job.runtime.silos
        spy = Tapped(InProcess(broken, silos))
        with pytest.raises(QuorumError) as caught:
            list(rounds(replace(job, runtime=spy)))
    assert "4711" not in str(caught.value)
    assert FAILED in str(caught.value)
    check_messages(spy.tasks, spy.results)
    assert b"4711" not in b"".join(spy.results) + public_text(job.folder.path)
    assert "4711" not in "".join(capfd.readouterr())
    assert SECRET in read_lines(job.folder.site("east") / ERRORS)[0]["error"]


def test_a_spent_budget_is_refused_in_words_that_are_public(place):
    budget = "{unit: example, target_epsilon: 8, target_delta: 1e-3, insecure_seeded_noise: true}"
    config = settings(place, f"privacy={budget}", "train.batch_size=8")
    with opened(config, ["silotune"], ["no", "worker"], resume=False) as job:
        spy = Tapped(job.runtime)
        todo = rounds(replace(job, runtime=spy))
        next(todo), next(todo)
        charge_again(job.folder.site("west") / "ledger.jsonl", 5)
        with pytest.raises(QuorumError, match="west: its budget is spent"):
            next(todo)
    check_messages(spy.tasks, spy.results)
    refusals = {decode_result(blob).refusal for blob in spy.results}
    assert refusals == {"", "its budget is spent"}


# The same over pipes, where a worker is a process of its own.


@pytest.mark.slow
@pytest.mark.parametrize("evaluation", ["public", "site"])
def test_nothing_else_crosses_the_pipes_of_a_pool(place, monkeypatch, evaluation):
    down, up = [], []
    write, read = pipes.write_frame, pipes.read_frame

    def written(pipe, payload):
        down.append(payload)
        write(pipe, payload)

    def heard(pipe):
        up.append(read(pipe))
        return up[-1]

    monkeypatch.setattr(pipes, "write_frame", written)
    monkeypatch.setattr(pipes, "read_frame", heard)
    alike = f"evaluation={evaluation}", "train.threads=1", ONE_STEP
    config = settings(place, "runtime=pool", "workers=1", *alike)
    worker = [sys.executable, "-P", "-m", "silotune", "worker"]
    with opened(config, ["silotune"], worker, resume=False) as job:
        list(rounds(job))
        finish(job)
    assert [payload[:1] for payload in down[:2]] == [DESCRIBED, PLANNED]
    assert down[1] == planned_frame({}), "where the noise is given there is none to find"
    assert up[0] == b"+", "a worker says that it is there, once"
    public = [order for order in down[2:] if order[:1] == MEASURE]
    asks = [ask.records for order in public for ask in measure_in(order)[0]]
    assert not any(where.silo for where in asks), "records that everybody may see"
    assert bool(public) == (evaluation == "public")
    down = [order for order in down[2:] if order[:1] != MEASURE]
    up = [answer for answer in up[1:] if answer[:1] != MEASURE]
    assert {payload[:1] for payload in down} <= {b"T", b"S"}
    assert {payload[:1] for payload in up} == {b"R"}
    asked, told = list(map(messages.opened, down)), list(map(messages.opened, up))
    assert not any(message.head for message in (*asked, *told))
    check_parts([order.body for order in asked])
    check_messages([], [answer.body for answer in told])
    moved(job.folder, "pooled")
    monkeypatch.setenv("SILOTUNE_LIFETIME_FOLDER", str(place.parent / "another book"))  # same run
    spy, _ = spied(settings(place, *alike))
    assert [answer.body for answer in told] == spy.results


# Optional releases are there when configured, and only then.


def test_an_optional_release_is_one_more_field_and_one_more_charge(place):
    config = settings(
        place,
        "privacy.count_noise=3",
        "privacy.metric_noise=4",
        "evaluation=site",
        "data.num_held_out=2",
    )
    spy, folder = spied(config)
    check_messages(spy.tasks, spy.results, also=RELEASED)
    told = [decode_result(blob) for blob in spy.results]
    for silo in SILOS:
        counts = {r.meters["records"] for r in told if r.client == silo and r.sealed}
        scores = [r.meters["accuracy"] for r in told if r.client == silo and not r.sealed]
        assert len(counts) == 1, "one release, sent again in every round"
        assert len(scores) == 3
        own = read_lines(folder.site(silo) / "ledger.jsonl", newest=3)
        assert [e["value"] for e in own if e["release"] == "count"] == [counts.pop().total]
        assert [e["value"] for e in own if e["release"] == "metric"] == [s.total for s in scores]
        assert {s.count for s in scores} == {2}
    assert set(read_lines(folder.metrics)[-1]["metrics"]) == {"accuracy"}


def test_the_spies_would_see_a_field_that_nobody_explained(place):
    spy, _ = spied(settings(place, "train.num_rounds=1"))
    result = decode_result(spy.results[0])
    shared, header = unpack(result.sealed)
    leaks = [
        encode_result(replace(result, sealed=pack(shared, {**header, "records": 24}))),
        encode_result(replace(result, meters={"loss": next(iter([_meter()]))})),
        _with_header(spy.results[0], "dropped", 1),
        spy.results[0] + b"24",
    ]
    for leak in leaks:
        with pytest.raises((AssertionError, ValueError)):
            check_messages([], [leak])


def _meter():
    from silotune.core import Meter

    return Meter(1.0, 24)


def _with_header(blob: bytes, name: str, value: int) -> bytes:
    """A result with one more field in its header, and a digest that holds."""
    import hashlib

    end = 36 + int.from_bytes(blob[32:36], "big")
    header = json.dumps({**json.loads(blob[36:end]), name: value}).encode()
    body = len(header).to_bytes(4, "big") + header + blob[end:]
    return hashlib.sha256(body).digest() + body
