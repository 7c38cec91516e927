"""What lies in the folder of a run may be lost or damaged; its checkpoint writes it again."""

import json
import shutil
from pathlib import Path

import pytest

from by_config import opened, saved_config
from federation.damage import DAMAGES, cut_short, empty, missing, of_other_types
from federation.small import NO_WORKER, PRIVATE, small, train, write_small
from silotune.core.files import RecordError
from silotune.federation.keeping import mend
from silotune.federation.run import rounds
from silotune.runs.folder import RunFolder

KEPT = ("run.json", "config.yaml", "federation.json", "metrics.jsonl")
"""Written again as they were."""


@pytest.fixture(scope="module")
def cut(tmp_path_factory, bert) -> RunFolder:
    """A private run that was killed after round 1 of three."""
    place = write_small(tmp_path_factory.mktemp("cut"), bert)
    config = small(place, *PRIVATE, "privacy.lifetime=off")
    train(config, until=1)
    return RunFolder(Path(config.output_dir))


def copy(folder: RunFolder, to: Path) -> RunFolder:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder.path, to)
    return RunFolder(to)


def contents(folder: RunFolder) -> dict[str, bytes]:
    files = (path for path in folder.path.rglob("*") if path.is_file())
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in files}


def test_files_that_are_lost_or_damaged_are_written_again(cut, tmp_path):
    whole, wrong = contents(cut), []
    for name in KEPT:
        for damage in DAMAGES:
            folder = copy(cut, tmp_path / "run")
            damage(folder.path / name)
            if name == "config.yaml" and damage is of_other_types:
                continue  # whoever reads the configuration names it
            damaged = contents(folder).get(name)
            told = mend(folder)
            now = contents(folder)
            if len(told) != 1 or name not in told[0] or "written again" not in told[0]:
                wrong.append((name, damage.__name__, told))
            if {path: now[path] for path in whole} != whole:
                wrong.append((name, damage.__name__, "differs"))
            aside = now.get(f"{name}.damaged")
            if aside != damaged:
                wrong.append((name, damage.__name__, "was deleted"))
    assert wrong == []


def test_a_whole_run_is_left_as_it_is(cut, tmp_path):
    folder = copy(cut, tmp_path / "run")
    assert mend(folder) == []
    assert contents(folder) == contents(cut)


def test_what_cannot_be_written_again_is_named_with_the_cure(cut, tmp_path):
    wrong = []
    for name in ("checkpoint/state.bin", "ledger.jsonl", "sites/east/ledger.jsonl"):
        for damage in DAMAGES:
            if damage is missing and name in ("checkpoint/state.bin", "ledger.jsonl"):
                continue  # below
            folder = copy(cut, tmp_path / "run")
            damage(folder.path / name)
            if name == "ledger.jsonl" and damage in (empty, cut_short):
                continue  # below
            before = contents(folder)
            said = refusal(folder)
            if name not in said or "copy" not in said or contents(folder) != before:
                wrong.append((name, damage.__name__, said))
    assert wrong == []


def refusal(folder: RunFolder) -> str:
    """What is said to whoever resumes the run in a copy of its folder; empty if it goes on."""
    config = saved_config(folder).model_copy(update={"output_dir": str(folder.path)})
    try:
        with opened(config, [], NO_WORKER, resume=True) as job:
            next(rounds(job))
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("damage", [missing, empty, cut_short])
def test_the_copy_of_the_ledgers_is_made_again_from_them(cut, tmp_path, damage):
    folder = copy(cut, tmp_path / "run")
    damage(folder.ledger)
    assert refusal(folder) == ""
    assert folder.ledger.read_bytes().startswith(cut.ledger.read_bytes())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_certificate_is_made_again_from_the_ledgers(cut, tmp_path, damage):
    folder = copy(cut, tmp_path / "run")
    damage(folder.privacy)
    assert refusal(folder) == ""
    now, was = (json.loads(f.privacy.read_text()) for f in (folder, cut))
    assert now["silos"]["east"]["rounds"] == was["silos"]["east"]["rounds"] + 1


def test_rounds_that_neither_file_has_are_named(cut, tmp_path):
    folder = copy(cut, tmp_path / "run")
    for path in (folder.metrics, folder.history):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines[:2], *lines[1:2], *lines[2:]]))
    with pytest.raises(RecordError, match=r"metrics.jsonl: has the rounds -1, 0, 0, 1; .*copy"):
        mend(folder)


def test_a_file_of_a_newer_version_is_not_overwritten(cut, tmp_path):
    folder = copy(cut, tmp_path / "run")
    folder.run.write_text('{"version": 9}')
    with pytest.raises(RecordError, match="newer silotune"):
        mend(folder)
    assert folder.run.read_text() == '{"version": 9}'
