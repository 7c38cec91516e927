"""The model card: front matter, statement, and programs that really run without silotune."""

import ast
import contextlib
import io
import re
from dataclasses import replace

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from reports.clinics import CLINICS, LABELS, facts, rounds, seeded, statement, summary
from silotune.models.pooling import MeanPooledClassifier
from silotune.reports.model_card import model_card, usage
from silotune.reports.totals import outcome
from silotune.testing.tiny_models import tiny_bert, tiny_gpt2

# PEFT asks transformers for a property that it has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

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


def test_many_labels_take_a_line_each():
    labels = [f"a rather long label {i}" for i in range(9)]
    program = usage(summary(), labels)
    assert max(map(len, program.splitlines())) <= 100
    assert "LABELS = [\n    " in program


def test_hostile_words_stay_words():
    about = replace(
        summary(),
        title=HOSTILE,
        method_title=HOSTILE,
        method_words=HOSTILE,
        base_model=HOSTILE,
        optimizer=HOSTILE,
        target_modules=HOSTILE,
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


@pytest.mark.parametrize("pooling", ["model", "mean"])
@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm", "image-classification"])
def test_programs_are_python(task, pooling):
    ast.parse(usage(replace(summary(), task=task, pooling=pooling), ['"', "\\", "{0}"]))


def moved(model, **options):
    """The model with an adapter whose every number is random."""
    peft_model = get_peft_model(model, LoraConfig(**options)).eval()
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return peft_model


def run_program(program, base, adapter):
    """Execute it as a user would; what it printed and its names."""
    program = program.replace('"path/to/adapter"', repr(str(adapter)))
    program = re.sub(r"^BASE = .*$", f"BASE = {str(base)!r}", program, flags=re.MULTILINE)
    assert "silotune" not in program
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "card", "exec"), names)
    return printed.getvalue(), names


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS"])
def test_the_program_for_mean_pooling_gives_our_logits(tmp_path, task_type):
    base = tiny_bert(tmp_path / "base")
    ours = MeanPooledClassifier(AutoModel.from_pretrained(base), len(LABELS))
    ours = moved(
        ours, task_type=task_type, target_modules=["query"], modules_to_save=["classifier"]
    )
    ours.save_pretrained(tmp_path / "adapter")
    printed, names = run_program(usage(summary(), LABELS), base, tmp_path / "adapter")
    assert any(label in printed for label in LABELS)
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], ours(**names["batch"]).logits)


def test_the_program_for_a_plain_classifier(tmp_path):
    base = tiny_bert(tmp_path / "base")
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
    plain = moved(
        plain, task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["classifier"]
    )
    plain.save_pretrained(tmp_path / "adapter")
    program = usage(replace(summary(), pooling="model"), LABELS)
    printed, names = run_program(program, base, tmp_path / "adapter")
    assert any(label in printed for label in LABELS)
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], plain(**names["batch"]).logits)


def test_the_program_for_a_language_model(tmp_path):
    base = tiny_gpt2(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    options = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    model = moved(model, task_type="CAUSAL_LM", **options)
    model.save_pretrained(tmp_path / "adapter")
    program = usage(replace(summary(), task="causal-lm", pooling="model"), ())
    _, names = run_program(program, base, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = tokenizer("Once upon a time", return_tensors="pt")
    assert names["tokens"].shape[1] > prompt["input_ids"].shape[1]
