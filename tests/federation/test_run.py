"""From a configuration to a result folder, whole or in pieces."""

import json
import os
import shutil
from pathlib import Path

import pytest

import silotune.federation.run as run_module
from by_config import evaluate, is_finished, open_federation, opened
from covering import full
from federation.small import (
    BUDGET,
    NO_WORKER,
    PRIVATE,
    charge_again,
    notes,
    small,
    train,
    weights,
    write_csv,
)
from silotune.core.files import read_json, read_lines
from silotune.engine import QuorumError
from silotune.federation import scoring
from silotune.federation.baselines import silo_alone
from silotune.federation.keeping import mend
from silotune.federation.run import exhausted, finish, rounds, stop
from silotune.runs.folder import RunFolder
from silotune.testing.tiny_models import tiny_bert
from silotune.version import __version__


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def train_without_checkpoint(config, monkeypatch):
    """Everything of round 0 is on the disk but its checkpoint."""

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", crash)
        with pytest.raises(KeyboardInterrupt):
            train(config)


@pytest.mark.usefixtures("drawn")
def test_a_run_leaves_everything_that_was_promised(place):
    config = small(place)
    records = train(config)
    folder = RunFolder(Path(config.output_dir))
    assert [record.round for record in records] == [-1, 0, 1, 2]
    promised = {"config.yaml", "run.json", "metrics.jsonl", "ledger.jsonl", "privacy.json"}
    assert names(folder.path) >= promised | {"checkpoint", "adapter", "report.html"}
    assert names(folder.adapter) == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
        "silotune.json",
    }
    assert folder.read_rounds() == records
    assert read_json(folder.run)["status"] == "finished"
    assert read_json(folder.privacy)["unit"] == "none"
    assert is_finished(folder, config)
    assert not is_finished(folder, small(place, "train.num_rounds=4"))


@pytest.mark.parametrize("until", [full(-1), 0, full(2)])
def test_a_run_that_was_cut_ends_in_the_same_bits(place, until):
    whole = small(place, f"output_dir={place.parent / 'whole'}")
    train(whole)
    config = small(place)
    train(config, until=until)
    train(config, resume=True)
    assert weights(config) == weights(whole)
    recorded = RunFolder(Path(config.output_dir)).read_rounds()
    assert [record.round for record in recorded] == [-1, 0, 1, 2]


def test_a_round_beyond_the_checkpoint_is_trained_again(place, monkeypatch):
    whole = small(place, f"output_dir={place.parent / 'whole'}")
    train(whole)
    config = small(place)

    train_without_checkpoint(config, monkeypatch)
    train(config, resume=True)
    assert weights(config) == weights(whole)
    recorded = RunFolder(Path(config.output_dir)).read_rounds()
    assert [record.round for record in recorded] == [-1, 0, 1, 2]


def test_a_private_round_is_not_charged_twice_when_the_server_forgot_it(place, monkeypatch):
    config = small(place, *PRIVATE)

    train_without_checkpoint(config, monkeypatch)
    folder = RunFolder(Path(config.output_dir))
    assert len(read_lines(folder.ledger, newest=3)) == 2
    train(config, resume=True)
    charged = [(line["silo"], line["round"]) for line in read_lines(folder.ledger, newest=3)]
    assert sorted(charged) == [(silo, i) for silo in ("east", "west") for i in range(3)]


def test_a_private_run_says_what_it_spent(place):
    config = small(place, *PRIVATE)
    records = train(config)
    said = read_json(RunFolder(Path(config.output_dir)).privacy)
    east = said["silos"]["east"]
    assert (east["steps"], east["rounds"], east["noise_multiplier"]) == (6, 3, 2.0)
    assert east["sampling_rate"] == 8 / 20
    assert 0 < east["epsilon"] <= records[-1].epsilon["east"]
    spent = [record.epsilon["east"] for record in records[1:]]
    assert spent == sorted(spent)
    assert any("simulation" in text for text in said["not_covered"])
    assert all(record.seconds == int(record.seconds) for record in records), "no finer"
    assert all(record.seconds >= 1 for record in records[1:]), "rounded up"
    own = RunFolder(Path(config.output_dir)).site("east")
    assert not (own / "keys").exists(), "only correlated noise goes on from a key"


def test_a_spent_budget_ends_the_run_with_what_is_done(place):
    config = small(place, *BUDGET)
    with opened(config, [], NO_WORKER, resume=False) as job:
        todo = rounds(job)
        next(todo)
        next(todo)
        assert exhausted(job) == []
        charge_again(job.folder.site("west") / "ledger.jsonl", 3)
        assert exhausted(job) == ["west"]
        with pytest.raises(QuorumError, match="west: its budget is spent"):
            next(todo)
        finish(job, status="stopped: spent")
    folder = RunFolder(Path(config.output_dir))
    assert read_json(folder.run)["status"] == "stopped: spent"
    assert folder.report.is_file()
    assert (folder.adapter / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    "there", [full(()), full(("config.yaml",)), ("config.yaml", "federation.json")]
)
def test_a_start_that_was_killed_goes_on(place, there):
    config = small(place)
    folder = RunFolder(Path(config.output_dir))
    with opened(config, [], NO_WORKER, resume=False):
        pass
    for file in {folder.run, folder.config, folder.description}:
        if file.name not in there:
            file.unlink()
    with pytest.raises(ValueError, match=r"already holds a run; continue it with --resume"):
        train(config)
    assert folder.state.is_file()
    train(config, resume=True)
    assert is_finished(folder, config)


def test_one_process_at_a_time_has_the_folder(place):
    config = small(place)
    with opened(config, [], NO_WORKER, resume=False) as job:
        todo = rounds(job)
        next(todo)
        before = {path: path.read_bytes() for path in job.folder.path.rglob("*") if path.is_file()}
        for resume in (False, True):
            with (
                pytest.raises(
                    ValueError, match=f"output_dir: a run is going on in .*{os.getpid()}"
                ),
                opened(config, [], NO_WORKER, resume=resume),
            ):
                pass
        with pytest.raises(ValueError, match="a run is going on"):
            evaluate(job.folder)
        assert before == {path: path.read_bytes() for path in before}
        assert [record.round for record in todo] == [0, 1, 2]
        finish(job)
    assert not job.folder.lock.exists()
    assert evaluate(job.folder).metrics


def test_a_result_that_was_damaged_is_made_again(place):
    config = small(place)
    train(config)
    folder, before = RunFolder(Path(config.output_dir)), weights(config)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        file = folder.adapter / name
        whole = file.read_bytes()
        for content in (b"", b"{", b"[7]", whole[: len(whole) // 2]):
            file.write_bytes(content)
            assert not is_finished(folder, config)
            with pytest.raises(ValueError, match=rf"{name} cannot be read: .*\(--resume\)"):
                evaluate(folder)
        file.write_bytes(whole)
    file.unlink()
    train(config, resume=True)
    assert weights(config) == before
    for file in (folder.report, folder.metrics, folder.privacy):
        file.unlink()
        assert not is_finished(folder, config)
        mend(folder)
        train(config, resume=True)
        assert is_finished(folder, config)
    assert [record.round for record in folder.read_rounds()] == [-1, 0, 1, 2]


def test_a_folder_with_somebody_elses_config_is_left_alone(place):
    config = small(place)
    folder = RunFolder(Path(config.output_dir))
    folder.path.mkdir()
    folder.config.write_text("mine")
    with pytest.raises(ValueError, match="already holds a run"):
        train(config)
    assert folder.config.read_text() == "mine"
    assert names(folder.path) == {"config.yaml"}


def test_a_start_that_fails_leaves_nothing(place, monkeypatch):
    config = small(place)

    def full(*_):
        raise ValueError("full")

    monkeypatch.setattr("silotune.federation.keeping.write_text", full)
    with pytest.raises(ValueError, match="full"):
        train(config)
    assert not Path(config.output_dir).exists()


def test_a_finished_or_running_run_is_not_overwritten(place):
    config = small(place)
    train(config)
    before = weights(config)
    with pytest.raises(ValueError, match=r"already holds a run.*--resume.*--output-dir"):
        train(config)
    assert weights(config) == before


def test_another_configuration_cannot_continue_a_run(place):
    train(small(place), until=0)
    with pytest.raises(ValueError, match=r"resume: .*terms\.method\.r \(2 -> 4\)"):
        train(small(place, "method.r=4"), resume=True)


def test_where_a_run_goes_on_may_change_and_is_written_down(place):
    train(small(place), until=0)
    config = small(place, "train.per_device_eval_batch_size=3")
    train(config, resume=True)
    saved = (Path(config.output_dir) / "config.yaml").read_text()
    assert "per_device_eval_batch_size: 3" in saved


def test_a_run_that_goes_on_with_another_version_names_both(place, monkeypatch):
    config, folder = small(place), RunFolder(place.parent / "run")
    train(config, until=0)
    began = read_json(folder.run)["versions"]
    for version, until in (("7.0", 1), ("8.0", -2), ("9.0", None)):
        with monkeypatch.context() as patch:
            patch.setattr("silotune.federation.versions.__version__", version)
            with opened(config, [], NO_WORKER, resume=True) as job:
                assert f"(silotune {before(version)} -> {version})" in job.built.notices[-1]
                for record in rounds(job) if until != -2 else ():
                    if record.round == until:
                        break
                else:
                    if until is None:
                        finish(job)
    found = read_json(folder.run)
    assert found["versions"] == began
    named = [(one["round"], one["versions"]["silotune"]) for one in found["upgrades"]]
    assert named == [(1, "7.0"), (2, "9.0")], "with 8.0 no round was made"
    assert "from round 2 on: silotune 9.0" in (folder.adapter / "README.md").read_text()


def before(version: str) -> str:
    return {"7.0": __version__, "8.0": "7.0", "9.0": "7.0"}[version]


def test_other_base_weights_cannot_continue_a_run(place, tmp_path):
    model = tiny_bert(tmp_path / "model")
    config = small(place, f"model.name_or_path={model}")
    train(config, until=0)
    shutil.rmtree(model)
    tiny_bert(model, seed=1)
    with pytest.raises(ValueError, match="not those of this run"):
        train(config, resume=True)


def test_resume_without_a_run_is_refused_before_anything_is_opened(place):
    config = small(place, "model.name_or_path=./nowhere")
    with pytest.raises(ValueError, match="no run is here"):
        train(config, resume=True)


def test_a_stopped_run_says_so_and_can_go_on(place):
    config = small(place)
    with opened(config, [], NO_WORKER, resume=False) as job:
        stop(job, "stopped: interrupted")
    folder = RunFolder(Path(config.output_dir))
    assert read_json(folder.run)["status"] == "stopped: interrupted"
    train(config, resume=True)
    assert read_json(folder.run)["status"] == "finished"


def test_the_last_state_is_scored_once_where_the_rounds_are_its_measure(place, monkeypatch):
    """And anew where another process finishes what this one has not scored."""
    config, asked = small(place, "train.num_rounds=1"), []
    monkeypatch.setattr(
        scoring, "measured", lambda *a, real=scoring.measured: asked.append(a) or real(*a)
    )
    train(config)
    assert len(asked) == 4, "two silos, before and after"
    folder = RunFolder(Path(config.output_dir))
    told = read_json(folder.run)["scored"]
    folder.report.unlink()
    train(config, resume=True)
    assert len(asked) == 6
    assert read_json(folder.run)["scored"] == told


def test_scores_of_a_site_stay_at_the_site(place):
    config = small(place, "evaluation=site", "train.num_rounds=1")
    records = train(config)
    folder = RunFolder(Path(config.output_dir))
    assert all(not record.metrics and not record.silos for record in records)
    scores = read_lines(folder.site("east") / "metrics.jsonl")
    assert set(scores[0]["metrics"]) == {"accuracy", "loss", "macro_f1"}
    assert "cat" not in json.dumps(read_json(folder.run)["silos"])


def test_a_silo_alone_trains_on_its_own_records_only(place):
    config = small(place, "baselines=[silo-alone]")
    workshop = open_federation(config)
    steps = list(silo_alone(workshop))
    assert [(s.silo, s.round) for s in steps] == [
        (n, i) for n in ("east", "west") for i in (0, 1, 2)
    ]
    assert [bool(s.metrics) for s in steps] == [False, False, True] * 2
    write_csv(place.parent / "notes.csv", notes(seed=1)[:24] + notes(seed=0)[24:])
    other = list(silo_alone(open_federation(config)))
    assert other[-1] == steps[-1]  # west is as it was
    assert other[2] != steps[2]
    assert list(silo_alone(open_federation(small(place)))) == []


def test_dropout_of_the_adapters_is_not_taken_for_leaking(place):
    config = small(place, "method.lora_dropout=0.2", "train.num_rounds=1")
    train(config)
    again = small(
        place,
        "method.lora_dropout=0.2",
        "train.num_rounds=1",
        "output_dir=" + str(place.parent / "b"),
    )
    train(again)
    assert weights(config) == weights(again)
