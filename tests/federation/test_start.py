"""Runs that begin from a trained adapter (``init_from``): taken over whole, or refused in words."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import silotune as st
from covering import fitting, plain
from federation.objects import LABELS, classifier, federation, tables
from silotune.certificate.wording import START, START_COUNTED
from silotune.core import generator
from silotune.core.files import read_json, write_json
from silotune.engine.checkpoint import CheckpointError
from silotune.federation.verify import verify
from silotune.methods import built_in
from silotune.terms import Machine, Terms
from silotune.terms.build import build_model, read_model
from silotune.testing.tiny_models import tiny_bert, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TARGETS = ("q_proj", "up_proj", "down_proj")  # square, tall and wide
LIKE = {"r": 3, "lora_alpha": 7.0, "use_rslora": True, "target_modules": TARGETS}
TOKENS = torch.arange(4, 40).reshape(2, 18)
ONE = {"rounds": 1, "local_steps": 1}
DP = {
    "privacy": st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3, reserve_rounds=0),
    "num_examples": 20,
}


def saved_by_peft(base, folder: Path, **config) -> Path:
    """An adapter whose pairs are all but zero, as PEFT writes it."""
    model = get_peft_model(base, LoraConfig(**config))
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            tensor.data = torch.randn(tensor.shape, generator=generator("start", name)) * 0.2
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def pairs(llama, tmp_path_factory):
    """An adapter of a language model, and what PEFT computes with it."""
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    folder = saved_by_peft(
        base,
        tmp_path_factory.mktemp("start"),
        **LIKE | {"target_modules": list(TARGETS)},
        task_type="CAUSAL_LM",
    )
    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    with torch.no_grad():
        return folder, PeftModel.from_pretrained(fresh, folder).eval()(input_ids=TOKENS).logits


def causal(model, name: str, start, **options) -> Terms:
    method = built_in()[name](**LIKE | options, init_from=str(start))
    objective = st.CausalLM(text="text")
    return Terms(model=str(model), objective=objective, optimizer=fitting(name)[0], method=method)


def first_model(terms: Terms, labels=()):
    model = build_model(terms, read_model(terms, labels), Machine())
    model.trainer.adapted.load(model.first)
    return model


def takes_pairs(name: str) -> bool:
    adapter = plain(name).adapter
    return adapter is not None and adapter.starts_from_pairs


@pytest.mark.parametrize("method", sorted(filter(takes_pairs, built_in())))
def test_before_the_first_round_every_method_computes_what_peft_does(llama, pairs, method):
    folder, expected = pairs
    model = first_model(causal(llama, method, folder))
    assert model.drawn == {}
    assert len(model.start) == 64
    with torch.no_grad():
        found = model.trainer.adapted.model.eval()(input_ids=TOKENS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("reslora", {}, "init_from: shortcuts use a pair in other layers"),
        ("milora", {}, "init_from: a router leaves some pairs out"),
        ("mole", {}, "init_from: it trains no pair.*list it in experts"),
        ("fedftg-seeded", {}, "init_from: a projector is orthonormal and drawn from the seed"),
        ("ffa-lora", {"init_lora_weights": "orthonormal"}, "init_lora_weights: orthonormal says"),
        ("flora", {"ranks": {"a": 1}}, "init_from: silos of a smaller rank"),
    ],
)
def test_where_it_would_not_compute_the_same_it_is_refused(llama, pairs, method, options, told):
    with pytest.raises(ValueError, match=told):
        causal(llama, method, pairs[0], **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"r": 4}, r"^r: 4 here, and 3 at .* in "),
        ({"lora_alpha": 8.0}, r"^lora_alpha: .* by 4\.6.* here .*8, .* by 4\.0.*lora_alpha 7"),
        ({"use_rslora": False}, r"^lora_alpha: .*use_rslora false.*use_rslora true"),
        ({"target_modules": ("q_proj",)}, "^target_modules: .* is not adapted here.*has a pair"),
        ({"target_modules": (*TARGETS, "v_proj")}, "^target_modules: .*v_proj is adapted here"),
    ],
)
def test_what_differs_is_named_with_both_values(llama, pairs, options, told):
    with pytest.raises(ValueError, match=told):
        first_model(causal(llama, "ffa-lora", pairs[0], **options))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"base_model_name_or_path": "other/model"}, "made for other/model"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"init_lora_weights": "pissa"}, "also changes the base"),
        ({"peft_type": "LOHA"}, "another kind .LOHA"),
    ],
)
def test_what_peft_would_compute_otherwise_is_refused(llama, pairs, tmp_path, change, told):
    start = shutil.copytree(pairs[0], tmp_path / "start")
    config = start / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_bytes()) | change))
    with pytest.raises(ValueError, match=f"^init_from: .*{told}"):
        first_model(causal(llama, "ffa-lora", start))


def test_a_folder_without_an_adapter_is_named(llama, tmp_path):
    with pytest.raises(ValueError, match=r"^init_from: there is no adapter in .*adapter_config"):
        first_model(causal(llama, "ffa-lora", tmp_path))


def test_a_head_that_peft_trained_is_taken_over(bert, tmp_path):
    def base():
        return AutoModelForSequenceClassification.from_pretrained(
            bert, num_labels=2, dtype=torch.float32
        )

    start = saved_by_peft(
        base(), tmp_path / "start", r=2, lora_alpha=6, target_modules=["query"], task_type="SEQ_CLS"
    )
    with torch.no_grad():
        expected = PeftModel.from_pretrained(base(), start).eval()(input_ids=TOKENS).logits

    def terms(labels=LABELS, **objective) -> Terms:
        method = st.methods.FFALoRA(
            r=2, lora_alpha=6, target_modules=("query",), init_from=str(start)
        )
        learned = classifier(labels=labels, **objective)
        return Terms(
            model=str(bert), objective=learned, optimizer=st.optim.SGD(lr=0.5), method=method
        )

    for scale in (1.0, 4.0):
        model = first_model(terms(head_scale=scale), LABELS)
        assert model.drawn == {}
        with torch.no_grad():
            found = model.trainer.adapted.model.eval()(input_ids=TOKENS).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    three = (*LABELS, "bird")
    with pytest.raises(ValueError, match=r"^labels: .*classifier.bias is \(3,\) here, and \(2,\)"):
        first_model(terms(three), three)


def started(bert, start, **changes) -> st.Federation:
    method = st.methods.FFALoRA(r=2, init_from=str(start))
    return federation(bert, **{"method": method, **ONE, **changes})


@pytest.fixture(scope="module")
def openly(bert, tmp_path_factory) -> Path:
    """The folder of a run without privacy."""
    folder = tmp_path_factory.mktemp("start") / "openly"
    federation(bert, **ONE).fit(folder)
    return folder


@pytest.fixture(scope="module")
def of_others(openly, tmp_path_factory) -> Path:
    """The same, as if its silos had other names."""
    folder = shutil.copytree(openly, tmp_path_factory.mktemp("start") / "others")
    facts = read_json(folder / "run.json")
    silos = {f"other {name}": silo for name, silo in facts["silos"].items()}
    write_json(folder / "run.json", facts | {"silos": silos})
    return folder


def test_a_run_goes_on_from_another_and_stands_by_itself_after_it(bert, openly, tmp_path):
    start = shutil.copytree(openly, tmp_path / "start")
    first = federation(bert, **ONE).result(start)
    again = started(bert, start, optimizer=st.optim.SGD(lr=1e-5))
    run = again.fit(tmp_path / "run")
    records = tables(40)["east"]
    expected = first.evaluate(records).metrics["loss"]
    assert run.evaluate(records).metrics["loss"] == pytest.approx(expected, rel=1e-4)
    assert len(run.facts.start_digest) == 64
    assert first.facts.start_digest == ""
    shutil.rmtree(start)  # what it has learned is all in its own adapter
    assert run.evaluate(records).metrics["loss"] == pytest.approx(expected, rel=1e-4)
    assert st.load(run.folder.path).labels == LABELS
    run.merged_model()


def test_labels_in_another_order_are_refused(bert, openly, tmp_path):
    turned = started(bert, openly, objective=classifier(labels=("dog", "cat")))
    with pytest.raises(ValueError, match=r"^labels: dog, cat here, and cat, dog"):
        turned.fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_base_of_the_same_name_is_refused(bert, openly, tmp_path):
    other = tiny_bert(tmp_path / bert.name, seed=9)
    with pytest.raises(ValueError, match=r"^init_from: .* trained beside other weights"):
        started(other, openly).plan()


def test_another_start_is_refused_when_a_run_goes_on(bert, openly, tmp_path):
    start = shutil.copytree(openly / "adapter", tmp_path / "start")
    again = started(bert, start, rounds=2)
    rounds = again.rounds(tmp_path / "run")
    next(rounds)
    rounds.close()
    file = start / "adapter_model.safetensors"
    kept = file.read_bytes()
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match=r"^init_from: this is not the adapter"):
        again.fit(tmp_path / "run", resume=True)
    file.write_bytes(kept)
    assert again.fit(tmp_path / "run", resume=True).facts.status == "finished"


def life(run) -> dict:
    """What a verified certificate says of the records of east, over all runs."""
    assert verify(run.folder.path).findings == ()
    return read_json(run.folder.privacy)["silos"]["east"]["lifetime"]


def new_book(monkeypatch, place: Path) -> None:
    """One that knows of no run before."""
    monkeypatch.setenv("SILOTUNE_LIFETIME_FOLDER", str(place))


def test_a_private_start_brings_the_charges_of_its_run(bert, tmp_path, monkeypatch):
    first = federation(bert, **ONE, **DP).fit(tmp_path / "first")
    new_book(monkeypatch, tmp_path / "book")
    run = started(bert, first.folder.path, **DP).fit(tmp_path / "run")
    assert life(run)["runs"] == 2
    assert life(run)["epsilon"] > 1.2 * life(first)["epsilon"]
    assert START_COUNTED in read_json(run.folder.privacy)["not_covered"]
    assert START_COUNTED not in read_json(first.folder.privacy)["not_covered"]
    ceiling = st.Lifetime(max_epsilon=1.01 * life(first)["epsilon"], max_delta=1e-3)
    new_book(monkeypatch, tmp_path / "another")
    with pytest.raises(ValueError, match="in 1 earlier runs"):
        started(bert, first.folder.path, **DP, lifetime=ceiling).fit(tmp_path / "refused")


@pytest.mark.full
def test_a_chain_of_starts_brings_the_charges_of_all(bert, tmp_path, monkeypatch):
    """As the book does that knows all of them."""
    first = federation(bert, **ONE, **DP).fit(tmp_path / "first")
    second = started(bert, first.folder.path, **DP).fit(tmp_path / "second")
    known = started(bert, second.folder.adapter, **DP).fit(tmp_path / "known")
    assert life(known)["runs"] == 3
    new_book(monkeypatch, tmp_path / "book")
    brought = started(bert, second.folder.adapter, **DP).fit(tmp_path / "brought")
    assert (life(brought)["runs"], life(brought)["epsilon"]) == (3, life(known)["epsilon"])
    shutil.rmtree(first.folder.path)
    with pytest.raises(ValueError, match="nobody knows what its records have paid"):
        started(bert, second.folder.path, **DP).fit(tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_no_private_run_goes_on_from_what_its_own_silos_trained_openly(bert, openly, tmp_path):
    with pytest.raises(ValueError, match="trained without privacy on records of east, west"):
        started(bert, openly, **DP).fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_book_the_certificate_says_that_epsilons_add_up(bert, of_others, tmp_path):
    privacy = st.ClientDP(noise_multiplier=2.0, target_delta=1e-3, max_update_norm=0.5)
    clients = {"privacy": privacy, "weighting": "uniform", "num_examples": 20}
    run = started(bert, of_others, **clients).fit(tmp_path / "run")
    assert START in read_json(run.folder.privacy)["not_covered"]
    assert verify(run.folder.path).findings == ()
