"""Token classification from records to what other libraries make of the result."""

import random
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)

import silotune as st
from covering import full
from federation.objects import SEEDED, federation
from silotune.federation.data_summary import divide
from silotune.federation.entities import tagged
from silotune.federation.export import export_merged
from silotune.terms import Machine, open_model

# PEFT asks transformers for a property that it has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

NAMES, DAYS = ("anna", "bert", "cleo"), ("monday", "sunday")
TYPES = ("NAME", "DATE")
FEDIT = {"method": st.methods.FedIT(r=2, lora_alpha=5), "optimizer": st.optim.AdamW(lr=0.02)}


def letters(n=24, seed=0):
    """Texts with their spans."""
    draw, found = random.Random(seed), []
    for _ in range(n):
        name, day = draw.choice(NAMES), draw.choice(DAYS)
        text = f"{name} came on {day}"
        spans = [(0, len(name), "NAME"), (len(text) - len(day), len(text), "DATE")]
        keys = ("start", "end", "label")
        found.append({"text": text, "spans": [dict(zip(keys, s, strict=True)) for s in spans]})
    return found


def as_words(rows):
    """The same as words with tags."""
    tags = ["B-NAME", "O", "O", "B-DATE"]
    return [{"words": row["text"].split(" "), "tags": tags} for row in rows]


def objective(columns=("text", "spans"), **changes):
    given = dict(zip(columns, columns, strict=True)) | {"labels": TYPES, "max_length": 32}
    return st.TokenClassification(**{**given, **changes})


def tagging(bert, make=lambda rows: rows, columns=("text", "spans"), **changes):
    clients = {name: make(letters(seed=i)) for i, name in enumerate(("east", "west"))}
    return federation(bert, clients=clients, objective=objective(columns), **changes)


def test_what_was_learned_is_the_same_in_other_libraries(bert, tmp_path):
    made = tagging(bert, rounds=8, local_steps=8, **FEDIT)
    run = made.fit(tmp_path / "run")
    rows, texts = letters(12, seed=9), [row["text"] for row in letters(12, seed=9)]
    scores = run.evaluate(rows).metrics
    assert scores["entity_f1"] > 0.5, "it has learned something that can be compared"
    loaded = st.load(run.folder.path)
    ours = loaded.predict(texts)
    there = [{(s["start"], s["end"], s["label"]) for s in row["spans"]} for row in rows]
    found = [{(e.start, e.end, e.label) for e in one} for one in ours]
    hits = sum(len(a & b) for a, b in zip(there, found, strict=True))
    total = sum(map(len, there)) + sum(map(len, found))
    assert 2 * hits / total == pytest.approx(scores["entity_f1"])

    tokenizer = AutoTokenizer.from_pretrained(bert)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    base = AutoModelForTokenClassification.from_pretrained(bert, num_labels=5)
    peft = PeftModel.from_pretrained(base, run.folder.adapter).eval()
    export_merged(made, run.folder, tmp_path / "merged")
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        expected = loaded.model(**batch).logits
        torch.testing.assert_close(peft(**batch).logits, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(merged(**batch).logits, expected, rtol=0, atol=1e-5)
    find_all = pipeline(
        "token-classification",
        model=str(tmp_path / "merged"),
        aggregation_strategy="simple",
    )
    for text, entities in zip(texts, ours, strict=True):
        spans = {(e["start"], e["end"], e["entity_group"]) for e in find_all(text)}
        assert {(e.start, e.end, e.label) for e in entities} <= spans
    card = (run.folder.adapter / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert r"entity\_f1" in card, "as Markdown writes it"


def test_words_are_found_by_their_first_tokens(bert, tmp_path):
    made = tagging(bert, as_words, ("words", "tags"), rounds=8, local_steps=8, **FEDIT)
    run = made.fit(tmp_path / "run")
    rows = letters(12, seed=9)
    scores = run.evaluate(as_words(rows)).metrics
    assert scores["entity_f1"] > 0.5
    found = st.load(run.folder.path).predict([row["text"] for row in rows])
    there = [{(s["start"], s["end"], s["label"]) for s in row["spans"]} for row in rows]
    given = [{(e.start, e.end, e.label) for e in one} for one in found]
    hits = sum(len(a & b) for a, b in zip(there, given, strict=True))
    recall = hits / sum(map(len, there))
    assert recall == pytest.approx(scores["entity_recall"])
    lists = [row["words"] for row in as_words(rows)]
    told = st.load(run.folder.path).predict([*lists, ["anna"] * 40])
    for words, tags, entities in zip(lists, told, found, strict=False):
        begins = [i for i, tag in enumerate(tags.tags) if tag.startswith("B-")]
        assert len(tags.tags) == len(words)
        assert [sum(len(w) + 1 for w in words[:i]) for i in begins] == [e.start for e in entities]
    assert (len(told[-1].tags), told[-1].tags[-1]) == (40, None), "as it was not read"


def test_no_score_leaves_a_site(bert, tmp_path):
    made = tagging(bert, privacy=SEEDED, rounds=1, num_examples=20, evaluation="site")
    run = made.fit(tmp_path / "run")
    assert all(record.metrics == {} for record in run.metrics.records)
    kept = run.folder.site("east") / "metrics.jsonl"
    assert '"entity_f1"' in kept.read_text()
    noisy = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3, metric_noise=4.0)
    with pytest.raises(ValueError, match="metric_noise: counts right answers, at most one"):
        tagging(bert, privacy=noisy, num_examples=20, evaluation="site")


def test_a_type_without_an_entity_is_told(bert):
    bare = [{**row, "spans": row["spans"][:1]} for row in letters()]
    notices = federation(bert, clients={"east": bare}, objective=objective()).data().notices
    assert [n for n in notices if n.startswith("labels: no training record at east has DATE,")]


def test_what_is_cut_is_told(bert):
    made = federation(bert, clients={"east": letters()}, objective=objective(max_length=12))
    assert any("entities are cut off or cut short" in notice for notice in divide(made).notices)


@pytest.mark.parametrize(
    "method", [st.methods.FFALoRA(r=2), full(st.methods.FedIT(r=2)), full(st.methods.HeadOnly())]
)
def test_every_record_has_its_own_gradient(bert, method):
    """The proof before a run: gradients one by one, and no record that moves another."""
    terms = tagging(bert, method=method, privacy=SEEDED, num_examples=20).terms
    model = open_model(terms, terms.objective.label_names, Machine())
    assert model.coupling.moved < 2e-5


class Told(torch.nn.Module):
    """Tags each token by its id."""

    def __init__(self, tags):
        super().__init__()
        self.tags = torch.nn.Parameter(torch.eye(3)[torch.tensor(tags)], requires_grad=False)

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=self.tags[input_ids])


def test_an_entity_has_no_space_at_its_ends():
    """The tokens of GPT-2, Qwen and others begin with the space before a word."""
    words = ["<pad>", "I", "\u0120saw", "\u0120Anna", "\u0120Bell", "\u010a", "."]
    plain = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>")
    text = "I saw Anna Bell.\n"
    assert tokenizer(text, return_offsets_mapping=True)["offset_mapping"][2] == (5, 10)
    one = objective(labels=["NAME"])
    tags = [0, 0, 0, 1, 2, 1, 0]  # the end of the line is a name, too
    (found,) = tagged(Told(tags), tokenizer, one, one.label_names, [text])
    assert [(e.start, e.end, text[e.start : e.end]) for e in found] == [(6, 15, "Anna Bell")]
