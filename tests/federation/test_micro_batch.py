"""``micro_batch_size: auto``: a run keeps the number that it began with."""

import json

import pytest

import silotune as st
from silotune.core.files import DamagedError
from silotune.federation.micro_batch import recalled
from silotune.runs.folder import RunFolder

from .objects import federation

PRIVATE = st.ExampleDP(noise_multiplier=1.0, target_delta=1e-3, insecure_seeded_noise=True)


def asked(model, number, **changes):
    given = {"micro_batch_size": number, "privacy": PRIVATE, "rounds": 2, "num_examples": 15}
    return federation(model, **given | changes)


def found(folder):
    return json.loads((folder / "run.json").read_text())["host"].get("micro_batch_size")


def adapter(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_it_is_found_kept_and_the_same_when_memory_is_short(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("silotune.terms.fitting.MOST", 4)
    run, given = tmp_path / "auto", tmp_path / "given"
    for _ in asked(bert, "auto").rounds(run):
        break  # after the first round
    assert found(run) == 4
    monkeypatch.setattr("silotune.terms.fitting.free_bytes", lambda device: 0)
    asked(bert, "auto").fit(run, resume=True)
    asked(bert, 4).fit(given)
    assert (found(run), found(given)) == (4, None)
    assert adapter(run) == adapter(given)
    with pytest.raises(ValueError, match=r"micro_batch_size: a step on one record .* max_length"):
        asked(bert, "auto").fit(tmp_path / "short")
    with pytest.raises(ValueError, match="another federation: micro_batch_size"):
        asked(bert, 4).fit(run, resume=True)
    facts = json.loads((run / "run.json").read_text())
    del facts["host"]["micro_batch_size"]
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DamagedError, match="damaged, host has no micro_batch_size"):
        recalled(asked(bert, "auto"), RunFolder(run))


def test_worker_processes_need_a_number(bert):
    with pytest.raises(ValueError, match="micro_batch_size: auto is measured by the process"):
        asked(bert, "auto", runtime="pool", clients="records", num_examples=10)
