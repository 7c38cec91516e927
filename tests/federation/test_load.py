"""A run, or an adapter of ours, loaded as a model that predicts and generates."""

import importlib
import json
import shutil
import sys
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import silotune as st
from covering import full
from federation.objects import LABELS, classifier, federation, tables
from silotune.federation.identity import decoded, described_in, encoded
from silotune.testing.tiny_models import tiny_gpt2, tiny_llama

TEXTS = ["cat ran today", "dog ate the mouse", "bird"]
RES = {"target_modules": "all-linear", "lora_alpha": 6}


def score(loaded, records) -> float:
    said = loaded.predict([r["text"] for r in records])
    return sum(p.label == r["label"] for p, r in zip(said, records, strict=True)) / len(records)


@pytest.mark.parametrize(
    "method",
    [
        full(st.methods.FedIT(r=2)),
        st.methods.FedExLoRA(r=2),
        full(st.methods.ResLoRA(r=2, shortcut="input", **RES)),
        full(st.methods.ResLoRA(r=2, shortcut="block", **RES)),
        st.methods.MiLoRA(r=2),
        full(st.methods.HeadOnly()),
    ],
    ids=lambda method: method.label,
)
def test_what_is_loaded_scores_as_the_run_did(bert, tmp_path, method):
    run = federation(bert, method=method, rounds=2).fit(tmp_path / "run")
    loaded = st.load(tmp_path / "run")
    public = tables(40)["east"]
    assert score(loaded, public) == pytest.approx(run.evaluate(public).metrics["accuracy"])
    for p in loaded.predict(TEXTS, batch_size=2):
        assert p.probability == max(p.probabilities.values())
        assert sum(p.probabilities.values()) == pytest.approx(1.0)
        assert p.probabilities.keys() == set(LABELS)
    shutil.copytree(run.folder.adapter, tmp_path / "alone")
    again = st.load(tmp_path / "alone").predict(TEXTS)
    assert again == loaded.predict(TEXTS)
    assert "sequence-classification, labels: cat, dog" in repr(loaded)


def test_a_mixture_is_loaded_with_its_experts(bert, tmp_path):
    method = st.methods.FedIT(r=2, target_modules=("query", "value"))
    folders = []
    for name in ("east", "west"):
        one = federation(bert, clients={name: tables()[name]}, method=method, rounds=1)
        one.fit(tmp_path / name)
        folders.append(str(tmp_path / name / "adapter"))
    mixture = st.methods.MoLE(experts=folders, target_modules=("query", "value"))
    run = federation(bert, method=mixture, rounds=1).fit(tmp_path / "run")
    public = tables(40)["west"]
    scored = run.evaluate(public).metrics["accuracy"]
    assert score(st.load(tmp_path / "run"), public) == pytest.approx(scored)


def test_clients_with_models_of_their_own(bert, tmp_path):
    run = federation(bert, method=st.methods.FedSALoRA(r=2), optimizer=st.optim.SGD(lr=2.0)).fit(
        tmp_path / "run"
    )
    with pytest.raises(ValueError, match="every client of this run has a model of its own"):
        st.load(tmp_path / "run")
    east, west = (st.load(tmp_path / "run", client=c).predict(TEXTS) for c in ("east", "west"))
    assert east != west
    own = run.merged_model("east").eval()
    inputs = AutoTokenizer.from_pretrained(bert)(TEXTS, padding=True, return_tensors="pt")
    expected = own(**inputs).logits.softmax(dim=-1)
    found = torch.tensor([list(p.probabilities.values()) for p in east])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (tiny_gpt2, st.methods.FedIT(r=2)),
        (tiny_llama, st.methods.ResLoRA(r=2, shortcut="middle", **RES)),
        (tiny_llama, st.methods.MiLoRA(r=2)),
    ],
    ids=["gpt2", "reslora", "milora"],
)
def test_a_language_model_generates(make, method, tmp_path):
    base = make(tmp_path / "base")
    routed = isinstance(method, st.methods.MiLoRA)  # by prompts, and a plain text has none
    columns = {"prompt": "text", "completion": "label"} if routed else {"text": "text"}
    objective = st.CausalLM(**columns, max_length=24)
    federation(base, objective=objective, method=method, rounds=1).fit(tmp_path / "run")
    loaded = st.load(tmp_path / "run")
    alone = loaded.generate(["cat ran"], max_new_tokens=8)
    both = loaded.generate(["cat ran", "dog"], max_new_tokens=8)
    assert both[0] == alone[0]
    slow = loaded.generate(["cat ran"], max_new_tokens=8, use_cache=False)
    if not routed:  # without a cache its routers decide anew
        assert slow == alone
    with pytest.raises(ValueError, match="use generate"):
        loaded.predict(["cat"])


def test_a_chat_without_a_template_goes_on_as_it_was_trained(tmp_path):
    base = tiny_gpt2(tmp_path / "base")
    rows = {c: [{"said": chat(r["text"], r["label"])} for r in t] for c, t in tables().items()}
    objective = st.CausalLM(messages="said", max_length=48)
    federation(base, clients=rows, objective=objective, rounds=1).fit(tmp_path / "run")
    loaded = st.load(tmp_path / "run")
    told = loaded.generate([chat("cat ran")], max_new_tokens=8)
    assert told == loaded.generate(["user: cat ran\nassistant:"], max_new_tokens=8)


def chat(asked, answer=None):
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return turns if answer else turns[:1]


def test_pairs_are_predicted_as_pairs(bert, tmp_path):
    rows = {c: [{**r, "other": "a bird"} for r in t] for c, t in tables().items()}
    federation(bert, clients=rows, objective=classifier(text_pair="other"), rounds=1).fit(
        tmp_path / "run"
    )
    loaded = st.load(tmp_path / "run")
    assert len(loaded.predict([("cat", "a bird"), ("dog", "a mouse")])) == 2
    for no_pair in ("cat", ("cat", None)):
        with pytest.raises(ValueError, match="give a list of \\(text, text_pair\\)"):
            loaded.predict([no_pair])
    with pytest.raises(ValueError, match="also for a single one"):
        loaded.predict("cat")
    with pytest.raises(ValueError, match="use predict"):
        loaded.generate(["cat"])


def test_images_are_predicted_from_files(pictures, tmp_path):
    from silotune.testing.tiny_models import tiny_vit

    files = sorted(pictures.rglob("*.png"))
    rows = [{"image": str(f), "label": f.parent.name} for f in files]
    objective = st.ImageClassification(image="image", label="label", labels=list(LABELS))
    clients = {"a": rows[::2], "b": rows[1::2]}
    run = federation(
        tiny_vit(tmp_path / "vit"), clients=clients, objective=objective, rounds=1
    ).fit(tmp_path / "run")
    said = st.load(tmp_path / "run").predict(files)
    right = [p.label == f.parent.name for p, f in zip(said, files, strict=True)]
    assert sum(right) / len(right) == pytest.approx(run.evaluate(rows).metrics["accuracy"])


def test_a_run_made_with_an_object_needs_the_object_again(bert, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
    model.config._name_or_path = model.name_or_path = ""
    tokenizer = AutoTokenizer.from_pretrained(bert)
    federation(model, tokenizer=tokenizer, rounds=1).fit(tmp_path / "run")
    with pytest.raises(ValueError, match=r"give it: load\(\.\.\., model="):
        st.load(tmp_path / "run")
    loaded = st.load(tmp_path / "run", model=model, tokenizer=tokenizer)
    assert len(loaded.predict(TEXTS)) == 3
    with torch.no_grad():
        next(model.bert.parameters()).add_(1.0)
    with pytest.raises(ValueError, match="base weights are not those"):
        st.load(tmp_path / "run", model=model, tokenizer=tokenizer)


def test_what_is_no_result_of_ours_is_said(tmp_path, bert):
    with pytest.raises(ValueError, match="no such folder"):
        st.load(tmp_path / "none")
    with pytest.raises(ValueError, match="no run is here"):
        st.load(tmp_path)
    federation(bert, rounds=1).fit(tmp_path / "run")
    adapter = tmp_path / "run" / "adapter"
    with pytest.raises(ValueError, match="leave client out"):
        st.load(adapter, client="east")
    (adapter / "silotune.json").unlink()
    with pytest.raises(ValueError, match=r"no silotune\.json.*loaded by PEFT"):
        st.load(adapter)


@dataclass(frozen=True)
class Half(st.Aggregator):
    step: float = 0.5

    def combine(self, previous, mean):
        return st.Combined(factors=previous.factors.lerp(mean.first, self.step))


OBJECTS = [
    classifier(labels={"cat": "a cat", "dog": "a dog"}),
    st.methods.FedIT(r=2, ranks=None, target_modules=("query",)),
    st.methods.FedIT(r=2).with_(aggregator=Half(0.25)),
    st.methods.LoRARITE(r=3).with_(adapter=st.adapters.LoRA(rank=3, alpha=2.0)),
    st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3),
    st.Partition(),
    float("inf"),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda v: type(v).__name__)
def test_objects_come_back_from_json_as_they_were(value):
    code = json.loads(json.dumps(encoded(value, "it"), allow_nan=False))
    assert decoded(code, "it") == value


def test_a_description_is_read_back_whole(bert, tmp_path):
    paths = write_tables(tmp_path)
    once = federation(bert, clients=paths, rounds=1, eval_every=2, threads=1, device="cpu")
    once.fit(tmp_path / "run")
    again = described_in(tmp_path / "run" / "federation.json")
    assert again.terms == once.terms
    assert again.machine == once.machine
    assert {k: str(v) for k, v in paths.items()} == again.records.clients


def test_a_description_imports_no_code(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    names = ("evil:Evil", "evil:", "subprocess:Popen", "os:path", "silotune.__main__:Evil")
    sys.path.insert(0, str(tmp_path))
    try:
        for name in names:
            with pytest.raises(ValueError, match=r"cannot bring in|no frozen dataclass"):
                decoded({"__class__": name, "args": ["true"]}, "federation.json")
    finally:
        sys.path.remove(str(tmp_path))
    assert "evil" not in sys.modules


OWN_RULE = """
from dataclasses import dataclass
import silotune as st

@dataclass(frozen=True)
class HalfWay(st.Aggregator):
    def combine(self, previous, mean):
        return st.Combined(factors=previous.factors.lerp(mean.first, 0.5))
"""


def test_a_class_of_ones_own_must_have_been_imported(bert, tmp_path, monkeypatch):
    (tmp_path / "own_half_way.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(tmp_path)
    rule = importlib.import_module("own_half_way").HalfWay()
    method = st.methods.FedIT(r=2).with_(aggregator=rule)
    federation(bert, method=method, rounds=1).fit(tmp_path / "run")
    assert len(st.load(tmp_path / "run").predict(TEXTS)) == 3
    monkeypatch.delitem(sys.modules, "own_half_way")  # as another process begins
    with pytest.raises(ValueError, match="HalfWay is code, which the folder of a run cannot"):
        st.load(tmp_path / "run")
    assert "own_half_way" not in sys.modules


def write_tables(folder):
    paths = {}
    for name, rows in tables().items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths
