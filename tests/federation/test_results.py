"""What is done with a result: score it, take it elsewhere."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from by_config import evaluate, export_merged, open_model
from federation.results import LABELS, TEXTS, finished, logits, tokens, write_parts
from federation.small import PRIVATE, SILOS, notes, small, train, write_csv
from silotune.adapters import save_peft
from silotune.core import Factors, generator
from silotune.federation.export import export_peft
from silotune.federation.results import model_in
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.testing import tiny_models


def moved(config, folder: RunFolder) -> torch.nn.Module:
    """The run's adapted model, and its adapter folder, with factors far from their beginning."""
    labels = LABELS if config.model.task != "causal-lm" else ()
    model = open_model(config, labels)
    factors = model_in(folder.adapter, model).factors
    far = {k: t + 0.3 * torch.randn(t.shape, generator=generator(k)) for k, t in factors.items()}
    save_peft(folder.adapter, Factors(far), model.axes.adapter, model.sites, model.layout)
    model.trainer.adapted.load(Factors(far))
    return model.trainer.adapted.model.eval()


def test_evaluating_the_adapter_gives_the_runs_last_score(place):
    config = small(place, "model.head_scale=0.3")
    records = train(config)
    found = evaluate(RunFolder(Path(config.output_dir)), None)
    assert found.split == "valid"
    assert found.metrics == pytest.approx(records[-1].metrics, rel=1e-5)
    assert found.silos["east"] == pytest.approx(records[-1].silos["east"], rel=1e-5)
    assert found.scored.part == "held out"
    assert found.scored.records == sum(found.scored.silos.values()) > 0


def test_a_test_part_is_preferred_and_can_be_left(place, tmp_path):
    run = finished(small(place, write_parts(tmp_path / "parts", "valid", "test")))
    test, valid = evaluate(run, None), evaluate(run, "valid")
    assert (test.split, valid.split) == ("test", "valid")
    assert test.metrics != valid.metrics
    assert test.metrics == evaluate(run, "test").metrics
    kept = read_facts(run).scored
    assert kept.part == "test"
    assert kept.records == sum(count for _, _, count in kept.classes) == test.scored.records
    right = sum(count for right, given, count in kept.classes if right == given)
    assert right / kept.records == pytest.approx(kept.metrics["accuracy"])


def own_parts(folder, *parts):
    """The small run's records, a folder a silo, each with parts of its own."""
    for i, part in enumerate(("train", *parts)):
        for silo in SILOS:
            (folder / silo).mkdir(parents=True, exist_ok=True)
            write_csv(folder / silo / f"{part}.csv", notes(24, (silo,), seed=i))
    return (f"data.path={folder}", "data.silos=null")


def test_test_parts_of_silos_are_the_final_figure(place, tmp_path):
    overrides = own_parts(tmp_path / "own", "valid", "test")
    run = finished(small(place, *overrides, "train.num_rounds=1"))
    test, valid = evaluate(run, None), evaluate(run, "valid")
    assert (test.split, valid.split) == ("test", "valid")
    assert set(test.silos) == set(SILOS)
    assert test.metrics["accuracy"] == pytest.approx(
        sum(silo["accuracy"] for silo in test.silos.values()) / 2
    )
    assert read_facts(run).final == pytest.approx(test.metrics)
    assert test.metrics != valid.metrics


def test_test_parts_of_sites_are_scored_at_home(place, tmp_path):
    overrides = own_parts(tmp_path / "own", "test")
    run = finished(small(place, *overrides, "evaluation=site", "train.num_rounds=1"))
    assert read_facts(run).final == {}
    for silo in SILOS:
        lines = (run.site(silo) / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["split"] == "test"
    with pytest.raises(ValueError, match="keeps every score at its silo"):
        evaluate(run, "test")


def test_what_cannot_be_scored_is_said(place):
    run = finished(small(place, "evaluation=site", "train.num_rounds=1"))
    assert read_facts(run).scored is None
    with pytest.raises(ValueError, match="keeps every score at its silo"):
        evaluate(run, None)
    with pytest.raises(
        ValueError, match=r"^data\.splits\.test: the data have no such part; score valid"
    ):
        evaluate(run, "test")
    with pytest.raises(ValueError, match="no run is here"):
        evaluate(RunFolder(place.parent), None)


def test_a_run_without_an_adapter_says_how_to_get_one(place):
    config = small(place)
    train(config, until=0)
    with pytest.raises(ValueError, match=r"no adapter yet; resume the run .--resume"):
        evaluate(RunFolder(Path(config.output_dir)), None)


def test_peft_is_a_copy(place, tmp_path):
    run = finished(small(place, "train.num_rounds=1"))
    export_peft(run, tmp_path / "out")
    for file in run.adapter.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match=r"output: .* exists already"):
        export_peft(run, tmp_path / "out")
    with pytest.raises(ValueError, match="client: one model serves all clients"):
        export_peft(run, tmp_path / "east", "east")


def test_a_merged_classifier_computes_the_same(place, tmp_path):
    config = small(place, "train.num_rounds=1", "model.head_scale=0.3", "method.lora_alpha=5")
    run = finished(config)
    ours = moved(config, run)
    export_merged(run, tmp_path / "out")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    batch = tokens(tmp_path / "out")
    assert torch.allclose(logits(merged, batch), logits(ours, batch), atol=1e-6)
    assert merged.config.id2label == {0: "cat", 1: "dog"}
    assert not any(name.startswith(".") for name in map(str, tmp_path.glob("*.tmp")))


def test_the_snippet_of_a_mean_pooled_model_computes_the_same(place, tmp_path, capsys):
    config = small(place, *PRIVATE, "train.num_rounds=1", "model.pooling=mean")
    run = finished(config)
    ours = moved(config, run)
    export_merged(run, tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "differential privacy" in readme
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    code = code.replace("path/to/this/folder", str(tmp_path / "out"))
    scope: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers, of the pooler that nobody uses
        exec(code.replace('["a text to classify"]', repr(TEXTS)), scope)
    assert torch.allclose(scope["logits"], logits(ours, tokens(tmp_path / "out")), atol=1e-6)
    assert re.fullmatch(r"\['(cat|dog)', '(cat|dog)'\]", capsys.readouterr().out.strip())
    assert (tmp_path / "out" / "privacy.json").read_bytes() == run.privacy.read_bytes()


def test_a_merged_language_model_with_transposed_weights_computes_the_same(place, tmp_path):
    gpt2 = tiny_models.tiny_gpt2(tmp_path / "gpt2")
    config = small(
        place,
        f"model={{name_or_path: {gpt2}, task: causal-lm}}",
        "data.columns={text: text}",
        "data.labels=null",
        "train.num_rounds=1",
        "method.name=fedit",
    )
    run = finished(config)
    ours = moved(config, run)
    export_merged(run, tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    batch = tokens(tmp_path / "out")
    assert torch.allclose(logits(merged, batch), logits(ours, batch), atol=1e-5)


def test_an_export_says_what_merging_lost(place, tmp_path):
    run = finished(small(place, "train.num_rounds=1"))
    error = export_merged(run, tmp_path / "out")
    assert error.lost < 1e-5 * error.learned
    assert str(error)[1:] in (tmp_path / "out" / "README.md").read_text()


def test_a_small_update_of_a_half_precision_base_is_lost_in_part_which_is_said(place, tmp_path):
    config = small(place, "train.num_rounds=1", "model.dtype=bfloat16", "model.head=frozen")
    run, kept = finished(config), tmp_path / "kept"
    model = open_model(config, LABELS)
    numbers = model_in(run.adapter, model).factors
    near = {k: t + 3e-3 * torch.randn(t.shape, generator=generator(k)) for k, t in numbers.items()}
    save_peft(run.adapter, Factors(near), model.axes.adapter, model.sites, model.layout)
    error = export_merged(run, kept)
    text = (kept / "README.md").read_text()
    assert "bfloat16 weights have too few digits" in text
    assert "--format peft loses nothing" in text

    batch = tokens(kept)
    whole = AutoModelForSequenceClassification.from_pretrained(kept, dtype=torch.float32).eval()
    base = model.trainer.adapted
    base.model.float()
    base.load(model.first)
    untrained = logits(base.model, batch)
    base.load(Factors(near))
    trained = logits(base.model, batch)
    share = (logits(whole, batch) - trained).norm() / (trained - untrained).norm()
    assert error.share > 0.02
    assert 0.3 < error.share / share < 3, "other made-up records, the same size"


def test_nothing_is_merged_into_a_tied_weight(place, tmp_path):
    gpt2 = tiny_models.tiny_gpt2(tmp_path / "gpt2")
    config = small(
        place,
        f"model={{name_or_path: {gpt2}, task: causal-lm}}",
        "data.columns={text: text}",
        "data.labels=null",
        "train.num_rounds=1",
        "method.target_modules=[lm_head]",
    )
    run = finished(config)
    with pytest.raises(ValueError, match=r"lm_head: its weight is tied to .*wte.* as peft"):
        export_merged(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merged_image_model_computes_the_same(place, tmp_path, pictures):
    vit = tiny_models.tiny_vit(tmp_path / "vit")
    config = small(
        place,
        f"model={{name_or_path: {vit}, task: image-classification}}",
        f"data.path={pictures}",
        "data.columns={image: image, label: label}",
        "data.silos={num: 2}",
        "train.num_rounds=1",
    )
    run = finished(config)
    ours = moved(config, run)
    export_merged(run, tmp_path / "out")
    merged = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    batch = {"pixel_values": torch.randn(2, 3, 16, 16)}
    assert torch.allclose(logits(merged, batch), logits(ours, batch), atol=1e-6)
