"""Lifetimes from the configuration to the certificate: what records pay over all runs."""

import json
import shutil
from pathlib import Path

import pytest

from by_config import open_federation, opened, verify
from covering import full
from federation.objects import federation
from federation.small import NO_WORKER, PRIVATE, SILOS, notes, small, train, write_csv
from silotune.certificate.wording import EXPERTS_COUNTED
from silotune.config import build
from silotune.config.errors import ConfigError
from silotune.core.files import read_json, write_json
from silotune.engine import QuorumError
from silotune.federation.identity import described_in, digest
from silotune.federation.lifetimes import open_accounts
from silotune.federation.run import rounds
from silotune.federation.trained_models import own_adapter
from silotune.privacy import SiloStore
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.accounting.charges import Charge
from silotune.privacy.lifetime.book import Book
from silotune.privacy.lifetime.composition import SEEDED
from silotune.runs.folder import RunFolder

DELTA = 1e-3
SHORT = (*PRIVATE, "train.num_rounds=1", "privacy.reserve_rounds=0", "evaluation=simulation")


def cost(rounds: int) -> float:
    return epsilon([Charge(8 / 20, 2.0, 2 * rounds)], DELTA)


def ceiling(rounds: float) -> tuple[str, ...]:
    """So much as so many rounds cost, and hardly more."""
    most = 1.0001 * cost(int(rounds))
    return (f"privacy.lifetime={{max_epsilon: {most}, max_delta: {DELTA}}}",)


def at(place, name: str, *overrides: str):
    return small(place, *SHORT, f"output_dir={place.parent / name}", *overrides)


def certificate(config) -> dict:
    return read_json(Path(config.output_dir) / "privacy.json")


def payments(folder) -> list:
    return Book(folder).payments


def test_runs_by_any_name_compose_and_the_next_is_refused_before_it_trains(place, book_folder):
    for i in range(3):
        config = at(place, f"run-{i}", *ceiling(3))
        train(config)
        life = certificate(config)["silos"]["east"]["lifetime"]
        assert (life["runs"], life["epsilon"]) == (i + 1, pytest.approx(cost(i + 1)))
        assert verify(Path(config.output_dir)).findings == ()
    before = (book_folder / "book.jsonl").read_bytes()
    config = at(place, "run-3", *ceiling(3))
    with pytest.raises(ConfigError) as error:
        train(config)
    told = str(error.value)
    assert told.startswith("privacy.lifetime: the records of east have paid epsilon")
    assert "in 3 earlier runs" in told
    assert f"{cost(3):.4g}" in told
    assert f"{cost(4):.4g}" in told
    assert "raise max_epsilon" in told
    assert not Path(config.output_dir).exists()
    assert (book_folder / "book.jsonl").read_bytes() == before


def test_a_copy_with_a_record_less_is_the_same_and_other_records_are_not(place, tmp_path):
    train(at(place, "run", *ceiling(1)))
    records = notes()
    write_csv(tmp_path / "copy.csv", records[1:])
    with pytest.raises(ConfigError, match="in 1 earlier runs"):
        train(at(place, "copied", *ceiling(1), f"data.path={tmp_path / 'copy.csv'}"))
    others = [{**r, "text": f"{r['text']} number {i}"} for i, r in enumerate(records)]
    write_csv(tmp_path / "others.csv", others)
    train(at(place, "others", *ceiling(1), f"data.path={tmp_path / 'others.csv'}"))
    write_csv(tmp_path / "others.csv", [{**r, "text": r["text"] + " edited"} for r in others])
    with pytest.raises(ConfigError, match="in 1 earlier runs"):
        train(at(place, "edited", *ceiling(1), f"data.path={tmp_path / 'others.csv'}"))


def test_other_labels_columns_and_silos_do_not_make_records_new(place):
    """What a server could ask for, to be given another budget."""
    train(at(place, "run", *ceiling(1)))
    for change in (
        ["data.labels=[dog, cat]"],
        ["data.silos={num: 2}", "data.num_examples={silo-0: 20, silo-1: 20}"],
        ["train.seed=5"],
        ["data.max_length=8"],
        ["data.limit=10", "train.batch_size=4", "data.num_examples={east: 10, west: 10}"],
    ):
        with pytest.raises(ConfigError, match="in 1 earlier runs"):
            train(at(place, "again", *ceiling(1), *change))


def test_a_resumed_run_pays_once_for_every_round(place, book_folder):
    config = small(place, *PRIVATE, "privacy.reserve_rounds=0", *ceiling(3))
    train(config, until=0)
    train(config, resume=True)
    found = sorted((p.silo, p.round) for p in payments(book_folder))
    assert found == [(silo, i) for silo in SILOS for i in range(3)]
    life = certificate(config)["silos"]["west"]["lifetime"]
    own = certificate(config)["silos"]["west"]["epsilon"]
    assert (life["runs"], life["epsilon"]) == (1, pytest.approx(own, rel=1e-9))


def test_a_run_killed_between_book_and_ledger_goes_on(place, book_folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    config = at(place, "run")
    with monkeypatch.context() as patch:
        patch.setattr(SiloStore, "releasing", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert [(p.silo, p.round) for p in payments(book_folder)] == [("east", 0)]
    train(config, resume=True)
    assert [p.silo for p in payments(book_folder)] == ["east", "east", "west"]
    assert verify(Path(config.output_dir)).findings == ()


def put_back(config, until: int) -> None:
    """Go on with a run up to a round, and put its folder back as it was before."""
    folder = Path(config.output_dir)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    train(config, resume=True, until=until)
    shutil.rmtree(folder)
    copy.rename(folder)


def test_a_folder_put_back_from_a_copy_is_no_new_budget(place, book_folder):
    config = small(place, *PRIVATE)
    train(config, until=0)
    put_back(config, until=2)
    before = (book_folder / "book.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"privacy.lifetime: .*put back from an older copy"):
        train(config, resume=True)
    assert (book_folder / "book.jsonl").read_bytes() == before


def test_a_round_that_was_put_back_stays_in_the_figure_for_life(place, book_folder):
    """It cannot be told from a crash, and so it is paid for again."""
    config = small(place, *PRIVATE, "privacy.reserve_rounds=0")
    train(config, until=0)
    for _ in range(2):
        put_back(config, until=1)
    train(config, resume=True)
    assert [p.round for p in payments(book_folder) if p.silo == "east"] == [0, 1, 1, 1, 2]
    silo = certificate(config)["silos"]["east"]
    assert silo["epsilon"] == pytest.approx(cost(3))
    assert silo["lifetime"]["epsilon"] == pytest.approx(cost(5))
    assert verify(Path(config.output_dir)).findings == ()


def test_somebody_who_spends_meanwhile_stops_a_run(place):
    config = small(place, *PRIVATE, "privacy.reserve_rounds=0", *ceiling(3))
    with opened(config, [], NO_WORKER, resume=False) as job:
        todo = rounds(job)
        next(todo)
        next(todo)
        train(at(place, "another"))
        next(todo)
        with pytest.raises(QuorumError, match="east: it refused or failed"):
            next(todo)


def test_a_book_that_was_rolled_back_is_refused_in_words(place, book_folder):
    config = small(place, *PRIVATE)
    train(config, until=0)
    shutil.copytree(book_folder, copy := book_folder.with_name("older"))
    train(config, resume=True, until=1)
    lines, whole = book_folder / "book.jsonl", (book_folder / "book.jsonl").read_bytes()
    lines.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    with pytest.raises(ConfigError, match=r"privacy.lifetime: .*has 2 lines, and had 4"):
        train(config, resume=True)
    lines.unlink()
    with pytest.raises(ConfigError, match=r"privacy.lifetime: .*book.jsonl was there, and is gone"):
        train(config, resume=True)
    shutil.rmtree(book_folder)
    copy.rename(book_folder)
    with pytest.raises(ConfigError, match=r"privacy.lifetime: .*book: lacks 2 steps of this run"):
        train(config, resume=True)


def test_a_book_that_cannot_be_read_is_refused_before_anything_is_made(place, book_folder):
    train(at(place, "run"))
    (book_folder / "key").unlink()
    with pytest.raises(ConfigError, match=r"privacy.lifetime: .*its key is lost"):
        train(at(place, "next"))
    assert not (place.parent / "next").exists()


def test_a_home_that_cannot_be_written_names_the_key(place, tmp_path):
    (tmp_path / "home").write_text("a file")
    folder = f"privacy.lifetime.folder={tmp_path / 'home' / 'book'}"
    with pytest.raises(ConfigError, match=r"privacy.lifetime: .*home/book: Not a directory; name"):
        train(at(place, "run", folder))
    assert not (place.parent / "run").exists()


def test_a_key_names_the_place(place, tmp_path, book_folder):
    train(at(place, "run", f"privacy.lifetime.folder={tmp_path / 'mine'}"))
    assert len(payments(tmp_path / "mine")) == 2
    assert not book_folder.exists()


def test_by_default_it_is_in_the_users_data_folder(place, tmp_path, monkeypatch):
    monkeypatch.delenv("SILOTUNE_LIFETIME_FOLDER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    train(at(place, "run"))
    assert len(payments(tmp_path / "share" / "silotune" / "lifetime")) == 2


def test_off_writes_nothing_and_the_certificate_says_so(place, book_folder):
    config = at(place, "run", "privacy.lifetime=off")
    train(config)
    assert not book_folder.exists()
    said = certificate(config)
    assert said["lifetime"] == "off"
    assert said["silos"]["east"]["lifetime"] is None
    assert any("privacy.lifetime: off" in text for text in said["not_covered"])
    assert verify(Path(config.output_dir)).findings == ()
    write_json(Path(config.output_dir) / "privacy.json", {**said, "lifetime": "recorded"})
    found = [f.where for f in verify(Path(config.output_dir)).findings]
    assert found == ["silo east: lifetime", "silo west: lifetime", "lifetime", "lifetime"]


@pytest.mark.parametrize(
    ("began", "resumed", "told"),
    [
        full(
            [], ["privacy.lifetime=off"], "was begun with a book for life, and is to go on without"
        ),
        (["privacy.lifetime=off"], [], "was begun without a book for life, and is to go on with"),
    ],
)
def test_a_resume_changes_nothing_about_the_book(place, book_folder, began, resumed, told):
    train(small(place, *PRIVATE, *began), until=0)
    before = sorted((file, file.read_bytes()) for file in book_folder.rglob("*") if file.is_file())
    config = small(place, *PRIVATE, *resumed)
    with pytest.raises(ConfigError, match=f"privacy.lifetime: .*{told}"):
        train(config, resume=True)
    assert before == sorted((f, f.read_bytes()) for f in book_folder.rglob("*") if f.is_file())
    train(small(place, *PRIVATE, *began), resume=True)


@pytest.mark.parametrize(
    ("damage", "told"),
    [("lost", "was begun with a book"), full("silent", "federation.json does not say")],
)
def test_a_run_of_which_nobody_knows_goes_on_with_its_book_alone(place, damage, told):
    train(small(place, *PRIVATE), until=0)
    file = RunFolder(place.parent / "run").description
    if damage == "lost":
        file.unlink()
    else:
        described = read_json(file)
        del described["beside"]
        write_json(file, described)
    with pytest.raises(ConfigError, match=f"privacy.lifetime: .*{told}"):
        train(small(place, *PRIVATE, "privacy.lifetime=off"), resume=True)
    train(small(place, *PRIVATE), resume=True)


def test_a_touched_figure_for_life_is_refused_by_name(place):
    train(at(place, "first"))
    config = at(place, "run")
    train(config)
    whole = json.dumps(certificate(config))

    def findings(change) -> list[str]:
        data = json.loads(whole)
        change(data["silos"]["east"]["lifetime"])
        write_json(Path(config.output_dir) / "privacy.json", data)
        found = [f.where for f in verify(Path(config.output_dir)).findings]
        if found:
            assert found.pop() == "run.json", "it has the digest of what was found"
        return found

    assert findings(lambda life: None) == []
    assert findings(lambda life: life.update(epsilon=1.0)) == ["silo east: lifetime: epsilon"]
    assert findings(lambda life: life.update(runs=1)) == ["silo east: lifetime: runs"]
    assert findings(lambda life: life.update(earlier=[{}])) == ["silo east: lifetime"]
    assert findings(lambda life: life["earlier"][0].update(seeded=True)) == [
        "silo east: lifetime: epsilon",
        "silo east: lifetime: because",
    ]


def test_seeded_noise_is_remembered_and_a_ceiling_refuses_what_follows(place, book_folder):
    seeded = "privacy.insecure_seeded_noise=true"
    with pytest.raises(ConfigError, match="insecure_seeded_noise protects nothing"):
        train(at(place, "refused", seeded, *ceiling(9)))
    train(at(place, "seeded", seeded))
    assert all(p.seeded for p in payments(book_folder))
    config = at(place, "after")
    with opened(config, [], NO_WORKER, resume=False) as job:
        assert any("of east, west were in runs" in text for text in job.built.notices)
    shutil.rmtree(config.output_dir)
    train(config)
    life = certificate(config)["silos"]["east"]["lifetime"]
    assert (life["epsilon"], life["because"]) == (None, SEEDED)
    assert verify(Path(config.output_dir)).findings == ()
    with pytest.raises(ConfigError, match="drew its noise from a seed"):
        train(at(place, "refused", *ceiling(9)))


def test_a_ceiling_is_no_part_of_what_is_agreed(place, tmp_path):
    one = build(at(place, "run", *ceiling(3)))
    other = build(at(place, "run", f"privacy.lifetime.folder={tmp_path / 'mine'}"))
    assert digest(one) == digest(other)
    train(at(place, "run", *ceiling(3)))
    described = described_in(RunFolder(place.parent / "run").description)
    assert described.lifetime == one.lifetime


@pytest.mark.parametrize(
    ("privacy", "told"),
    [
        ("privacy={unit: none, lifetime: {max_epsilon: 3}}", "is for privacy.unit: example"),
        (
            "privacy={unit: client, target_epsilon: 9, target_delta: 0.1, "
            "lifetime: {max_epsilon: 3}}",
            "is for privacy.unit: example",
        ),
        (
            "privacy={noise_multiplier: 2, lifetime: {max_epsilon: 3, record: false}}",
            "off records nothing",
        ),
        ("privacy={noise_multiplier: 2, lifetime: {max_epsilon: 0}}", "greater than 0"),
        ("privacy={noise_multiplier: 2, lifetime: never}", "takes `key: value` pairs"),
    ],
)
def test_a_ceiling_that_cannot_be_kept_is_refused(place, privacy, told):
    with pytest.raises(ConfigError, match=told):
        small(place, privacy, "train.weighting=uniform")


@pytest.mark.parametrize("given", [3, "on", {"max_epsilon": 3}])
def test_in_python_it_is_said_what_may_be_given(given):
    with pytest.raises(ValueError, match=r"lifetime: give silotune.Lifetime"):
        federation("a model", lifetime=given)


def test_what_is_read_is_the_same_in_every_way_to_open_it(place):
    """The parent and the workers of a pool find the same records."""
    built = open_federation(at(place, "run"))
    one, other = open_accounts(built), open_accounts(open_federation(at(place, "run")))
    assert {n: a.records.id for n, a in one.items()} == {n: a.records.id for n, a in other.items()}
    assert {a.records.whose for a in one.values()} == set(SILOS)


def test_experts_bring_the_charges_of_their_run(place, tmp_path, monkeypatch):
    first = at(place, "experts", "method={name: fedsa-lora, r: 2}")
    train(first)
    folders = [str(own_adapter(RunFolder(Path(first.output_dir)), silo)) for silo in SILOS]
    mixture = f"method={{name: mole, experts: {json.dumps(folders)}}}"

    def life(name) -> dict:
        config = at(place, name, mixture)
        train(config)
        assert verify(Path(config.output_dir)).findings == ()
        said = certificate(config)
        assert EXPERTS_COUNTED in said["not_covered"]
        return said["silos"]["east"]["lifetime"]

    known = life("known")
    assert (known["runs"], known["epsilon"]) == (2, pytest.approx(cost(2)))
    monkeypatch.setenv("SILOTUNE_LIFETIME_FOLDER", str(tmp_path / "elsewhere"))
    brought = life("brought")
    assert (brought["runs"], brought["epsilon"]) == (2, pytest.approx(cost(2)))
    with pytest.raises(ConfigError, match="in 2 earlier runs"):
        train(at(place, "refused", mixture, *ceiling(2)))


@pytest.mark.full
def test_workers_of_a_pool_write_into_the_same_book(place, book_folder):
    from silotune.federation.workers import SILOTUNE

    config = at(place, "run", "runtime=pool", "workers=2", "train.threads=1")
    with opened(config, [], [*SILOTUNE, "worker"], resume=False) as job:
        list(rounds(job))
    assert sorted(p.silo for p in payments(book_folder)) == list(SILOS)
