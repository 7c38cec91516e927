"""Text embedding from records to what other libraries make of the result."""

import json
import random

import pytest
import torch
from peft import PeftModel
from scipy.stats import pearsonr, spearmanr
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

import silotune as st
from federation.objects import SEEDED, federation
from silotune.cli import app
from silotune.federation.data_summary import divide
from silotune.federation.export import export_merged
from silotune.objectives.answers import Embedding, Similarity
from silotune.terms import Machine, open_model

# PEFT asks transformers for a property that it has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

WORDS = ("cough", "fever", "a broken arm", "a rash", "no sleep")
FEDIT = {"method": st.methods.FedIT(r=2, lora_alpha=5), "optimizer": st.optim.AdamW(lr=0.02)}


def pairs(n=24, seed=0):
    """Complaints of unlike lengths, whose score is what they have in common."""
    draw, found = random.Random(seed), []
    for _ in range(n):
        one, other = draw.sample(WORDS, 2), draw.sample(WORDS, draw.randrange(1, 4))
        shared = len({*one} & {*other})
        texts = {"one": " and ".join(one), "other": ", ".join(other)}
        found.append({**texts, "score": 2.0 * shared + draw.random() / 2})
    return found


def objective(**changes):
    given = {"text": "one", "text_pair": "other", "label": "score", "score_range": (0, 5)}
    return st.TextEmbedding(**{**given, "max_length": 32, "pooling": "mean", **changes})


WIDE = objective(score_range=(0, 8))


def embedding(model, **changes):
    clients = {name: pairs(seed=i) for i, name in enumerate(("east", "west"))}
    return federation(model, **{"clients": clients, "objective": objective(), **changes})


def vectors(model, tokenizer, texts):
    """Means over tokens, in plain transformers."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    weights = batch["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def test_what_was_learned_is_the_same_in_other_libraries(bert, tmp_path):
    made = embedding(bert, rounds=2, local_steps=4, **FEDIT)
    run = made.fit(tmp_path / "run")
    rows = pairs(10, seed=9)
    told = run.evaluate(rows).metrics
    assert told.keys() == {"loss", "mse", "pearson", "spearman"}
    assert (
        run.evaluate([{**rows[0], "score": None}, *rows, {**rows[0], "other": ""}]).metrics == told
    )
    tokenizer = AutoTokenizer.from_pretrained(bert)
    peft = PeftModel.from_pretrained(AutoModel.from_pretrained(bert), run.folder.adapter).eval()
    export_merged(made, run.folder, tmp_path / "merged")
    merged = AutoModel.from_pretrained(tmp_path / "merged").eval()
    scores = [row["score"] for row in rows]
    mine = st.load(run.folder.path).predict(rows)
    assert all(isinstance(answer, Similarity) for answer in mine)
    for model in (peft, merged):
        one, other = (vectors(model, tokenizer, [r[c] for r in rows]) for c in ("one", "other"))
        cosines = (one * other).sum(dim=1)
        assert [a.cosine for a in mine] == pytest.approx(cosines.tolist(), abs=1e-5)
        assert [a.score for a in mine] == pytest.approx((5 * cosines).tolist(), abs=1e-4)
        away = 5 * cosines - torch.tensor(scores)
        assert told["mse"] == pytest.approx(float(away.square().mean()), rel=1e-4)
        assert told["pearson"] == pytest.approx(pearsonr(cosines, scores).statistic, abs=1e-5)
        assert told["spearman"] == pytest.approx(spearmanr(cosines, scores).statistic, abs=1e-6)
    alone = st.load(run.folder.path).predict(["a rash", ("a rash", "no sleep")])
    assert isinstance(alone[0], Embedding)
    expected = vectors(merged, tokenizer, ["a rash"])[0].tolist()
    assert [*alone[0].vector] == pytest.approx(expected, abs=1e-5)
    config = json.loads((run.folder.adapter / "adapter_config.json").read_text())
    assert config["task_type"] == "FEATURE_EXTRACTION"
    card = (run.folder.adapter / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card
    assert "the lowest and the highest score: 0, 5" in card


def test_a_merged_model_is_one_of_sentence_transformers(bert, tmp_path):
    made = embedding(bert, rounds=1, objective=objective(pooling="cls"))
    run = made.fit(tmp_path / "run")
    export_merged(made, run.folder, tmp_path / "merged")
    modules = json.loads((tmp_path / "merged" / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads((tmp_path / "merged" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_cls_token"] is True
    assert pooling["pooling_mode_mean_tokens"] is False
    again = embedding(tmp_path / "merged", objective=objective(pooling="model"))
    model = open_model(again.terms, (), Machine())
    assert model.loaded.model.config.sentence_pooling == "cls"
    assert "hidden[:, 0]" in (tmp_path / "merged" / "README.md").read_text()


def test_every_record_has_its_own_gradient(bert):
    """The proof before a run: gradients one by one, and no record that moves another."""
    terms = embedding(bert, privacy=SEEDED, num_examples=20).terms
    model = open_model(terms, (), Machine())
    assert 0 < model.coupling.moved < 2e-5


def test_a_router_that_would_be_computed_again_is_refused(bert):
    milora = {"method": st.methods.MiLoRA(r=2), "gradient_checkpointing": "non-reentrant"}
    with pytest.raises(ValueError, match=r"^gradient_checkpointing: a router decides for each"):
        open_model(embedding(bert, **milora).terms, (), Machine())


def test_clients_of_a_simulation_train_together(bert, tmp_path):
    one = embedding(bert, rounds=1).fit(tmp_path / "one")
    crowd = embedding(bert, rounds=1, crowd=2).fit(tmp_path / "crowd")
    for mine, other in zip(one.metrics.records, crowd.metrics.records, strict=True):
        assert mine.metrics == pytest.approx(other.metrics, abs=1e-4)


def test_scores_outside_of_what_was_declared_are_refused_without_showing_them(bert):
    rows = [*pairs(), {"one": "a rash", "other": "no sleep", "score": 7.25}]
    made = embedding(bert, clients={"east": rows})
    with pytest.raises(ValueError, match=r"^label: row 24 .* outside of the declared") as told:
        divide(made)
    assert "7.25" not in str(told.value)
    assert len(divide(embedding(bert, clients={"east": rows}, objective=WIDE)).silos) == 1


def test_what_is_cut_or_empty_is_told(bert):
    rows = [*pairs(), {"one": "", "other": "a rash", "score": 1.0}]
    rows += [{"one": "a rash", "other": " ", "score": 1.0}]
    rows += [{"one": "a rash", "other": "a rash", "score": None}]
    told = divide(embedding(bert, clients={"east": rows}, objective=objective(max_length=9)))
    assert any("longer than 9 tokens and are cut" in notice for notice in told.notices)
    assert any(n.startswith("max_length: ") and "have a text_pair" in n for n in told.notices)
    assert told.silos["east"].empty == 3
    bare = [{"one": "a rash", "other": "a rash", "score": "much"}] * 4
    with pytest.raises(ValueError, match=r"^label: column 'score' of .* does not hold numbers"):
        divide(embedding(bert, clients={"east": bare}))


def test_a_file_of_pairs_is_scored_and_one_of_texts_embedded(bert, tmp_path):
    run = embedding(bert, rounds=1).fit(tmp_path / "run")
    rows, mine = pairs(5, seed=3), run.load()
    alone = [{"one": row["one"], "id": i} for i, row in enumerate(rows)]
    for name, records in (("pairs", rows), ("texts", alone)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
        files = ("--input", tmp_path / f"{name}.jsonl", "--output", tmp_path / f"{name}-said.jsonl")
        words = ("predict", tmp_path / "run", *files, "--batch-size", 2)
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.output
    said = [json.loads(line) for line in (tmp_path / "pairs-said.jsonl").read_text().splitlines()]
    for one, row, answer in zip(said, rows, mine.predict(rows), strict=True):
        told = {"prediction": answer.score, "cosine": answer.cosine}
        assert one == {**row, **{name: pytest.approx(v, abs=1e-4) for name, v in told.items()}}
    said = [json.loads(line) for line in (tmp_path / "texts-said.jsonl").read_text().splitlines()]
    for one, row, answer in zip(said, alone, mine.predict(alone), strict=True):
        assert one == {**row, "embedding": pytest.approx([*answer.vector], abs=1e-5)}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([("a", "b", "c")], "reads texts, or pairs of them"),
        ([("a", None)], "reads texts, or pairs of them"),
        ([{"one": "a rash", "other": ""}], "has nothing in 'one' and 'other'"),
        ([{"other": "a rash"}], "has nothing in 'one'"),
    ],
)
def test_what_cannot_be_compared_is_refused(bert, tmp_path, asked, words):
    model = embedding(bert, rounds=1).fit(tmp_path / "run").load()
    with pytest.raises(ValueError, match=words):
        model.predict(asked)
    with pytest.raises(ValueError, match="answers and writes nothing; use predict"):
        model.generate(["a rash"])
