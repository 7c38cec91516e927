"""Sequence to sequence from records to what other libraries make of the result."""

import json
import random

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import silotune as st
from federation.objects import SEEDED, federation
from silotune.federation.data_summary import divide
from silotune.federation.export import export_merged
from silotune.terms import Machine, open_model
from silotune.testing import tiny_models

# PEFT asks transformers for a property that it has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

FAMILIES = ("t5", "bart")
FEDIT = {"method": st.methods.FedIT(r=2, lora_alpha=5), "optimizer": st.optim.AdamW(lr=0.02)}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    return {name: getattr(tiny_models, f"tiny_{name}")(root / name) for name in FAMILIES}


def notes(n=24, seed=0):
    """Notes of unlike lengths with lines about them."""
    draw, found = random.Random(seed), []
    for _ in range(n):
        name, day = draw.choice(("anna", "bert", "cleo")), draw.choice(("monday", "sunday"))
        more = " again" * draw.randrange(3)
        found.append({"note": f"{name} came on {day}{more}", "line": f"{day}: {name}"})
    return found


def objective(**changes):
    given = {"source": "note", "target": "line", "source_prefix": "sum: "}
    return st.Seq2Seq(**{**given, "max_length": 48, "max_target_length": 20, **changes})


def writing(model, **changes):
    clients = {name: notes(seed=i) for i, name in enumerate(("east", "west"))}
    return federation(model, **{"clients": clients, "objective": objective(), **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_learned_is_the_same_in_other_libraries(pairs, tmp_path, family):
    made = writing(pairs[family], rounds=2, local_steps=4, **FEDIT)
    run = made.fit(tmp_path / "run")
    rows = notes(8, seed=9)
    scores = run.evaluate(rows).metrics
    tokenizer = AutoTokenizer.from_pretrained(pairs[family])
    texts = {
        "text": [f"sum: {row['note']}" for row in rows],
        "text_target": [row["line"] for row in rows],
    }
    batch = tokenizer(**texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    batch["labels"] = batch["labels"].where(batch["labels"] != 0, -100)
    base = AutoModelForSeq2SeqLM.from_pretrained(pairs[family])
    peft = PeftModel.from_pretrained(base, run.folder.adapter).eval()
    export_merged(made, run.folder, tmp_path / "merged")
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        for model in (peft, merged):  # transformers' own loss is the mean over tokens, as ours
            assert float(model(**batch).loss) == pytest.approx(scores["loss"], abs=1e-5)
    written = st.load(run.folder.path).generate([row["note"] for row in rows], max_new_tokens=8)
    del batch["labels"]
    tokens = [peft.generate(**batch, max_new_tokens=8, do_sample=False)]
    assert written == tokenizer.batch_decode(tokens[0], skip_special_tokens=True)
    config = json.loads((run.folder.adapter / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    card = (run.folder.adapter / "README.md").read_text()
    assert "pipeline_tag: text2text-generation" in card
    assert "AutoModelForSeq2SeqLM" in card
    assert '"sum: "' in card


@pytest.mark.parametrize("family", FAMILIES)
def test_every_record_has_its_own_gradient(pairs, family):
    """The proof before a run: gradients one by one, and no record that moves another."""
    terms = writing(pairs[family], privacy=SEEDED, num_examples=20).terms
    model = open_model(terms, (), Machine())
    assert 0 < model.coupling.moved < 2e-5


def test_a_router_is_refused(pairs):
    terms = writing(pairs["t5"], method=st.methods.MiLoRA(r=2)).terms
    with pytest.raises(ValueError, match="a model with an encoder and a decoder has two"):
        open_model(terms, (), Machine())


def test_what_is_cut_or_empty_is_told(pairs):
    rows = [*notes(), {"note": "nobody came", "line": " "}, {"note": "", "line": "monday"}]
    cut = objective(max_length=20, max_target_length=8)
    notices = divide(writing(pairs["t5"], clients={"east": rows}, objective=cut)).notices
    assert any("target longer than 8 tokens, which is cut" in notice for notice in notices)
    assert any("longer than 20 tokens and are cut" in notice for notice in notices)
    assert any(notice.startswith("train: 2 ") or "2 " in notice for notice in notices)
    bare = [{"note": "nobody came", "line": ""}] * 4
    with pytest.raises(ValueError, match="data: silo 'east', train is empty"):
        divide(writing(pairs["t5"], clients={"east": bare}))


def test_more_than_a_decoder_writes_is_refused(pairs):
    terms = writing(pairs["bart"], objective=objective(max_target_length=129)).terms
    with pytest.raises(ValueError, match=r"max_target_length: 129 is more than the 128 tokens"):
        open_model(terms, (), Machine())


def test_a_start_of_single_texts_is_refused(pairs, tmp_path):
    with pytest.raises(ValueError, match="two texts that go through the model apart"):
        writing(pairs["t5"]).eva(["a text"], tmp_path / "eva")
    assert not (tmp_path / "eva").exists()
