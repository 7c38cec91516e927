"""What leaves a run is the base's own but for what was learned, and the base is the run's."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import silotune as st
from federation.objects import federation, tables
from silotune.adapters import Estimate
from silotune.core.names import is_client_name
from silotune.federation.export import export_merged as export_of
from silotune.federation.export import export_peft
from silotune.federation.inputs import TEST, VALID
from silotune.federation.merging import training_batches
from silotune.runs.folder import RunFolder
from silotune.testing.tiny_models import tiny_bert, tiny_gpt2, tiny_llama

CAUSAL = st.CausalLM(text="text", max_length=24)
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"


@pytest.mark.parametrize("table", [VALID, TEST])
def test_no_silo_is_called_like_a_table_beside_them(table):
    assert not is_client_name(table), "digests of both are kept by name"


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, indent=2))


@pytest.fixture
def peculiar(tmp_path):
    """A language model that pads on the left, drops, keeps a cache and has keys of its own."""
    base = tiny_gpt2(tmp_path / "base")
    edit(base / TOKENIZER, padding_side="left", pad_token="<mask>", truncation_side="left")
    edit(base / CONFIG, attn_pdrop=0.25, use_cache=True, summary_first_dropout=0.3, mine="yes")
    (base / "generation_config.json").write_text('{"top_k": 7, "eos_token_id": 2}')
    return base


def merged(base, tmp_path, **changes):
    given = federation(base, rounds=1, **changes)
    given.fit(tmp_path / "run")
    export_of(given, RunFolder(tmp_path / "run"), tmp_path / "out")
    return tmp_path / "out"


def test_a_merged_model_keeps_what_no_training_changed(peculiar, tmp_path):
    out = merged(peculiar, tmp_path, objective=CAUSAL)
    for name in (TOKENIZER, "tokenizer.json", "generation_config.json"):
        assert (out / name).read_bytes() == (peculiar / name).read_bytes(), name
    before, after = (json.loads((place / CONFIG).read_text()) for place in (peculiar, out))
    assert before == after
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("left", "<mask>")
    assert AutoModelForCausalLM.from_pretrained(out).config.attn_pdrop == 0.25


def test_a_merged_classifier_has_its_labels_and_a_token_that_pads(tmp_path):
    base = tiny_gpt2(tmp_path / "base")
    edit(base / CONFIG, resid_pdrop=0.2)
    out = merged(base, tmp_path)
    config = AutoConfig.from_pretrained(out)
    assert (config.id2label, config.resid_pdrop) == ({0: "cat", 1: "dog"}, 0.2)
    said = "the tokenizer has no padding token, which a classifier needs; </s> pads"
    assert said in (out / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(out)
    batch = tokenizer(["cat ran", "dog"], padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    found = model(**batch).logits.softmax(dim=-1)
    said = st.load(tmp_path / "run").predict(["cat ran", "dog"])
    expected = torch.tensor([list(p.probabilities.values()) for p in said])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_objects_that_were_given_stay_as_they_are(tmp_path):
    base = tiny_gpt2(tmp_path / "base")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(base),
        AutoTokenizer.from_pretrained(base),
    )
    tokenizer.padding_side = "left"
    out = merged(model, tmp_path, tokenizer=tokenizer, objective=CAUSAL)
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("left", None)
    again = AutoTokenizer.from_pretrained(out)
    assert (again.padding_side, again.pad_token) == ("left", None)
    assert AutoConfig.from_pretrained(out).attn_pdrop == model.config.attn_pdrop == 0.1


@pytest.fixture
def replaced(tmp_path):
    """A run, and other weights where its base was."""
    base = tiny_bert(tmp_path / "base")
    given = federation(base, rounds=1)
    run = given.fit(tmp_path / "run")
    shutil.rmtree(base)
    tiny_bert(base, seed=1)
    return run


def test_another_base_is_refused_wherever_it_would_be_used(replaced, tmp_path):
    words = "model: the base weights are not those that the run"
    for use in (
        replaced.evaluate,
        lambda: replaced.evaluate(tables()["east"]),
        replaced.merged_model,
        lambda: export_of(replaced.federation, replaced.folder, tmp_path / "out"),
        lambda: export_peft(replaced.folder, tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=words):
            use()
    with pytest.raises(ValueError, match="model: the base weights are not those"):
        st.load(tmp_path / "run")


def test_an_adapter_is_copied_without_its_base_and_says_so(bert, tmp_path):
    """No model is opened: the files are compared where they are."""
    base = shutil.copytree(bert, tmp_path / "base")
    run = federation(base, rounds=1).fit(tmp_path / "run")
    said = export_peft(run.folder, tmp_path / "with")
    assert said == f"base: {base} on this machine has the same files as in the run"
    (base / "README.md").write_text("no weights")
    assert export_peft(run.folder, tmp_path / "as before") == said
    shutil.rmtree(base)
    said = export_peft(run.folder, tmp_path / "without")
    assert said == f"{base} was not compared: it is not on this machine"


def write(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def test_other_records_are_told(bert, tmp_path):
    rows = tables(40)
    test = write(tmp_path / "test.jsonl", rows["east"])
    paths = {name: write(tmp_path / f"{name}.jsonl", rows[name]) for name in rows}
    given = federation(bert, clients=paths, test=test, rounds=1)
    run = given.fit(tmp_path / "run")
    assert run.evaluate().notes == run.evaluate(split="valid").notes == ()
    write(tmp_path / "test.jsonl", rows["east"][:9])
    assert run.evaluate(split="valid").notes
    (note,) = run.evaluate().notes
    assert note.startswith("the records of splits: test are not those of the run")
    write(tmp_path / "test.jsonl", rows["east"])
    write(tmp_path / "west.jsonl", rows["west"][::-1])
    assert run.evaluate().notes == ()
    (note,) = run.evaluate(split="valid").notes
    assert note.startswith("the records of west are not")


def test_a_resumed_run_has_its_test_records(bert, tmp_path):
    rows = tables(40)
    test = write(tmp_path / "test.jsonl", rows["east"])
    given = federation(bert, test=test, rounds=2)
    next(given.rounds(tmp_path / "run"))
    write(tmp_path / "test.jsonl", rows["east"][1:])
    with pytest.raises(ValueError, match="resume: splits: test has other records"):
        given.fit(tmp_path / "run", resume=True)
    write(tmp_path / "test.jsonl", rows["east"])
    given.fit(tmp_path / "run", resume=True)


RES = {"target_modules": "all-linear", "lora_alpha": 6}


@pytest.mark.parametrize(
    ("method", "estimate"),
    [
        (st.methods.ResLoRA(r=2, shortcut="input", **RES), True),
        (st.methods.ResLoRA(r=2, shortcut="middle", **RES), True),
        (st.methods.MiLoRA(r=2), False),
    ],
    ids=["input", "middle", "milora"],
)
def test_an_estimate_is_suggested_where_there_is_one(bert, tmp_path, method, estimate):
    given = federation(bert, method=method, rounds=1)
    given.fit(tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match=r"silotune\.load") as refused:
        export_of(given, folder, tmp_path / "out")
    assert ("--approximate" in str(refused.value)) == estimate
    with pytest.raises(ValueError, match=r"silotune\.load") as refused:
        export_peft(folder, tmp_path / "out")
    assert "--approximate" not in str(refused.value)
    if not estimate:
        with pytest.raises(ValueError, match=r"no single weight could be added"):
            export_of(given, folder, tmp_path / "out", approximate=Estimate.WEIGHTS)


def test_no_norms_are_taken_of_records_that_are_at_sites(bert):
    given = federation(
        bert, method=st.methods.ResLoRA(r=2, **RES), clients=st.Sites(("east",)), evaluation="site"
    )
    with pytest.raises(ValueError, match=r"approximate: .* are at its sites; take weights"):
        training_batches(given, None, None)


def test_a_mixture_of_a_language_model_generates(tmp_path):
    # a silo alone holds out one record here, of which no error is known
    base = tiny_llama(tmp_path / "base")
    objective = st.CausalLM(prompt="text", completion="label", max_length=24)
    folders = []
    for name in ("east", "west"):
        alone = federation(
            base,
            objective=objective,
            clients={name: tables()[name]},
            rounds=1,
            method=st.methods.FedIT(r=2),
        )
        alone.fit(tmp_path / name)
        folders.append(str(tmp_path / name / "adapter"))
    given = federation(base, objective=objective, method=st.methods.MoLE(experts=folders), rounds=1)
    given.fit(tmp_path / "run")
    loaded = st.load(tmp_path / "run")
    both = loaded.generate(["cat ran", "dog"], max_new_tokens=4)
    assert both[1] == loaded.generate(["dog"], max_new_tokens=4)[0]
