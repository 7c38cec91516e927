"""What ResLoRA gives to its user: results of all three shortcuts, and what each cannot do."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from by_config import evaluate, export_merged, open_federation, open_model
from covering import every_combination
from federation.results import LABELS, finished, last_state, logits, tokens, write_parts
from federation.small import PRIVATE, small, train
from silotune.adapters import OWN_WEIGHTS, Estimate, ResLinear, load_own, save_own, save_peft
from silotune.adapters.peft_io import WEIGHTS
from silotune.cli.export import export_run
from silotune.config import build
from silotune.config.errors import ConfigError
from silotune.core import Factors, Role, generator
from silotune.federation import export as exporting
from silotune.federation import merging
from silotune.federation.export import export_peft
from silotune.federation.results import model_in
from silotune.runs.folder import RunFolder
from silotune.testing import tiny_models

RESLORA = (
    "method.name=reslora",
    "method.target_modules=all-linear",
    "method.lora_alpha=6",
    "train.num_rounds=1",
)
CLIENT = (
    "privacy={unit: client, noise_multiplier: 2, target_delta: 1e-3}",
    "train.weighting=uniform",
    PRIVATE[1],
)
shortcuts = pytest.mark.parametrize("shortcut", ["input", "block", "middle"])
unmerged = pytest.mark.parametrize("shortcut", ["input", "middle"])


def far_from_birth(config, run, labels=LABELS):
    """The run's model and adapter folder, with factors so large that every link matters."""
    model = open_model(config, labels)
    learned = last_state(run).factors
    far = Factors(
        {k: t + 0.2 * torch.randn(t.shape, generator=generator(k)) for k, t in learned.items()}
    )
    if (run.adapter / OWN_WEIGHTS).exists():
        save_own(run.adapter, far)
    else:
        save_peft(run.adapter, far, model.axes.adapter, model.sites, model.layout)
    model.trainer.adapted.load(far)
    model.loaded.model.eval()
    return model


@every_combination(
    overrides=[(), PRIVATE, ("data.silos={num: 1}",)], shortcut=["input", "block", "middle"]
)
def test_it_trains_alone_together_and_in_private_and_is_read_again(
    place, tmp_path, shortcut, overrides
):
    table = write_parts(tmp_path / "parts", "valid")
    chosen = (*RESLORA, f"method.shortcut={shortcut}", *overrides, table, "evaluation=public")
    config = small(place, *chosen)
    last = train(config)[-1]
    run = RunFolder(place.parent / "run")
    assert evaluate(run, "valid").metrics == pytest.approx(last.metrics, rel=1e-4)
    model, state = open_model(config, LABELS), last_state(run)
    linked = [layer for layer in model.trainer.adapted.layers.values() if layer._earlier]
    assert len(linked) == 6, "every module of the second of two layers"
    assert all(isinstance(layer, ResLinear) for layer in linked)
    moved = [k for k, t in state.factors.items() if k.role is Role.B and t.any()]
    assert len(moved) == 13, "and the pooler's dense layer, which is in none"


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
def test_everything_that_a_block_run_gives_computes_the_same(place, bert, tmp_path):
    config = small(place, *RESLORA, "model.head_scale=0.5")
    run, batch = finished(config), tokens(bert)
    model = far_from_birth(config, run)
    adapted = model.trainer.adapted
    expected = logits(adapted.model, batch)
    for layer in adapted.layers.values():
        layer._earlier, layer.kept = (), layer._earlier
    assert not torch.allclose(logits(adapted.model, batch), expected, atol=1e-3)
    for layer in adapted.layers.values():
        layer._earlier = layer.kept

    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    peft = PeftModel.from_pretrained(base, run.adapter).eval()
    torch.testing.assert_close(logits(peft, batch), expected, atol=5e-6, rtol=1e-5)

    numbers = model_in(run.adapter, model)
    assert len(numbers.folded) == 13
    adapted.load(numbers.factors, numbers.folded)
    torch.testing.assert_close(logits(adapted.model, batch), expected, atol=5e-6, rtol=1e-5)

    export_merged(run, tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged, batch), expected, atol=5e-6, rtol=1e-5)
    assert "Approximate" not in (tmp_path / "merged" / "README.md").read_text()
    export_peft(run, tmp_path / "peft")
    assert (tmp_path / "peft" / WEIGHTS).is_file()


@unmerged
def test_the_others_are_in_a_format_of_their_own(place, tmp_path, shortcut):
    config = small(place, *RESLORA, f"method.shortcut={shortcut}")
    run = finished(config)
    assert {file.name for file in run.adapter.iterdir()} == {
        OWN_WEIGHTS,
        "README.md",
        "silotune.json",
    }
    card = (run.adapter / "README.md").read_text()
    assert "with what other layers read" in card
    assert "PeftModel" not in card
    model = open_model(config, LABELS)
    assert model_in(run.adapter, model).factors.digest() == last_state(run).factors.digest()
    for export, key in ((export_peft, "peft"), (export_merged, "merged")):
        with pytest.raises(ValueError, match=f"format: {key}: .*what other layers read"):
            export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@every_combination(shortcut=["input", "middle"], estimate=list(Estimate))
def test_an_estimate_is_merged_if_asked_for_and_says_what_it_loses(
    place, bert, tmp_path, shortcut, estimate
):
    config = small(place, *RESLORA, f"method.shortcut={shortcut}", "model.dtype=bfloat16")
    run, batch = finished(config), tokens(bert)
    far_from_birth(config, run)
    error = export_merged(run, tmp_path / "merged", approximate=estimate)
    merged = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    ).eval()
    exact = open_model(config, LABELS).trainer.adapted
    exact.model.float()
    numbers = load_own(run.adapter, {key: t.shape for key, t in exact.tensors.items()})
    outputs = []
    for state in (exact.extract(), numbers):
        exact.load(state)
        outputs.append(logits(exact.model.eval(), batch))
    untrained, trained = outputs
    share = (logits(merged, batch) - trained).norm() / (trained - untrained).norm()
    assert error.share > 0.02, "it is no more than an estimate"
    assert 0.2 < error.share / share < 5, "of other records"
    text = (tmp_path / "merged" / "README.md").read_text()
    assert "**Approximate.**" in text
    assert str(error)[1:] in text
    assert "shortcuts are estimated" in text
    assert "--format peft" not in text, "that it does not have"
    reads = estimate is Estimate.INPUTS
    assert ("training records" in text) == reads
    assert ("made-up records" in text) != reads


def test_norms_of_inputs_are_of_the_runs_own_records(place, tmp_path, monkeypatch):
    config = small(place, *RESLORA, "method.shortcut=input", "train.per_device_eval_batch_size=7")
    run, federation = finished(config), build(config)
    model = open_federation(config)
    read = []
    for silos in ("east", "west", None):
        batches = merging.training_batches(federation, model.agreement.model, silos)
        [one, two] = [list(batches()), list(batches())]
        assert all(
            torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(one, two, strict=True)
        )
        assert max(len(batch["labels"]) for batch in one) == 7
        read.append([len(batch["labels"]) for batch in one])
    sizes = [len(model.data.silos[name].train.lengths) for name in ("east", "west")]
    assert [sum(lengths) for lengths in read] == [*sizes, sum(sizes)]
    monkeypatch.setattr(merging, "WINDOW", 3)
    assert len(list(batches())) == 3
    export_merged(run, tmp_path / "out", approximate=Estimate.INPUTS)


@every_combination(shortcut=["input", "middle"], privacy=[PRIVATE, CLIENT])
def test_no_statistic_of_records_leaves_a_private_run(
    place, tmp_path, monkeypatch, shortcut, privacy
):
    config = small(place, *RESLORA, f"method.shortcut={shortcut}", *privacy)
    run = finished(config)
    said = r"approximate: inputs .* privacy\.unit: (example|client) .*needs privacy\.unit: none"
    with monkeypatch.context() as before_any_work:
        before_any_work.setattr(exporting, "open_as_run", None)
        before_any_work.setattr(merging, "read_tables", None)
        with pytest.raises(ValueError, match=said):
            export_merged(run, tmp_path / "out", approximate=Estimate.INPUTS)
        with pytest.raises(ValueError, match=said):
            merging.training_batches(build(config), None, None)
    assert not (tmp_path / "out").exists()
    error = export_merged(run, tmp_path / "out", approximate=Estimate.WEIGHTS)
    assert error.records == "made-up records"


def test_there_must_be_something_to_estimate(place, tmp_path):
    run = finished(small(place, *RESLORA))
    for estimate in Estimate:
        with pytest.raises(ValueError, match=r"approximate: .* nothing to estimate; leave it out"):
            export_merged(run, tmp_path / "out", approximate=estimate)
    with pytest.raises(ValueError, match=r"--approximate: .* --format merged"):
        export_run(run.path, "peft", tmp_path / "out", None, "weights")
    assert not (tmp_path / "out").exists()


@unmerged
@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
def test_checkpointing_is_refused_in_words(place, shortcut, mode):
    checkpointing = f"model.gradient_checkpointing={mode}"
    with pytest.raises(ConfigError, match=rf"gradient_checkpointing: .* the {shortcut} shortcut"):
        small(place, *RESLORA, f"method.shortcut={shortcut}", checkpointing)


@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
def test_block_trains_to_the_same_place_under_checkpointing(place, tmp_path, mode):
    plain = finished(small(place, *RESLORA, *PRIVATE[1:], f"output_dir={tmp_path / 'plain'}"))
    same = finished(small(place, *RESLORA, *PRIVATE[1:], f"model.gradient_checkpointing={mode}"))
    expected = last_state(plain).factors
    for key, tensor in last_state(same).factors.items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-6)


def test_what_makes_no_sense_is_refused_in_words(place):
    with pytest.raises(ConfigError, match=r"method\.pre_num: the input shortcut reaches one"):
        small(place, *RESLORA, "method.shortcut=input", "method.pre_num=2")
    with pytest.raises(ConfigError, match=r"method\.pre_num"):
        small(place, *RESLORA, "method.pre_num=0")
    with pytest.raises(ConfigError, match=r"method\.shortcut: belongs to reslora"):
        small(place, "method.shortcut=block")
    for overrides in (["method.layers_to_transform=[1]"], ["method.target_modules=[pooler.dense]"]):
        with pytest.raises(ValueError, match=r"method\.shortcut: .* nothing to link"):
            open_model(small(place, *RESLORA, *overrides), LABELS)


@pytest.mark.parametrize("dropout", ["0", "0.5"])
@shortcuts
def test_dropout_and_half_precision_pass_the_guard(place, shortcut, dropout):
    chosen = (f"method.shortcut={shortcut}", f"method.lora_dropout={dropout}")
    open_model(small(place, *RESLORA, *chosen, "model.dtype=bfloat16"), LABELS)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@shortcuts
def test_generation_with_a_cache_is_generation_without_one(place, tmp_path, shortcut, kind):
    """Every layer sees the same new positions, so nothing is missed: a law in float64."""
    folder = getattr(tiny_models, f"tiny_{kind}")(tmp_path / kind)
    config = small(
        place,
        *RESLORA,
        f"method.shortcut={shortcut}",
        f"model={{name_or_path: {folder}, task: causal-lm}}",
        "data.columns={text: text}",
        "data.labels=null",
    )
    run = finished(config)
    model = far_from_birth(config, run, labels=())
    ids = torch.tensor([[3, 20, 31, 44, 70, 12]])
    lm = model.loaded.model.double()
    with torch.no_grad():
        whole = lm(input_ids=ids).logits
        first = lm(input_ids=ids[:, :3], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        for t in range(3, 6):
            out = lm(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            steps.append(out.logits)
            cache = out.past_key_values
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-12, rtol=1e-10)
