"""What mixtures give to their user: results in a format of our own, which silotune reads again."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, MixtralConfig, MixtralForCausalLM
from typer.testing import CliRunner

from by_config import evaluate, export_merged, forecast, of_config, open_model
from covering import full
from federation.results import LABELS, TEXTS, last_state, write_parts
from federation.small import PRIVATE, SILOS, small, train, write_small
from silotune.adapters import OWN_WEIGHTS, load_own
from silotune.adapters.peft_io import WEIGHTS
from silotune.audit.step import Verdict
from silotune.cli.app import app
from silotune.cli.run_summary import _rest
from silotune.config import load_config
from silotune.config.errors import ConfigError
from silotune.config.notices import notices
from silotune.core import Role
from silotune.federation.audit import audit
from silotune.federation.audit_effort import SHORT
from silotune.federation.export import export_peft
from silotune.federation.results import adapter_of, model_in
from silotune.federation.trained_models import own_adapter
from silotune.runs.folder import RunFolder
from silotune.testing.tiny_models import tiny_llama

MILORA = ("method.name=milora", "method.target_modules=all-linear")


def results(config) -> RunFolder:
    train(config)
    return RunFolder(Path(config.output_dir))


@pytest.mark.parametrize("overrides", [(), full(("data.silos={num: 1}",))])
@pytest.mark.usefixtures("drawn")
def test_milora_trains_alone_and_together_and_is_read_again(place, tmp_path, overrides):
    table = write_parts(tmp_path / "parts", "valid", "test")
    run = results(small(place, *MILORA, *overrides, table, "evaluation=public"))
    model, state = open_model(small(place, *MILORA), LABELS), last_state(run)
    names = {key.name for key in state.factors.only({Role.GATE})}
    assert names == {"pool", "choice", "numerator", "denominator"}
    for key, tensor in state.factors.only({Role.GATE}).items():
        assert not torch.equal(tensor, model.first[key]), f"{key} is trained"
    found = model_in(run.adapter, model).factors
    assert found.digest() == state.factors.digest()
    assert evaluate(run, "valid").metrics == pytest.approx(run.read_rounds()[-1].metrics, rel=1e-5)
    assert {file.name for file in run.adapter.iterdir()} == {
        OWN_WEIGHTS,
        "README.md",
        "silotune.json",
    }
    card = (run.adapter / "README.md").read_text()
    assert "PEFT has no format" in card
    assert "PeftModel" not in card
    assert "library_name: silotune" in card
    page = run.report.read_text()
    assert "PEFT has no format" in page
    assert "loads with PEFT" not in page
    assert any("own format" in line for line in _rest(run))
    for export, key in ((export_peft, "peft"), (export_merged, "merged")):
        with pytest.raises(ValueError, match=f"format: {key}: .*differs from record to record"):
            export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert adapter_of(run, None) == run.adapter


def test_a_cut_run_ends_in_the_same_mixture(place, tmp_path):
    whole = results(small(place, *MILORA, f"output_dir={tmp_path / 'whole'}"))
    config = small(place, *MILORA)
    train(config, until=0)
    train(config, resume=True)
    one, two = (
        load_own(r.adapter, shapes(config)) for r in (whole, RunFolder(place.parent / "run"))
    )
    assert one.digest() == two.digest()


def shapes(config) -> dict:
    labels = tuple(config.data.labels)
    return {key: tuple(t.shape) for key, t in open_model(config, labels).first.items()}


def test_a_torn_or_foreign_file_is_refused(place):
    config = small(place, *MILORA, "train.num_rounds=1")
    run, expected = results(config), shapes(config)
    file = run.adapter / OWN_WEIGHTS
    with pytest.raises(ValueError, match="does not fit the model; tensors differ"):
        load_own(run.adapter, dict(list(expected.items())[1:]))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot be read"):
        load_own(run.adapter, expected)


def test_what_routers_cannot_do_is_refused_in_words(place):
    with pytest.raises(ConfigError, match="reentrant; use non-reentrant"):
        small(place, *MILORA, "model.gradient_checkpointing=reentrant")
    with pytest.raises(ValueError, match="each one is alone in its own; name more"):
        open_model(small(place, "method={name: milora, target_modules: [query]}"), LABELS)
    open_model(small(place, *MILORA, "model.gradient_checkpointing=non-reentrant"), LABELS)
    open_model(small(place, *MILORA, "method.lora_dropout=0.5", "model.dtype=bfloat16"), LABELS)


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


def causal(place, llama, *overrides):
    return small(
        place,
        f"model={{name_or_path: {llama}, task: causal-lm}}",
        "data.columns={prompt: text, completion: label, text: null, label: null}",
        "data.labels=null",
        *overrides,
    )


def test_in_generation_the_prompt_decides_and_later_tokens_follow(place, llama):
    model = open_model(causal(place, llama, *MILORA), ())
    adapted, g = model.trainer.adapted, torch.Generator().manual_seed(0)
    adapted.load(model.first.map(lambda t: t + 0.3 * torch.randn(t.shape, generator=g)))
    decided = []
    adapted.model.register_forward_hook(lambda *_: decided.append(dict(adapted.context.lasting)))
    read = model.loaded.tokenizer
    batch = dict(read(TEXTS, padding=True, padding_side="left", return_tensors="pt"))
    batch.pop("token_type_ids", None)
    for search in ({}, {"num_beams": 2}):
        decided.clear()
        adapted.model.eval().generate(**batch, max_new_tokens=4, do_sample=False, **search)
        assert len(decided) == 4
        assert len(decided[0]) == 2, "a router for each layer"
        for later in decided[1:]:
            for block, gates in decided[0].items():
                assert torch.equal(later[block], gates)


def test_plain_texts_have_no_prompt_to_route_by(place, llama):
    for method in (MILORA, ("method={name: mole, experts: [a, b]}",)):
        with pytest.raises(
            ConfigError, match=r"data\.columns\.text: m\w+ looks at a record's prompt"
        ):
            causal(place, llama, *method, "data.columns={text: text, label: null}")


def test_a_language_model_learns_through_its_routers(place, llama):
    config = causal(place, llama, *MILORA, "train.learning_rate=0.2", "evaluation=simulation")
    run = results(config)
    rounds = run.read_rounds()
    assert rounds[-1].metrics["loss"] < rounds[0].metrics["loss"]
    assert evaluate(run, None).metrics == pytest.approx(rounds[-1].metrics, rel=1e-5)


def test_a_base_with_hard_routers_is_refused_where_records_are_hidden(place, llama, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    shutil.copytree(llama, tmp_path / "moe")
    vocabulary = AutoConfig.from_pretrained(llama).vocab_size
    base = MixtralForCausalLM(MixtralConfig(vocab_size=vocabulary, **sizes, **heads))
    base.save_pretrained(tmp_path / "moe")
    targets = "method.target_modules=[q_proj, v_proj]"
    with pytest.raises(ValueError, match=r"mlp\.gate \(topk\) makes a hard choice"):
        open_model(causal(place, tmp_path / "moe", targets, *PRIVATE), ())
    assert open_model(causal(place, tmp_path / "moe", targets), ())


def test_a_router_that_jumps_is_refused_where_records_are_hidden(place):
    with pytest.raises(ConfigError, match=r"method\.name: milora: a router that keeps"):
        small(place, *MILORA, *PRIVATE)


@pytest.mark.full
@pytest.mark.usefixtures("same_secrets")
def test_gates_are_audited_through_the_whole_model(place, experts):
    """No canary can be aimed at one number of a gate, but noise, coins and the bound are read."""
    config = small(place, experts, *PRIVATE)
    effort = replace(SHORT, trials=100, rounds=(6, 12))
    parts = {part.what: part for part in audit(of_config(config), effort)}
    assert all(part.verdict is not Verdict.FAIL for part in parts.values()), parts
    assert parts["sensitivity"].verdict is Verdict.PASS
    assert "1 canary" in parts["sensitivity"].text
    assert "temperature" in parts["noise"].text  # one number, in twelve rounds
    assert parts["pipeline"].verdict is Verdict.NO_POWER


@pytest.fixture(scope="module")
def learned(tmp_path_factory, bert) -> Path:
    """Stage 1: where a personal method has trained the silos' own adapters."""
    place = write_small(tmp_path_factory.mktemp("learned"), bert)
    return results(small(place, "method.name=fedsa-lora")).path


@pytest.fixture
def experts(learned, tmp_path) -> str:
    """A copy of them, to be changed; gives the override for stage 2."""
    run = RunFolder(shutil.copytree(learned, tmp_path / "experts"))
    return f"method={{name: mole, experts: [{', '.join(str(own_adapter(run, s)) for s in SILOS)}]}}"


@pytest.mark.parametrize("overrides", [full(()), PRIVATE, full(("data.silos={num: 1}",))])
def test_mole_mixes_the_silos_own_adapters_and_is_read_again(place, experts, tmp_path, overrides):
    table = write_parts(tmp_path / "parts", "valid")
    config = small(place, experts, *overrides, table, "evaluation=public")
    run = results(config)
    model, state = open_model(config, LABELS), last_state(run)
    moved = {k for k in state.factors if not torch.equal(state.factors[k], model.first[k])}
    assert moved == set(state.factors), "gates and head, and nothing else"
    assert {key.role for key in moved} == {Role.GATE, Role.HEAD}
    assert {key.name for key in state.factors.only({Role.GATE})} == {"mix", "log_temperature"}
    assert evaluate(run, "valid").metrics == pytest.approx(run.read_rounds()[-1].metrics, rel=1e-5)
    assert model_in(run.adapter, model).factors.digest() == state.factors.digest()
    covered = "what the experts (method.experts) learned before" in run.privacy.read_text()
    assert covered == (overrides == PRIVATE)
    assert any("method.experts" in n for n in notices(config)) == covered
    forecast(config)
    card = (run.adapter / "README.md").read_text()
    assert "adapters that were there before, on query, value" in card


def test_a_run_goes_on_with_the_experts_that_it_began_with_and_no_others(place, experts, tmp_path):
    config = small(place, experts)
    train(config, until=0)
    weights = Path(config.method.experts[0]) / WEIGHTS
    honest = weights.read_bytes()
    weights.write_bytes((Path(config.method.experts[1]) / WEIGHTS).read_bytes())
    with pytest.raises(ValueError, match=r"method\.experts: the base weights are not"):
        train(config, resume=True)
    weights.write_bytes(honest)
    train(config, resume=True)
    whole = results(small(place, experts, f"output_dir={tmp_path / 'whole'}"))
    files = [folder / "adapter" / OWN_WEIGHTS for folder in (whole.path, Path(config.output_dir))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_masked_expert_is_as_if_it_were_not_there(place, experts):
    config = small(place, experts, "train.num_rounds=1")
    model, first = open_model(config, LABELS), config.method.experts[0]
    without = open_model(small(place, experts, f"method.masked_experts=[{first}]"), LABELS)
    batch = dict(model.loaded.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    for each in (model, without):
        each.trainer.adapted.load(model.first)
        each.trainer.adapted.model.eval()(**batch)
    gates = [
        m.trainer.adapted.context.lasting["gates", "bert.encoder.layer.0"] for m in (model, without)
    ]
    assert gates[0].min() > 0
    torch.testing.assert_close(gates[1], torch.tensor([[0.0, 1.0]] * len(TEXTS)))


def test_a_finished_mixture_is_scored_without_an_expert(place, experts):
    config = small(place, experts, "train.num_rounds=1")
    run, (first, second) = results(config), config.method.experts
    whole = evaluate(run, "valid")
    said = CliRunner().invoke(app, ["evaluate", str(run.path), "--mask-expert", first, "--json"])
    assert said.exit_code == 0, said.output
    metrics = json.loads(said.stdout)["metrics"]
    assert metrics == evaluate(run, "valid", [first]).metrics
    assert metrics["loss"] != whole.metrics["loss"]
    with pytest.raises(ValueError, match=r"mask_expert: x is not among experts"):
        evaluate(run, "valid", ["x"])
    with pytest.raises(ValueError, match="one expert at least must be left"):
        evaluate(run, "valid", [first, second])
    shutil.copy(Path(second) / WEIGHTS, Path(first) / WEIGHTS)
    with pytest.raises(ValueError, match="not the experts that the run was trained with"):
        evaluate(run, "valid")


def test_experts_of_another_model_or_other_layers_are_refused(place, experts, tmp_path):
    other = small(place, experts, "method.target_modules=[query]")
    with pytest.raises(ValueError, match=r"method\.experts: .* also adapts .*value"):
        open_model(other, LABELS)
    with pytest.raises(ValueError, match=r"method\.experts: .* has nothing at .*key"):
        open_model(small(place, experts, "method.target_modules=[query, key, value]"), LABELS)
    with pytest.raises(ValueError, match=r"method\.experts: .*cannot be read"):
        open_model(small(place, "method={name: mole, experts: [no, where]}"), LABELS)


@pytest.mark.slow
def test_the_commands_of_the_example_work(bert, tmp_path, monkeypatch):
    example = Path(__file__).parents[2] / "examples" / "mole.yaml"
    monkeypatch.chdir(tmp_path)
    quick = [
        f"model.name_or_path={bert}",
        "data.limit=40",
        "data.num_examples=40",
        "privacy={unit: example, noise_multiplier: 1, target_epsilon: null, target_delta: 1e-3}",
        "train.batch_size=8",
        "train.num_rounds=1",
    ]
    lines = example.read_text().splitlines()
    commands = [line.partition("mole.yaml")[2] for line in lines if "silotune run" in line]
    assert len(commands) == 2
    for words in commands:
        overrides = re.split(r" (?=output_dir\b)", words.strip()) if words else []
        run = results(load_config(example, [*overrides, *quick]))
        assert run.read_rounds()[-1].metrics
    gates = load_own(run.adapter, shapes(load_config(run.config, []))).only({Role.GATE})
    assert len({key.site for key in gates}) == 2
