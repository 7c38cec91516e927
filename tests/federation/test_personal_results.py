"""What methods with personal tensors give to their user: a model of each silo, scores of all."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from by_config import evaluate, export_merged, open_federation, open_model
from covering import full
from federation.results import LABELS, finished, last_state, logits, tokens, write_parts
from federation.small import SILOS, small, train
from silotune.adapters.peft_io import WEIGHTS
from silotune.cli.app import app
from silotune.core import Role, joined
from silotune.core.files import read_json, read_lines
from silotune.federation import baselines
from silotune.federation.export import export_peft
from silotune.federation.results import model_in
from silotune.federation.scoring import measured, own_score
from silotune.federation.trained_models import learned_from, own_adapter
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder

METHOD = ("method.name=fedsa-lora", "train.learning_rate=2")


def personal(place, *overrides):
    return small(place, *METHOD, *overrides)


def models(run: RunFolder, workshop):
    """Every silo's, from the checkpoint and the silos' own folders."""
    name = read_facts(run).run
    return learned_from(last_state(run), workshop.agreement.model, run, name, SILOS)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_silo_is_scored_by_its_own_model_and_all_of_them_together(place):
    config = personal(place)
    last = train(config)[-1]
    run, workshop = RunFolder(Path(config.output_dir)), open_federation(config)
    learned, first = models(run, workshop), last_state(run).factors
    meters = {
        silo: measured(workshop, [learned.of(silo)], workshop.data.silos[silo].held_out)
        for silo in SILOS
    }
    assert last.silos == {silo: found.metrics() for silo, found in meters.items()}
    assert last.metrics == joined(meters.values()).metrics()
    roles = {
        key.role
        for key, tensor in learned.of("east").factors.items()
        if not torch.equal(tensor, learned.of("west").factors[key])
    }
    assert roles == {Role.B, Role.HEAD}
    assert not any(tensor.any() for tensor in first.only({Role.B}).values())  # none at the server
    swapped = measured(workshop, [learned.of("west")], workshop.data.silos["east"].held_out)
    assert swapped.metrics() != last.silos["east"]


@pytest.mark.parametrize("evaluation", ["simulation", "public"])
def test_public_records_are_scored_by_all_models_together(place, tmp_path, evaluation):
    parts = write_parts(tmp_path / "parts", "valid", "test")
    config = personal(place, parts, f"evaluation={evaluation}")
    last = train(config)[-1]
    run, workshop = RunFolder(Path(config.output_dir)), open_federation(config)
    own = models(run, workshop).own
    for part, told in (("valid", last.metrics), ("test", read_json(run.run)["final"])):
        table = getattr(workshop.data, part)
        each = [measured(workshop, [model], table).metrics() for model in own.values()]
        assert told["loss"] == pytest.approx(sum(m["loss"] for m in each) / 2)
        assert each[0]["loss"] != each[1]["loss"]
        assert evaluate(run, part).metrics == pytest.approx(told, rel=1e-5)
    assert evaluate(run, None).split == "test"


def test_scores_at_home_are_of_the_silos_own_model(place):
    config = personal(place, "evaluation=site")
    run, workshop = finished(config), open_federation(config)
    learned = models(run, workshop)
    for silo, examples in workshop.data.silos.items():
        expected = measured(workshop, [learned.of(silo)], examples.held_out).metrics()
        at_home = read_lines(run.site(silo) / "metrics.jsonl")[-1]["metrics"]
        assert at_home == pytest.approx(expected, rel=1e-5)
    assert run.read_rounds()[-1].silos == {}


@pytest.mark.parametrize("until", [full(-1), 0, full(2)])
def test_a_run_that_was_cut_ends_in_the_same_models_and_scores(place, until):
    whole = personal(place, f"output_dir={place.parent / 'whole'}")
    expected = train(whole)
    config = personal(place)
    train(config, until=until)
    train(config, resume=True)
    run, other = RunFolder(Path(config.output_dir)), RunFolder(Path(whole.output_dir))
    found = run.read_rounds()
    assert [r.metrics for r in found] == [r.metrics for r in expected]
    assert [r.silos for r in found] == [r.silos for r in expected]
    for silo in SILOS:
        ours, theirs = own_adapter(run, silo) / WEIGHTS, own_adapter(other, silo) / WEIGHTS
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_silo_that_was_ahead_of_the_checkpoint_is_scored_as_of_it(place):
    config = personal(place)
    train(config, until=1)
    run, workshop = RunFolder(Path(config.output_dir)), open_federation(config)
    before = models(run, workshop)
    newest = max((run.site("east") / "personal").glob("*/*"), key=lambda p: p.stem)
    ahead = newest.with_name(f"{int(newest.stem) + 1}{newest.suffix}")
    other = max((run.site("west") / "personal").glob("*/*"), key=lambda p: p.stem)
    ahead.write_bytes(other.read_bytes())  # as if killed in the round after
    after = models(run, workshop)
    assert after.of("east").factors.digest() == before.of("east").factors.digest()


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
def test_each_silo_has_an_adapter_of_its_own_and_there_is_no_other(place, bert, tmp_path):
    config = personal(place, "model.head_scale=0.5")
    run = finished(config)
    model = open_model(config, LABELS)
    workshop = open_federation(config)
    learned, adapted, batch = models(run, workshop), model.trainer.adapted, tokens(bert)
    assert files(run.adapter) == {"README.md"}
    assert "sites/SILO/adapter" in (run.adapter / "README.md").read_text()
    computed = []
    for silo in SILOS:
        adapted.load(learned.of(silo).factors)
        expected = logits(adapted.model.eval(), batch)
        place = own_adapter(run, silo)
        assert place == run.path / "sites" / silo / "adapter"
        assert "one silo's own" in (place / "README.md").read_text()
        assert "east" not in (place / "README.md").read_text()
        base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
        peft = PeftModel.from_pretrained(base, place).eval()
        torch.testing.assert_close(logits(peft, batch), expected, atol=2e-6, rtol=1e-5)
        assert model_in(place, model).factors.keys() == learned.of(silo).factors.keys()
        export_merged(run, tmp_path / silo, silo)
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / silo).eval()
        torch.testing.assert_close(logits(merged, batch), expected, atol=2e-6, rtol=1e-5)
        assert "one silo's own" in (tmp_path / silo / "README.md").read_text()
        computed.append(expected)
    assert not torch.allclose(*computed, atol=1e-3)
    page = run.report.read_text()
    assert "Models are personal" in page
    assert "sites/SILO/adapter" in page


def test_what_is_exported_is_one_silos(place, tmp_path):
    config = personal(place, "train.num_rounds=1")
    train(config, until=0)
    run = RunFolder(Path(config.output_dir))
    for silo in (None, "east"):
        with pytest.raises(ValueError, match=r"no adapter yet; resume the run .--resume"):
            export_peft(run, tmp_path / "out", silo)
    train(config, resume=True)
    with pytest.raises(ValueError, match=r"client: every client .* its own; choose .* east, west"):
        export_peft(run, tmp_path / "out")
    with pytest.raises(ValueError, match=r"client: there is no client 'north'; choose .*, west"):
        export_merged(run, tmp_path / "out", "north")
    assert not (tmp_path / "out").exists()
    export_peft(run, tmp_path / "out", "west")
    for file in own_adapter(run, "west").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_the_command_line_takes_the_silo_and_scores_them_all(place, tmp_path):
    run = finished(personal(place, "train.num_rounds=1"))
    command = ["export", str(run.path), "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code != 0
    assert "choose one of east, west" in refused.output
    assert CliRunner().invoke(app, [*command, "--silo", "east"]).exit_code == 0
    assert (tmp_path / "out" / WEIGHTS).is_file()
    said = CliRunner().invoke(app, ["evaluate", str(run.path)])
    assert said.exit_code == 0
    assert all(f"  {silo}: accuracy" in said.output for silo in SILOS)


def test_a_silo_alone_is_scored_by_its_own_model_alone(place, tmp_path, monkeypatch):
    looked_at = []

    def spy(workshop, silo, model):
        looked_at.append(model)
        return own_score(workshop, silo, model)

    monkeypatch.setattr(baselines, "own_score", spy)
    parts = write_parts(tmp_path / "parts", "valid")
    list(baselines.silo_alone(open_federation(personal(place, parts, "baselines=[silo-alone]"))))
    east, west = looked_at
    assert east.factors.digest() != west.factors.digest()
    assert all(any(t.any() for t in m.factors.only({Role.B}).values()) for m in (east, west))
