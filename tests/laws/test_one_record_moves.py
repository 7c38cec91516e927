"""Nothing that one record moves is called covered.

Everything that data decide before training is compared between neighbours: every file outside the
silos' folders, the plan, the agreement, the first tasks, the certificate, notices, and where the
other records are. Whatever differs must be named by a sentence of the certificate's not_covered;
a difference that no line of ``EXPLAINED`` knows fails the test.
"""

import csv
import functools
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import silotune as st
from covering import every_pair, full, one_combination
from federation.small import chain_of, notes
from silotune.certificate.client_wording import CLIENT
from silotune.certificate.example_wording import EXAMPLE
from silotune.certificate.statement import statement
from silotune.certificate.wording import COUNTED, LABELS, LAYOUT, SIMULATED, STARTED
from silotune.core import encode_task
from silotune.core.files import read_json
from silotune.engine import EVERY_CLIENT
from silotune.engine.loop import make_tasks
from silotune.federation import built as building
from silotune.federation.inputs import read_tables
from silotune.federation.opening import opened
from silotune.federation.plan import forecast
from silotune.federation.run import described, summary
from silotune.privacy import LedgerEntry
from silotune.terms import open_model
from silotune.testing.tiny_models import tiny_bert

pytestmark = pytest.mark.usefixtures("checked")

Record = dict[str, str]

SILOS = ("east", "west", "north")
EACH = 600
"""Records of a silo. The edge of a step of ten: with one record fewer, 590 would be declared."""

GRID = 1e-2
UNITS: dict[str, Any] = {
    "example": st.ExampleDP(noise_multiplier=2, target_delta=1e-3),
    "example, scores": st.ExampleDP(noise_multiplier=2, target_delta=1e-3, metric_noise=40),
    "client": st.ClientDP(noise_multiplier=2, target_delta=1e-3, max_update_norm=0.5),
}
EVALUATIONS = ("public", "site", "simulation")


@pytest.fixture(autouse=True)
def double_precision():
    """Runs are as users have them."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


MODELS: dict[object, Any] = {}


@pytest.fixture(autouse=True)
def one_model(monkeypatch):
    """No record decides it but by the label set, so it is opened once for each."""

    def remembered(terms, labels, machine=None, given=None):
        key = (repr(terms), labels)
        if key not in MODELS:
            MODELS[key] = open_model(terms, labels, machine, given)
        return MODELS[key]

    monkeypatch.setattr(building, "open_model", remembered)
    monkeypatch.setattr("silotune.federation.plan.open_model", remembered)


@pytest.fixture(autouse=True)
def same_identity(monkeypatch):
    """Runs have the same name and hour, so that what differs is of the data."""

    class Fixed:
        hex = "0123456789abcdef"

    monkeypatch.setattr("silotune.federation.opening.uuid.uuid4", Fixed)
    monkeypatch.setattr("silotune.federation.opening.now", lambda: "2026-01-01T00:00:00+00:00")


# Neighbours: data sets that differ in one record.


@functools.cache
def records() -> tuple[Record, ...]:
    """All different, each of a person of its own, in two parts of their table."""
    return tuple(
        {**note, "text": f"{note['text']} {i}", "person": f"p{i}", "split": "train"}
        for i, note in enumerate(notes(EACH, SILOS))
    )


def without(n: int, base=records) -> Callable[[], list[Record]]:
    return lambda: [*base()[:n], *base()[n + 1 :]]


def with_more(**changes: str) -> Callable[[], list[Record]]:
    return lambda: [
        *records(),
        {**records()[7], "text": "dog saw a bird", "person": "q", **changes},
    ]


def with_other(**changes: str) -> Callable[[], list[Record]]:
    return lambda: [{**r, **changes} if i == 7 else r for i, r in enumerate(records())]


NEIGHBOURS: Mapping[str, Callable[[], list[Record]]] = {
    "one fewer": without(7),
    "one more": with_more(),
    "a copy": with_more(text=records()[11]["text"], label=records()[11]["label"]),
    "a long one": with_other(text="dog " + "ran " * 200),
    "a blank one": with_other(text=" "),
    "one of padding": with_other(text="<pad><pad>"),
    "another label": with_other(label="ant"),
    "a label in capitals": with_other(label="Cat"),
    "the label -1": with_other(label="-1"),
    "no label": with_other(label=" ", text="dog of no kind"),
    "another person": with_other(person=records()[8]["person"]),
    "another silo": with_more(silo="south"),
    "another part": with_other(split="spare"),
    "in the valid part": with_other(split="valid"),
}


# Federations: how the records lie, and what is declared of them.


def table(place: Path, rows: list[Record], *, keep: tuple[str, ...]) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(keep), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return place


ALL = ("text", "label", "silo", "person")


def by_column(place: Path, rows: list[Record]) -> dict[str, Any]:
    table(place / "train.csv", rows, keep=ALL)
    return {"clients": place, "partition": st.Partition(by="silo")}


def dealt(place: Path, rows: list[Record], split: str = "iid") -> dict[str, Any]:
    table(place / "train.csv", rows, keep=ALL)
    return {"clients": place, "partition": st.Partition(num=3, split=split, alpha=100.0)}


def skewed(place: Path, rows: list[Record]) -> dict[str, Any]:
    return dealt(place, rows, "dirichlet")


def folders(place: Path, rows: list[Record]) -> dict[str, Any]:
    for silo in sorted({r["silo"] for r in rows}):
        own = [r for r in rows if r["silo"] == silo]
        table(place / silo / "train.csv", own, keep=ALL)
    return {"clients": place}


def in_parts(place: Path, rows: list[Record]) -> dict[str, Any]:
    """One file whose column says which part a record is for."""
    file = table(place / "notes.csv", rows, keep=(*ALL, "split"))
    return {"clients": file, "partition": st.Partition(by="silo")}


def in_memory(place: Path, rows: list[Record]) -> dict[str, Any]:
    own = {s: [r for r in rows if r["silo"] == s] for s in sorted({r["silo"] for r in rows})}
    return {"clients": {s: [{k: r[k] for k in ALL} for r in rs] for s, rs in own.items()}}


LAYOUTS = (by_column, dealt, skewed, folders, in_parts, in_memory)
DECLARED = {
    "all": {"num_examples": 300, "num_held_out": 200, "labels": ("cat", "dog")},
    "nothing": {"num_examples": None, "num_held_out": None, "labels": None},
}


def federation(
    bert: Path,
    place: Path,
    rows: list[Record],
    *,
    unit: str = "example",
    evaluation: str = "public",
    layout: Callable[[Path, list[Record]], dict[str, Any]] = by_column,
    declared: str = "nothing",
    **more: Any,
) -> st.Federation:
    numbers = dict(DECLARED[declared])
    objective = st.SequenceClassification(
        text="text", label="label", labels=numbers.pop("labels"), max_length=32
    )
    given = layout(place / "data", rows)
    everybody = [{**r, "split": "valid", "silo": SILOS[0]} for r in notes(6, ("",), seed=9)]
    if evaluation == "public":
        if layout is in_memory:
            given["valid"] = [{k: r.get(k, "v") for k in ALL} for r in everybody]
        elif layout is in_parts:
            extra = [
                {**r, "person": "v", "text": f"{r['text']} {i}"} for i, r in enumerate(everybody)
            ]
            given = layout(place / "data", [*rows, *extra])
        else:
            table(place / "data" / "valid.csv", everybody, keep=ALL)
    return st.Federation(
        model=str(bert),
        objective=objective,
        method=st.methods.FFALoRA(r=2),
        privacy=UNITS[unit],
        rounds=2,
        local_steps=1,
        batch_size=8,
        evaluation=evaluation,
        valid_fraction=0.4,
        **{**given, **numbers, **more},
    )


# What is public of them.


def public(federation: st.Federation, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Everything that is decided before training, leaf by leaf; and what is not covered."""
    found: dict[str, Any] = {"begins": True}
    try:
        with opened(federation, folder, resume=False) as job:
            agreement = job.built.agreement
            accounts = [EVERY_CLIENT] if agreement.server.private else list(agreement.sizes)
            chains = {n: chain_of([charged(n, agreement.price(n))]) for n in accounts}
            said = statement(agreement, described(federation), "run", chains, grid=GRID)
            exp = agreement.experiment(job.facts.run)
            tasks = make_tasks(exp, tuple(exp.clients), job.state)
            parts = {
                "certificate": said.to_json(),
                "sizes": dict(agreement.sizes),
                "held_out": dict(agreement.held_out),
                "labels": list(agreement.labels),
                "mechanisms": {n: repr(m) for n, m in agreement.mechanisms.items()},
                "server": repr(agreement.server),
                "weights": dict(exp.weights),
                "quorum": exp.quorum,
                "notices": {n.partition(":")[0]: n for n in job.built.notices},
                "summary": asdict(summary(job.built)),
                "tasks": {t.client: hashlib.sha256(encode_task(t)).hexdigest() for t in tasks},
                "files": dict(files(folder)),
                "plan": asdict(forecast(federation)),
            }
    except ValueError:
        return {"begins": False}, []
    found |= dict(leaves(parts))
    return found, said.not_covered


def files(folder: Path) -> Iterator[tuple[str, Any]]:
    """All that does not belong to a silo; the lock names this process and the time, and is gone
    with the process."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(("sites/", "server/", "lock")):
            yield name, read_json(path) if path.suffix == ".json" else sha(path)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def charged(account: str, charge: Any) -> LedgerEntry:
    return LedgerEntry(
        run="run",
        silo=account,
        round=0,
        attempt=0,
        release="update",
        charge=charge,
        max_grad_norm=1.0,
        time="2026-01-01T00:00:00+00:00",
    )


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}" if path else str(key))
    else:
        yield path, json.dumps(value, default=repr, sort_keys=True)


def places(federation: st.Federation) -> dict[str, list[str]]:
    """Text -> the silos and tables that it is in."""
    prepared = read_tables(federation.terms, federation.records)
    found: dict[str, list[str]] = {}
    for name, silo in prepared.silos.items():
        for role in ("train", "valid", "test"):
            own = getattr(silo, role)
            for text in own["text"][:] if own is not None else ():
                found.setdefault(text, []).append(f"{name}/{role}")
    return found


# What explains a difference.

EXPLAINED: Mapping[str, tuple[str, ...]] = {
    r"begins": (STARTED,),
    r"membership": (EXAMPLE.limited, EXAMPLE.dealt, CLIENT.dealt),
    r"notices/labels": (LABELS,),
    r"notices/num_(examples|held_out)": (COUNTED,),
    r"notices/(data|split|person|max_length)|summary/split.*": (SIMULATED,),
    r"labels|files/run.json/labels|certificate/coupling/.*": (LABELS,),
    r"files/checkpoint/state.bin|files/run.json/parameters/.*|plan/(trained|total)": (LABELS,),
    r"tasks/.*|plan/bytes_.*": (LABELS,),
    r"(sizes|weights|mechanisms|held_out)/.*|plan/(averaged|silos|noise_to_signal|epsilon/.*)": (
        COUNTED,
    ),
    r"plan/silos": (COUNTED, LABELS),
    r"files/run.json/silos/.*|certificate/(silos|recognition|overall)/.*": (COUNTED,),
    r"plan/notices": (LABELS, COUNTED, SIMULATED),
}
"""What differs -> the sentences one of which must then be in the certificate."""

LAID_OUT = {"another silo", "another part", "in the valid part"}
"""Neighbours that are laid out in another way, which ``LAYOUT`` names, and all that comes of it."""


def unexplained(neighbour: str, differs: set[str], not_covered: list[str]) -> list[str]:
    def is_said(sentence: str) -> bool:
        pattern = re.sub(r"\\{names\\}", ".*", re.escape(sentence))
        return any(re.fullmatch(pattern, said) for said in not_covered if sentence)

    def named(path: str) -> bool:
        return any(
            re.fullmatch(pattern, path) and any(map(is_said, sentences))
            for pattern, sentences in EXPLAINED.items()
        )

    if neighbour in LAID_OUT and is_said(LAYOUT):
        return []
    return sorted(path for path in differs if not named(path))


class Moved(NamedTuple):
    """What a neighbour changes."""

    neighbour: str
    differs: set[str]
    not_covered: list[str]


class Decided(NamedTuple):
    """What a federation decides before it trains."""

    facts: dict[str, Any]
    not_covered: list[str]
    places: dict[str, list[str]]


def decided(bert: Path, place: Path, rows: Sequence[Record], **settings) -> Decided:
    """Always in the same folders, so that nothing differs but the records."""
    shutil.rmtree(place, ignore_errors=True)
    one = federation(bert, place, list(rows), **settings)
    facts, said = public(one, place / "run")
    return Decided(facts, said, places(one) if facts["begins"] else {})


def moved(neighbours: Iterable[str], *where: Path, **settings) -> Iterator[Moved]:
    """What differs between the records and each of their neighbours; and what is said of it."""
    one = decided(*where, records(), **settings)
    assert one.facts["begins"]
    for neighbour in neighbours:
        other = NEIGHBOURS[neighbour]()
        two = decided(*where, other, **settings)
        differs = differences(one, two, others(other, settings.get("unit", "example")))
        yield Moved(neighbour, differs, one.not_covered)


def others(neighbour: Sequence[Record], unit: str) -> set[str]:
    """Texts of the records that both have; of other clients alone, where a client is the unit."""
    times = Counter(r["text"] for r in neighbour)
    one, two = ({tuple(sorted(r.items())) for r in rows} for rows in (records(), neighbour))
    own = {dict(r)["silo"] for r in one ^ two}
    hidden = own if unit == "client" else set()
    return {r["text"] for r in records() if times[r["text"]] == 1 and r["silo"] not in hidden}


def differences(one: Decided, two: Decided, same: set[str]) -> set[str]:
    """The paths of all facts that differ, and whether another record is elsewhere."""
    if not two.facts["begins"]:
        return {"begins"}
    both = {**one.facts, **two.facts}
    differs = {path for path in both if one.facts.get(path) != two.facts.get(path)}
    if any(one.places.get(text) != two.places.get(text) for text in same):
        differs.add("membership")
    return differs


@every_pair(
    layout=LAYOUTS,
    unit_and_evaluation=[
        ("example", "public"),
        ("example, scores", "site"),
        ("example", "simulation"),
        ("client", "public"),
        ("client", "simulation"),
    ],
    declared_and_limit=[("all", None), ("nothing", 550)],
    neighbours=[tuple(NEIGHBOURS)[i::6] for i in range(6)],
)
def test_whatever_one_record_moves_is_named(
    bert, tmp_path, layout, unit_and_evaluation, declared_and_limit, neighbours
):
    unit, evaluation = unit_and_evaluation
    declared, limit = declared_and_limit
    settings = {
        "layout": layout,
        "unit": unit,
        "evaluation": evaluation,
        "declared": declared,
        "limit": limit,
        "person": None if unit == "client" else "person",
    }
    found = {
        neighbour: left
        for neighbour, differs, said in moved(neighbours, bert, tmp_path, **settings)
        if (left := unexplained(neighbour, differs, said))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("neighbour", "settings", "path"),
    [
        ("one fewer", {}, "sizes/east"),
        full("one fewer", {}, "files/run.json/silos/east/num_examples"),
        full("one fewer", {}, "certificate/silos/east/epsilon"),
        full("another label", {}, "begins"),
        ("another label", {"declared": "all"}, "begins"),
        full("a label in capitals", {}, "begins"),
        full("the label -1", {}, "begins"),
        ("no label", {"evaluation": "simulation"}, "notices/data"),
        full("another silo", {"declared": "all"}, "sizes/south"),
        ("one fewer", {"layout": dealt}, "membership"),
        full("one more", {"limit": 400, "declared": "all"}, "membership"),
        ("in the valid part", {"layout": in_parts, "evaluation": "simulation"}, "membership"),
        full("a blank one", {"evaluation": "simulation"}, "notices/data"),
        full("another person", {"evaluation": "simulation", "person": "person"}, "notices/person"),
        full(
            "one fewer",
            {"evaluation": "simulation", "declared": "all"},
            "summary/split/east/records",
        ),
    ],
)
def test_the_walk_sees(bert, tmp_path, neighbour, settings, path):
    """Or it could not fail."""
    (found,) = moved([neighbour], bert, tmp_path, **settings)
    assert path in found.differs


def test_no_record_puts_a_label_into_the_public_set(bert, tmp_path):
    """Of more than a few records; a label of its own is asked about before anything begins."""
    own = ("another label", "a label in capitals", "the label -1")
    for neighbour, differs, _ in moved(own, bert, tmp_path):
        assert differs == {"begins"}, neighbour


@one_combination(evaluation=EVALUATIONS, layout=[by_column, folders, in_memory])
def test_with_all_declared_nothing_moves_but_that_record(bert, tmp_path, evaluation, layout):
    settings = {"evaluation": evaluation, "layout": layout, "declared": "all"}
    own = ("one fewer", "one more", "a copy", "a long one", "a blank one", "one of padding")
    for neighbour, differs, _ in moved(own, bert, tmp_path, **settings):
        seen = {path for path in differs if re.match("summary/split|notices/|plan/not", path)}
        assert differs - seen == set(), neighbour
        assert evaluation == "simulation" or not seen
