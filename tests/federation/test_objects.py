"""Objects in, a run out: the same run as from YAML, resumed to the bit, and nice to look at."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import silotune as st
from covering import full, some
from federation.objects import SEEDED, federation, tables
from federation.small import small, train
from federation.test_load import write_tables
from silotune.cli import app
from silotune.federation.progress import watched
from silotune.privacy.ledger.ledger import Ledger

PRIVATE = (
    "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3, insecure_seeded_noise: true}",
    "data.num_examples={east: 20, west: 20}",
)
SIZES = {"east": 20, "west": 20}


def adapters(folder) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("adapter_model.safetensors"))
    }


def certificate(folder) -> dict:
    """All of it but the run's name and digests of what says when."""
    found = json.loads((folder / "privacy.json").read_text())
    for name in ("run", "files", "facts"):
        del found[name]
    for silo in found["silos"].values():
        del silo["head"]
    return found


METHODS = {
    "ffa-lora": st.methods.FFALoRA(r=2),
    "fedsa-lora": st.methods.FedSALoRA(r=2),
    "flora": st.methods.FLoRA(r=2),
}


@pytest.mark.parametrize("name", some(METHODS, "fedsa-lora"))
def test_from_yaml_and_from_objects_it_is_the_same_run(place, bert, tmp_path, name):
    train(small(place, f"method={{name: {name}, r: 2}}", *PRIVATE))
    run = federation(bert, method=METHODS[name], privacy=SEEDED, num_examples=SIZES).fit(
        tmp_path / "objects"
    )
    ours, theirs = adapters(tmp_path / "objects"), adapters(tmp_path / "run")
    assert ours
    assert ours == theirs
    assert certificate(tmp_path / "objects") == certificate(tmp_path / "run")
    verification = run.privacy.verify()
    assert verification.ok, verification.findings
    assert "federation.json" in verification.compared


def test_a_model_object_and_its_name_give_the_same_bytes(bert, tmp_path):
    given = {"privacy": SEEDED, "num_examples": SIZES, "rounds": 1}
    federation(bert, **given).fit(tmp_path / "name")
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tokenizer = AutoTokenizer.from_pretrained(bert)
    federation(model, tokenizer=tokenizer, **given).fit(tmp_path / "object")
    assert adapters(tmp_path / "object") == adapters(tmp_path / "name")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "it is copied"


def test_tables_of_every_kind_give_the_same_bytes(bert, tmp_path):
    rows = tables()
    kinds = {
        "lists": rows,
        "data sets": {name: Dataset.from_list(table) for name, table in rows.items()},
        "dicts": {n: DatasetDict(train=Dataset.from_list(table)) for n, table in rows.items()},
        "paths": write_tables(tmp_path),
    }
    found = {}
    for kind, clients in kinds.items():
        federation(bert, clients=clients, rounds=1).fit(tmp_path / kind)
        found[kind] = adapters(tmp_path / kind)
    assert all(bytes_ == found["lists"] for bytes_ in found.values())


def test_a_test_part_is_for_the_final_figure(bert, tmp_path):
    run = federation(bert, rounds=1, test=tables(10)["east"]).fit(tmp_path / "run")
    assert run.facts.final["accuracy"] == run.evaluate(tables(10)["east"]).metrics["accuracy"]


@pytest.mark.parametrize("name", some(METHODS, "fedsa-lora"))
def test_a_run_that_was_stopped_is_resumed_to_the_bit(bert, tmp_path, name):
    method = METHODS[name]
    one = federation(bert, method=method, privacy=SEEDED, num_examples=SIZES)
    one.fit(tmp_path / "whole")
    for record in one.rounds(tmp_path / "stopped"):
        if record.round == 1:
            break
    again = federation(bert, method=method, privacy=SEEDED, num_examples=SIZES)
    run = again.fit(tmp_path / "stopped", resume=True)
    assert adapters(tmp_path / "stopped") == adapters(tmp_path / "whole")
    assert certificate(tmp_path / "stopped") == certificate(tmp_path / "whole")
    assert [r.round for r in run.metrics] == [-1, 0, 1, 2]
    before = run.folder.run.read_bytes()
    assert again.fit(tmp_path / "stopped", resume=True).folder == run.folder
    assert run.folder.run.read_bytes() == before  # finished: nothing is done


@pytest.mark.full  # at hand the process of the command line is
def test_a_killed_process_is_resumed_to_the_bit(bert, tmp_path):
    paths = write_tables(tmp_path)
    one = {"clients": {c: str(p) for c, p in paths.items()}, "privacy": SEEDED}
    program = f"""
        import os
        from federation.objects import SEEDED, federation
        import torch
        torch.set_num_threads(1)
        clients = {one["clients"]!r}
        one = federation({str(bert)!r}, clients=clients, privacy=SEEDED, num_examples=20, rounds=2)
        for record in one.rounds({str(tmp_path / "killed")!r}):
            if record.round == 0:
                os._exit(9)
    """
    tests = os.path.dirname(os.path.dirname(__file__))
    path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 9
    federation(bert, **one, num_examples=20, rounds=2).fit(tmp_path / "killed", resume=True)
    federation(bert, **one, num_examples=20, rounds=2).fit(tmp_path / "whole")
    assert adapters(tmp_path / "killed") == adapters(tmp_path / "whole")


def with_another_word(records, row=3):
    """The same shape in all that may be seen of it."""
    return [{**r, "text": r["text"] + "s"} if i == row else r for i, r in enumerate(records)]


def test_other_records_of_the_same_shape_are_not_the_same_run(bert, tmp_path):
    """Not to be gone on with, nor shown as if it were theirs."""
    given, place = {"privacy": SEEDED, "num_examples": SIZES, "rounds": 2}, tmp_path / "run"
    one = federation(bert, **given)
    other = federation(
        bert, **given, clients={**tables(), "west": with_another_word(tables()["west"])}
    )
    words = "^resume: west has other records than this run began with"
    begun = one.rounds(place)
    next(begun), next(begun)
    begun.close()
    with pytest.raises(ValueError, match=words):
        other.fit(place, resume=True)
    one.fit(place, resume=True)
    for show in (lambda: other.fit(place, resume=True), lambda: other.result(place)):
        with pytest.raises(ValueError, match=words):
            show()
    assert one.result(place).metrics is not None
    public = [f for f in place.rglob("*") if f.is_file() and "sites" not in f.parts]
    kept = json.loads((place / "sites" / "west" / "records.json").read_text())["sha256"]
    assert len(kept) == 64
    assert not any(kept.encode() in file.read_bytes() for file in public)
    assert "rows" not in (place / "federation.json").read_text()
    (place / "sites" / "west" / "records.json").unlink()
    with pytest.raises(ValueError, match=r"records.json is gone"):
        one.fit(place, resume=True)


def test_other_records_in_the_same_file_are_not_the_same_run(bert, tmp_path):
    clients = write_tables(tmp_path)
    given = {"clients": clients, "privacy": SEEDED, "num_examples": SIZES, "rounds": 2}
    begun = federation(bert, **given).rounds(tmp_path / "run")
    next(begun), next(begun)
    begun.close()
    file = Path(clients["east"])
    file.write_text(file.read_text().replace("cat", "dog", 1))
    with pytest.raises(ValueError, match=r"^resume: east has other records"):
        federation(bert, **given).fit(tmp_path / "run", resume=True)


@pytest.mark.full  # at hand the pool of the command line does
def test_a_pool_gives_the_same_bits(bert, tmp_path, monkeypatch):
    (tmp_path / "own_rule.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            import silotune as st

            @dataclass(frozen=True)
            class Half(st.Aggregator):
                def combine(self, previous, mean):
                    return st.Combined(factors=previous.factors.lerp(mean.first, 0.5))
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    import own_rule

    one = {
        "clients": write_tables(tmp_path),
        "method": st.methods.FedIT(r=2).with_(aggregator=own_rule.Half()),
        "privacy": SEEDED,
        "num_examples": SIZES,
        "threads": 1,
        "device": "cpu",
        "rounds": 2,
    }
    federation(bert, **one).fit(tmp_path / "here")
    federation(bert, **one, runtime="pool", workers=1).fit(tmp_path / "pool")
    assert adapters(tmp_path / "pool") == adapters(tmp_path / "here")
    assert certificate(tmp_path / "pool") == certificate(tmp_path / "here")


def test_the_command_line_reads_a_run_without_yaml(bert, tmp_path):
    run = federation(
        bert, clients=write_tables(tmp_path), privacy=SEEDED, num_examples=SIZES, rounds=1
    ).fit(tmp_path / "run")
    place = str(tmp_path / "run")

    def silotune(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code in (0, 1), result.output
        return result.output

    assert "valid: accuracy" in silotune("evaluate", place)
    silotune("export", place, "--format", "merged", "--output", str(tmp_path / "merged"))
    assert (tmp_path / "merged" / "config.json").is_file()
    assert "federation.json" in silotune("privacy", "verify", place)
    assert run.facts.status == "finished"


def test_a_run_of_tables_in_memory_is_evaluated_where_they_are(bert, tmp_path):
    run = federation(bert, rounds=1).fit(tmp_path / "run")
    said = run.evaluate().metrics["accuracy"]
    assert said == pytest.approx(run.metrics[-1].metrics["accuracy"])
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run")])
    assert "objects of a program, which no file holds" in result.output


def test_a_spent_budget_leaves_what_is_done(bert, tmp_path):
    """The ledger of one client says that it has been charged for another round already."""
    target = st.ExampleDP(target_epsilon=8.0, target_delta=1e-3, reserve_rounds=0)
    one = federation(bert, privacy=target, num_examples=SIZES, lifetime="off")  # it would notice
    for record in one.rounds(tmp_path / "run"):
        if record.round == 1:
            break
    ledger = Ledger(tmp_path / "run" / "sites" / "east" / "ledger.jsonl")
    ledger.follow()
    ledger.append(replace(ledger.chain.entries[-1], round=7, attempt=1))
    with pytest.raises(st.QuorumError):
        one.fit(tmp_path / "run", resume=True)
    run = one.result(tmp_path / "run")
    assert run.facts.status == "stopped: the privacy budget of east, west is spent"
    assert len(run.metrics) == 3
    assert st.load(tmp_path / "run").labels == ("cat", "dog")


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "stopped: interrupted"), (ValueError("no\nmore"), "failed: no more")],
    ids=["interrupted", "failed"],
)
def test_a_run_says_why_it_ended(bert, tmp_path, monkeypatch, error, status):
    def break_down(*_: object) -> None:
        raise error

    one = federation(bert, rounds=1)
    with monkeypatch.context() as patch:
        patch.setattr("silotune.engine.loop.server_step", break_down)
        with pytest.raises(type(error)):
            one.fit(tmp_path / "run")
    assert one.result(tmp_path / "run").facts.status == status
    assert one.fit(tmp_path / "run", resume=True).facts.status == "finished"
    with pytest.raises(ValueError, match="another federation"):
        federation(bert, rounds=1, seed=3).result(tmp_path / "run")


def test_verify_needs_the_folder_alone(bert, tmp_path):
    federation(bert, privacy=SEEDED, num_examples=SIZES, rounds=1).fit(tmp_path / "run")
    found = st.verify(str(tmp_path / "run"))
    assert found.ok, found.findings
    assert {"run.json", "federation.json"} <= set(found.compared)
    file = tmp_path / "run" / "federation.json"
    file.write_text(file.read_text().replace('"noise_multiplier": 2.0', '"noise_multiplier": 4.0'))
    said = {f"{f.where}: {f.text}" for f in st.verify(tmp_path / "run").findings}
    assert any("federation.json: is not the configuration" in text for text in said)
    assert any("noise_multiplier" in text for text in said)


def test_what_a_run_shows(bert, tmp_path):
    one = federation(bert, privacy=SEEDED, num_examples=SIZES)
    plan = str(one.plan())
    assert "noise multiplier" in plan
    assert "east" in plan
    assert all(len(line) <= 160 for line in plan.splitlines())
    run = one.fit(tmp_path / "run", progress=False)
    frame = run.metrics.to_pandas()
    assert list(frame["round"]) == [-1, 0, 1, 2]
    assert {"accuracy", "loss", "seconds", "bytes_up"} <= set(frame.columns)
    for what in ("accuracy", "epsilon", "bytes", None):
        assert isinstance(run.plot(what), matplotlib.figure.Figure)
    assert "finished, 3 rounds, accuracy" in repr(run)
    assert "NOT PRIVATE" in repr(run.privacy)
    assert "aggregation error" in repr(run.metrics)
    assert run.privacy.epsilon.keys() == {"east", "west"}
    assert run.report().read_text().startswith("<!")
    run.save_pretrained(tmp_path / "adapter")
    texts = [r["text"] for r in tables()["east"]]
    saved, ran = st.load(tmp_path / "adapter"), st.load(tmp_path / "run")
    assert saved.predict(texts) == ran.predict(texts)
    model = run.merged_model()
    assert type(model).__name__ == "BertForSequenceClassification"


@pytest.mark.parametrize("progress", [full(None), True, False])
def test_a_bar_is_shown_where_somebody_sees_it(bert, tmp_path, capsys, progress):
    federation(bert, rounds=2).fit(tmp_path / "run", progress=progress)
    shown = capsys.readouterr().err
    assert ("2/2" in shown and "accuracy" in shown) == (progress is True)


def test_a_bar_hands_on_every_record(bert, tmp_path):
    one = federation(bert, rounds=2)
    records = list(watched(one.rounds(tmp_path / "run"), one.terms, "accuracy", progress=False))
    assert [r.round for r in records] == [-1, 0, 1]


def test_an_empty_part_of_a_client_is_not_replaced(bert):
    east, west = tables().values()
    found = federation(bert, clients={"east": {"train": east, "valid": []}, "west": west}).data()
    assert set(found.held_out) == {"west"}, "none of its training records is held out"
    found = federation(bert, clients={"east": {"train": east, "valid": west[:5]}, "west": west})
    assert found.data().held_out["east"] == 5
