"""A rehearsal is a whole federation: real processes, real keys, and the bits of the simulation."""

import json
import os
import signal
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from federation.small import write_small
from silotune import objectives
from silotune.cli.rehearse import _arguments, _compare, rehearse
from silotune.config import load_config
from silotune.models import hub
from silotune.runtimes.messages import TRAIN
from silotune.testing import tiny_models


@pytest.fixture
def config(tmp_path):
    return write_small(tmp_path, tiny_models.tiny_bert(tmp_path / "bert"))


@pytest.fixture
def near():
    """A folder near the root, since the path of a site's socket has room for little."""
    with TemporaryDirectory(prefix="reh-") as place:
        yield Path(place)


def test_a_folder_too_deep_for_sockets_is_refused_before_anything_is_made(config, tmp_path):
    deep = tmp_path / ("x" * 120)
    with pytest.raises(ValueError, match="a socket's path"):
        rehearse(str(config), [], 2, 1, deep)
    assert not list(deep.iterdir())


def test_a_rate_by_rule_is_left_to_the_run(config):
    """It goes by sizes that real sites declare; to compare bits any rate will do."""
    auto = ("train.learning_rate=auto", "train.optimizer=null", "train.server_optimizer=momentum")
    private = "privacy={unit: example, noise_multiplier: 2, target_delta: 1e-3}"
    given = _arguments(load_config(config, [*auto, private]), 2)
    assert "learning_rate" not in given
    assert "optimizer" not in given, "the usual one"


@pytest.mark.full
@pytest.mark.parametrize("privacy", ["none", "example"])
def test_it_ends_in_the_bits_of_the_simulation(config, near, capsys, privacy):
    chosen = {"unit": privacy}
    if privacy == "example":
        chosen |= {"noise_multiplier": 2, "target_delta": 1e-3}
    rehearse(str(config), [f"privacy={json.dumps(chosen)}"], 2, 2, near)
    assert "the same bits" in capsys.readouterr().out
    told = json.loads((near / "run" / "sites.json").read_text())
    assert {site["result"] for site in told["sites"].values()} == {"taken"}
    assert not (near / "run" / "sites").exists()


TASKS = {
    "multi-label-classification": ("bert", "{text: text, label: [cat, dog]}", []),
    "regression": (
        "bert",
        "{text: text, label: [height, width]}",
        ["data.labels=null", "targets={target_mean: [5, 1], target_scale: [2, 1]}"],
    ),
    "token-classification": ("bert", "{text: text, spans: marks}", []),
    "text-embedding": (
        "bert",
        "{text: text, text_pair: other, label: score}",
        ["data.labels=null", "model.pooling=mean", "targets={score_range: [0, 5]}"],
    ),
    "causal-lm": ("llama", "{prompt: asked, completion: answer}", ["data.labels=null"]),
    "seq2seq": ("t5", "{source: note, target: line}", ["data.labels=null"]),
}
"""Name -> a tiny model, columns and what else a configuration says."""


@pytest.mark.full
@pytest.mark.parametrize("task", TASKS)
def test_every_task_of_texts_is_rehearsed(config, near, tmp_path, capsys, task):
    kind, columns, more = TASKS[task]
    base = getattr(tiny_models, f"tiny_{kind}")(tmp_path / "base")
    own = [f"model={{name_or_path: {json.dumps(str(base))}, task: {task}}}"]
    own += [f"data.columns={columns}", "train.local_steps=1", *more]
    rehearse(str(config), own, 2, 1, near)
    assert "the same bits" in capsys.readouterr().out


def test_tasks_that_are_rehearsed_or_refused_are_all_that_there_are():
    images = {"image-classification", "multi-label-image-classification"}
    elsewhere = {"sequence-classification", *images}
    assert {*TASKS} | elsewhere == set(objectives.TASKS)


@pytest.mark.full
def test_the_bundled_one_needs_no_language_model_and_no_network(
    near, capsys, monkeypatch, no_network
):
    monkeypatch.setattr(hub, "_packaged_minilm", lambda: None)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    rehearse("triage", [], 2, 1, near)
    said = capsys.readouterr().out
    assert "is not on this machine, so a tiny made-up model" in said
    assert "the same bits" in said


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("one federation of NVIDIA FLARE")
@pytest.mark.filterwarnings("default")  # of FLARE's own
def test_it_ends_in_the_same_bits_over_flare_too(config, tmp_path, capsys):
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: silotune[nvflare]")
    private = {"unit": "example", "noise_multiplier": 2, "target_delta": 1e-3}
    rehearse(str(config), [f"privacy={json.dumps(private)}"], 3, 2, tmp_path / "place", True)
    assert "the same bits" in capsys.readouterr().out
    assert (tmp_path / "place" / "engine" / "engine.jsonl").exists()


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("one federation of NVIDIA FLARE")
@pytest.mark.filterwarnings("default")  # of FLARE's own
def test_what_is_killed_over_flare_costs_time_and_no_bit(config, tmp_path, capsys, monkeypatch):
    """One run that suffers one kill after another: every release is charged once, and counts."""
    pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: silotune[nvflare]")
    from silotune.runtimes import nvflare_loopback
    from silotune.runtimes.nvflare import NvflareCourier

    class Seen(nvflare_loopback.Loopback):
        def __enter__(self):
            running.append(super().__enter__())
            return running[0]

    def job():
        for pid in running[0].jobs("site-2"):
            os.kill(pid, signal.SIGKILL)

    def killed(name):
        running[0].kill(name)
        threading.Timer(4.0, running[0].start, [name]).start()

    def daemon():
        running[0].kill_daemon("site-1")
        threading.Timer(2.0, running[0].start_daemon, ["site-1"]).start()

    def exchange(self, orders, deadline):
        if next(iter(orders.values()))[:1] == TRAIN and faults:
            faults.pop()()
        yield from real(self, orders, deadline)

    running, real = [], NvflareCourier.exchange
    faults = [lambda: killed("localhost"), lambda: killed("site-3"), daemon, job, lambda: None]
    monkeypatch.setattr(nvflare_loopback, "Loopback", Seen)
    monkeypatch.setattr(NvflareCourier, "exchange", exchange)
    private = {"unit": "example", "noise_multiplier": 2, "target_delta": 1e-3}
    rehearse(str(config), [f"privacy={json.dumps(private)}"], 3, 6, tmp_path / "place", True)
    assert faults == []
    assert "the same bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy={unit: client, noise_multiplier: 1}", "train.weighting=uniform"], "unit"),
        (["data.labels=null"], "data.labels: list them"),
        (
            ["model.task=image-classification", "data.columns={image: scan, label: kind}"],
            "a rehearsal makes up texts, and no images",
        ),
        (["model.name_or_path=acme/large"], "of acme/large none are on this machine"),
    ],
)
def test_what_cannot_be_rehearsed_is_said_before_anything_is_made(config, near, overrides, words):
    with pytest.raises(ValueError, match=words):
        rehearse(str(config), overrides, 2, 1, near)


def test_a_folder_that_holds_something_is_left_alone(config, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"--keep: .* is not empty"):
        rehearse(str(config), [], 2, 1, tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_other_bits_are_no_success(tmp_path):
    for name, data in (("here", b"a"), ("there", b"b")):
        (tmp_path / name / "adapter").mkdir(parents=True)
        (tmp_path / name / "adapter" / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="is not that of the simulation"):
        _compare(tmp_path / "here", tmp_path / "there")
