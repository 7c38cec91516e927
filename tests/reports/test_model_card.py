"""The model card: front matter and statement."""

import re
from dataclasses import replace

import pytest
import yaml

import silotune as st
from reports.clinics import CLINICS, facts, rounds, seeded, statement, summary
from silotune.objectives.base import loss_settings
from silotune.reports.model_card import model_card
from silotune.reports.totals import outcome

HOSTILE = "x`\n---\n# ![i](http://evil) <script>*a*|b"


def card(about=None, privacy=None):
    about = about or summary()
    return model_card(about, facts(), outcome(rounds(), "accuracy"), privacy)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter():
    assert front_matter(card(privacy=statement())) == {
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "tags": ["lora", "federated-learning", "ffa-lora", "silotune", "differential-privacy"],
    }


def test_a_base_model_of_this_machine_is_not_published():
    text = card(replace(summary(), base_model="/home/me/secret/bert"))
    assert "base_model" not in front_matter(text)
    assert "secret" not in text
    assert "base model: bert" in text
    assert 'BASE = "path/to/bert"' in text


def test_a_result_worse_than_the_start_is_said():
    lines = [
        replace(rounds()[-1], round=-1),
        replace(rounds()[0], round=0, metrics={"accuracy": 0.027}),
    ]
    text = model_card(summary(), facts(), outcome(lines, "accuracy"), None)
    assert "**Worse than before training: accuracy went from 87.7 % to 2.7 %." in text
    assert "Worse" not in card()


def test_the_card_names_no_silo():
    text = card(privacy=statement())
    assert not [name for name in CLINICS if re.search(rf"\b{name}\b", text)]
    assert "silos: 3, with 2,400 declared records in all" in text


def test_the_privacy_statement_is_whole():
    text = card(privacy=statement())
    for words in (
        "ε ≤ 5.98, δ = 1e-5",
        "relation: add-remove",
        "Poisson",
        "PLD (dp-accounting 0.6.0), grid 1e-4",
        "C = 1",
        "| 3 | 400 | 0.32 | 3.61 | 190 | 5.71 | 6.06 | 1e-5 |",
        "What no attack can exceed",
        "Released under this guarantee:",
        "Not covered by it:",
        "Not counted on, and so not claimed:",
        "silotune privacy verify",
    ):
        assert words in text


def test_seeded_noise_is_said_first_and_never_tagged():
    text = card(privacy=seeded())
    assert "differential-privacy" not in front_matter(text)["tags"]
    assert text.split("\n\n")[2].startswith("> **NOT PRIVATE.** Noise and sampling coins")
    assert "protected" not in text
    assert "seed 0, which also decided noise and sampling coins: NOT PRIVATE" in text
    assert "| 3 | 400 | 0.32 | 3.61 | 190 | ∞ | ∞ | 1e-5 |" in text
    assert "under this guarantee" not in text


def test_no_privacy_is_said():
    text = card()
    assert "**No differential privacy.**" in text
    assert "differential-privacy" not in front_matter(text)["tags"]
    assert "protected" not in text
    assert "operating system" not in text


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ("simulation", "not covered by epsilon"),
        ("public", "public records"),
        ("site", "kept the scores in its own folder"),
    ],
)
def test_the_result_says_what_it_was_measured_on(evaluation, words):
    result = card(replace(summary(), evaluation=evaluation)).split("## ")[3]
    assert result.startswith("Result")
    assert "| 23.0 % | 87.7 % |" in result
    assert words in result


def test_hostile_words_stay_words():
    about = replace(
        summary(),
        title=HOSTILE,
        method_title=HOSTILE,
        method_words=HOSTILE,
        base_model=HOSTILE,
        optimizer=HOSTILE,
        target_modules=HOSTILE,
        loss={"class_weights": f"{HOSTILE} 3"},
    )
    text = model_card(
        about,
        replace(facts(), labels=(HOSTILE,), versions={HOSTILE: HOSTILE}),
        outcome(rounds(), "accuracy"),
        replace(statement(), noise=HOSTILE, released=(HOSTILE,)),
    )
    prose = re.sub(r"```python\n.*?\n```", "", text, flags=re.DOTALL)
    assert "<script>" not in prose.replace(r"\<script\>", "")
    assert "![" not in prose
    assert text.count("\n# ") == 1
    assert text.count("\n---\n") == 1
    assert text.count("```") == 2


def test_the_card_says_how_a_quantised_base_is_loaded():
    assert "BitsAndBytesConfig" not in card(summary())
    text = card(replace(summary(), quantization="4bit"))
    assert 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")' in text


def test_the_card_says_what_the_loss_was_where_it_is_not_the_usual_one():
    labels = {"label": "kind", "labels": ["no", "yes"], "text": "note"}
    weighted = st.SequenceClassification(class_weights={"yes": 3}, label_smoothing=0.1, **labels)
    scale = {"target_mean": 0, "target_scale": 1}
    robust = st.Regression(text="note", label="days", loss="huber", huber_delta=0.5, **scale)
    told = [card(replace(summary(), loss=loss_settings(one))) for one in (weighted, robust)]
    assert "\n- class\\_weights: yes 3\n- label\\_smoothing: 0.1\n" in told[0]
    assert "\n- loss: huber\n- huber\\_delta: 0.5\n" in told[1]
    assert loss_settings(st.SequenceClassification(**labels)) == {}
    assert loss_settings(st.CausalLM(text="note")) == {}
