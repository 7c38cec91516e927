"""What a model writes is scored on demand: against plain transformers, and texts that are known."""

import json

import pytest
import torch

import silotune as st
from federation.objects import federation
from silotune.federation import results
from silotune.federation.loaded_model import LoadedModel
from silotune.federation.run_result import Run
from silotune.federation.written_texts import last_run, written
from silotune.objectives.text_scores import text_scores
from silotune.testing import tiny_models

# PEFT asks transformers for a property that it has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

SAID = ("cat ran", "dog ate", "cat saw a bird", "dog slept today")
MOST = 6
PAIRS = st.CausalLM(prompt="asked", completion="answer", max_length=64)
CHATS = st.CausalLM(messages="said", max_length=96)
SOURCES = st.Seq2Seq(source="asked", target="answer", source_prefix="q: ", max_target_length=30)


def turns(*texts):
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def records(answers=("a cat", "the dog", "no bird", "asleep")):
    return [
        {"asked": asked, "answer": answer, "said": turns("hello", "yes?", asked, answer)}
        for asked, answer in zip(SAID, answers, strict=True)
    ]


def written_down(folder, silo):
    file = folder / f"{silo}.jsonl"
    rows = [
        {
            **row,
            "asked": f"{row['asked']} {silo} {i}",
            "said": turns("hello", "yes?", f"{row['asked']} {silo} {i}", row["answer"]),
        }
        for i, row in enumerate(records() * 4)
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of each way to say what is to be written."""
    place, made = tmp_path_factory.mktemp("written"), {}
    for objective, kind, seed in ((PAIRS, "gpt2", 0), (CHATS, "gpt2", 1), (SOURCES, "t5", 0)):
        name = next(iter(objective.columns))
        base = getattr(tiny_models, f"tiny_{kind}")(place / f"{name}-base", seed)
        clients = {silo: str(written_down(place, silo)) for silo in ("east", "west")}
        with_it = {"clients": clients, "objective": objective, "rounds": 1, "valid_fraction": 0.3}
        made[name] = federation(base, **with_it).fit(place / name)
    return made


@pytest.mark.parametrize("way", ["prompt", "messages", "source"])
def test_scores_are_of_what_the_model_writes(runs, way):
    run = runs[way]
    loaded = run.load()
    before = "user: hello\nassistant: yes?\nuser: {asked}\nassistant: "  # each byte is a token here
    form = before if way == "messages" else "{asked}"
    asked = [form.format(**row) for row in records()]
    written = loaded.generate(asked, max_new_tokens=MOST)
    assert all(text.strip() for text in written)
    rows = records([*written[:2], "nothing that it says", written[3]])
    found = run.evaluate(rows, generate=MOST)
    targets = [row["answer"] for row in rows]
    expected = text_scores(written, targets)
    assert expected["exact_match"].tolist() == [1, 1, 0, 1]
    for name, each in expected.items():
        assert found.metrics[name] == pytest.approx(float(each.mean()))
        assert found.scored.errors[name] == pytest.approx(float(each.std()) / 2)
    plain = run.evaluate(rows).metrics
    assert {name: found.metrics[name] for name in plain} == plain


@pytest.fixture
def wanted(monkeypatch):
    """How many tokens of each text were asked for."""
    found, real = [], LoadedModel.written
    monkeypatch.setattr(
        LoadedModel, "written", lambda self, ids, most: found.append(most) or real(self, ids, most)
    )
    return found


def test_as_much_is_written_as_a_record_has_room_for(runs, wanted):
    runs["source"].evaluate(records(), generate=True)
    assert wanted == [SOURCES.max_target_length] * 4
    del wanted[:]
    runs["prompt"].evaluate(records(), generate=True)
    assert wanted == [PAIRS.max_length - len(row["asked"]) - 1 for row in records()]


def test_the_last_answer_of_a_chat_is_asked_for():
    learned = torch.tensor([0, 0, 1, 1, 0, 1, 1, 1, 0]).bool()
    assert last_run(learned) == (5, 8)
    assert last_run(learned[:4]) == (2, 4)
    assert last_run(learned[2:4]) == (0, 2)


def test_silos_are_told_apart_and_write_no_more_than_is_asked(runs, wanted):
    found = runs["source"].evaluate(generate=3)
    names = {"loss", "perplexity", "exact_match", "rouge1", "rouge2", "rougeL"}
    assert {*found.silos} == {"east", "west"}
    assert all({*metrics} == names for metrics in (found.metrics, *found.silos.values()))
    assert wanted == [3] * found.scored.records


class Bare:
    """A record without a prompt, of a tokenizer that begins with no token of its own."""

    lengths = (3,)

    def batch(self, _):
        ids = torch.tensor([[5, 6, 7]])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def test_a_record_with_nothing_to_go_on_from_is_refused_before_any_is_written(runs):
    run = runs["prompt"]
    model = results.open_as_run(run.federation, run.folder)
    with pytest.raises(ValueError, match=r"^generate: record 0 .* has nothing before its text"):
        written(model, PAIRS, None, Bare(), None)


@pytest.mark.parametrize(
    ("objective", "most", "words"),
    [
        (st.CausalLM(text="asked"), True, "plain text does not say what is read"),
        (st.SequenceClassification(text="asked", label="answer"), True, "writes no texts"),
        (PAIRS, 0, "0 new tokens"),
        (PAIRS, "many", "'many' new tokens"),
    ],
)
def test_what_cannot_be_written_is_said_before_a_model_is_opened(
    runs, monkeypatch, objective, most, words
):
    monkeypatch.setattr(results, "_places", lambda _: pytest.fail("the run was opened"))
    made = federation("no model", clients={"east": records()}, objective=objective)
    for rows in (None, records()):
        with pytest.raises(ValueError, match=words):
            Run(made, runs["prompt"].folder).evaluate(rows, generate=most)
