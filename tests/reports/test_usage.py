"""Programs that use what a run has made: they really run, without silotune."""

import ast
import contextlib
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from reports.clinics import LABELS, summary
from silotune.data.chat_templates import instruction
from silotune.data.tokenization import text_examples
from silotune.models.pooling import MeanPooledClassifier
from silotune.objectives.embeddings import embedded
from silotune.objectives.iob2 import tags_of
from silotune.reports.usage import adapter_program, merged_program
from silotune.testing.tiny_models import tiny_bert, tiny_gpt2, tiny_t5, tiny_vit

# PEFT asks transformers for a property that it has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def test_many_labels_take_few_lines():
    labels = [f"a rather long label {i}" for i in range(9)]
    program = adapter_program(summary(), labels)
    assert max(map(len, program.splitlines())) <= 100
    assert "LABELS = [\n    " in program
    many = [f"label_{i}" for i in range(150)]
    program = adapter_program(summary(), many)
    assert len(program.splitlines()) < 70
    scope = {}
    exec(program[program.index("LABELS =") : program.index("]\n") + 1], scope)
    assert scope["LABELS"] == many


@pytest.mark.parametrize("pooling", ["model", "mean"])
@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm", "image-classification"])
def test_programs_are_python(task, pooling):
    ast.parse(adapter_program(replace(summary(), task=task, pooling=pooling), ['"', "\\", "{0}"]))


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
    printed, names = run_program(adapter_program(summary(), LABELS), base, tmp_path / "adapter")
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
    program = adapter_program(replace(summary(), pooling="model"), LABELS)
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
    program = adapter_program(replace(summary(), task="causal-lm", pooling="model"), ())
    _, names = run_program(program, base, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = tokenizer("Once upon a time", return_tensors="pt")
    assert names["tokens"].shape[1] > prompt["input_ids"].shape[1]


def test_the_program_for_an_encoder_with_a_decoder(tmp_path):
    base = tiny_t5(tmp_path / "base")
    model = moved(
        AutoModelForSeq2SeqLM.from_pretrained(base),
        task_type="SEQ_2_SEQ_LM",
        target_modules=["q", "v"],
    )
    model.save_pretrained(tmp_path / "adapter")
    facts = {"task": "seq2seq", "pooling": "model", "parts": ("source", "target")}
    told = replace(summary(), **facts, source_prefix='say "it": ')
    printed, names = run_program(adapter_program(told, ()), base, tmp_path / "adapter")
    read = AutoTokenizer.from_pretrained(base)('say "it": a text to read', return_tensors="pt")
    assert names["batch"]["input_ids"].tolist() == read["input_ids"].tolist()
    with torch.no_grad():
        tokens = model.generate(input_ids=read["input_ids"], max_new_tokens=50)
    assert names["tokens"].tolist() == tokens.tolist()
    assert printed


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_the_program_for_vectors_of_texts(tmp_path, pooling):
    base = tiny_bert(tmp_path / "base")
    model = moved(
        AutoModel.from_pretrained(base), task_type="FEATURE_EXTRACTION", target_modules=["query"]
    )
    model.save_pretrained(tmp_path / "adapter")
    ranges = {"score_range": [0.0, 5.0], "cosine_range": [0.0, 1.0]}
    facts = {"task": "text-embedding", "pooling": pooling, "constants": ranges}
    program = adapter_program(replace(summary(), **facts), ())
    printed, names = run_program(program, base, tmp_path / "adapter")
    with torch.no_grad():
        expected = embedded(model, names["batch"], pooling)
    torch.testing.assert_close(names["vectors"], expected)
    cosine = float(expected[0] @ expected[1])
    assert printed == f"cosine {cosine:.3f}, score {5 * cosine:.2f}\n"
    merged = merged_program("text-embedding", pooling, summary().max_length, (), ranges)
    assert program[program.index("texts =") :] in merged


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """``picture.jpg`` in the folder where the program runs."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)


def test_the_program_for_an_image_classifier(tmp_path, picture):
    base = tiny_vit(tmp_path / "base")
    model = AutoModelForImageClassification.from_pretrained(base, num_labels=len(LABELS))
    model = moved(model, target_modules="all-linear", modules_to_save=["classifier"])
    model.save_pretrained(tmp_path / "adapter")
    about = replace(summary(), task="image-classification", pooling="model")
    printed, names = run_program(adapter_program(about, LABELS), base, tmp_path / "adapter")
    assert any(label in printed for label in LABELS)
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], model(**names["batch"]).logits)


def test_the_program_for_images_with_several_labels(tmp_path, picture):
    base = tiny_vit(tmp_path / "base")
    model = AutoModelForImageClassification.from_pretrained(base, num_labels=len(LABELS))
    model = moved(model, target_modules="all-linear", modules_to_save=["classifier"])
    model.save_pretrained(tmp_path / "adapter")
    low = {"threshold": [1e-9] * len(LABELS)}
    about = {"task": "multi-label-image-classification", "pooling": "model", "constants": low}
    program = adapter_program(replace(summary(), **about), LABELS)
    printed, _ = run_program(program, base, tmp_path / "adapter")
    assert all(label in printed for label in LABELS)


def run_merged(task, folder, parts=()):
    program = merged_program(task, "model", 32, parts)
    assert "silotune" not in program
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.replace("path/to/this/folder", str(folder)), names)
    return printed.getvalue(), names


def test_the_program_for_a_merged_classifier(tmp_path):
    base = tiny_bert(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(
        base, id2label=dict(enumerate(LABELS))
    )
    model.save_pretrained(base)
    printed, names = run_merged("sequence-classification", base)
    assert any(label in printed for label in LABELS)
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], model.eval()(**names["batch"]).logits)


def test_the_program_for_a_merged_language_model(tmp_path):
    base = tiny_gpt2(tmp_path / "base")
    _, names = run_merged("causal-lm", base)
    assert names["tokens"].shape[1] > names["batch"]["input_ids"].shape[1]


@pytest.mark.parametrize("pooling", ["model", "mean"])
def test_a_model_of_pairs_is_asked_with_two_texts(tmp_path, pooling):
    base = tiny_bert(tmp_path / "base")
    about = replace(summary(), pooling=pooling, parts=("text", "text_pair", "label"))
    program = adapter_program(about, LABELS)
    asked = program[program.index("texts =") : program.index("with torch")]
    scope = {"tokenizer": AutoTokenizer.from_pretrained(base)}
    exec(asked, scope)
    alone = scope["tokenizer"](scope["texts"])
    assert scope["batch"]["input_ids"].shape[1] > len(alone["input_ids"][0])
    assert asked in merged_program("sequence-classification", pooling, 64, about.parts)


TURNS = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello"}]
TEMPLATE = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_model_of_chats_is_asked_as_it_was_trained(tmp_path, template):
    """The prompt's tokens are the first of a record that begins so."""
    base = tiny_gpt2(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(base)
    _, names = run_merged("causal-lm", base, ["messages"])
    asked = names["batch"]["input_ids"][0].tolist()
    assert len(names["tokens"][0]) > len(asked)
    if template is None:
        assert asked.pop() == tokenizer.eos_token_id, "this tokenizer puts it after every text"
    table = Dataset.from_dict({"messages": [TURNS]})
    tokenizer.pad_token = tokenizer.eos_token
    trained = text_examples(table, tokenizer, 100, "a table").batch([0])["input_ids"][0]
    assert trained[: len(asked)].tolist() == asked


def test_a_model_of_instructions_is_asked_in_alpacas_words():
    about = replace(summary(), task="causal-lm", pooling="model", parts=("prompt", "input"))
    program = adapter_program(about, ())
    scope = {}
    exec(next(line for line in program.splitlines() if line.startswith("prompt =")), scope)
    assert scope["prompt"] == instruction("Say hello.", None)


def test_the_program_for_a_merged_image_classifier(tmp_path, picture):
    base = tiny_vit(tmp_path / "base")
    options = {"id2label": dict(enumerate(LABELS))}
    model = AutoModelForImageClassification.from_pretrained(base, **options)
    model.save_pretrained(base)
    printed, names = run_merged("image-classification", base)
    assert any(label in printed for label in LABELS)
    with torch.no_grad():
        torch.testing.assert_close(names["logits"], model.eval()(**names["batch"]).logits)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words:UserWarning")
@pytest.mark.parametrize("parts", [("text", "spans"), ("words", "tags")])
def test_the_programs_for_entities_find_them_by_characters(tmp_path, parts):
    base, tags = tiny_bert(tmp_path / "base"), tags_of(("NAME", "DATE"))
    model = AutoModelForTokenClassification.from_pretrained(base, num_labels=len(tags))
    model = moved(
        model, task_type="TOKEN_CLS", target_modules=["query"], modules_to_save=["classifier"]
    )
    model.save_pretrained(tmp_path / "adapter")
    about = replace(summary(), task="token-classification", pooling="model", parts=parts)
    program = adapter_program(about, tags)
    printed, names = run_program(program, base, tmp_path / "adapter")
    found = names["find"]("a text with entities")
    assert found, "a random head finds something"
    assert {one["entity_group"] for one in found} <= {"NAME", "DATE"}
    assert all(f"{one['start']} {one['end']}" in printed for one in found)
    names["model"].save_pretrained(tmp_path / "merged")
    names["tokenizer"].save_pretrained(tmp_path / "merged")
    _, again = run_merged("token-classification", tmp_path / "merged", parts)
    assert again["find"]("a text with entities") == found
