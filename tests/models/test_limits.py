"""What a model cannot read is refused, with the largest length that it can."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from silotune.models.limits import check_limits
from silotune.models.load import load_model

POSITIONS = 24
TEXT = "sequence-classification"
SIZES = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "num_hidden_layers": 1,
    "num_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "embedding_size": 16,
    "word_embed_proj_dim": 32,
    "attention_types": [[["global"], 1]],
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
}
LOST = {"roberta": 1, "xlm-roberta": 1, "mpnet": 2}  # positions count from the padding id


def unlimited(folder, task=TEXT):
    """A model whose tokenizer sets no limit."""
    loaded = load_model(str(folder), task, labels=("a", "b") if task == TEXT else ())
    loaded.tokenizer.model_max_length = 10**30
    return loaded


@pytest.mark.parametrize(
    ("name", "task", "largest"),
    [("bert", TEXT, 128), ("roberta", TEXT, 130 - 1), ("gpt2", "causal-lm", 128)],
)
def test_a_length_beyond_the_positions_is_refused_with_the_largest(folders, name, task, largest):
    loaded = unlimited(folders[name], task)
    check_limits(loaded, largest, pairs=False)
    with pytest.raises(ValueError, match=rf"^max_length: 200 .* the {largest} tokens .* or less"):
        check_limits(loaded, 200, pairs=False)


def test_positions_that_are_rotations_have_no_end(folders):
    check_limits(unlimited(folders["llama"], "causal-lm"), 1000, pairs=False)


def test_what_a_tokenizer_cuts_is_a_limit_too(folders):
    loaded = unlimited(folders["llama"], "causal-lm")
    loaded.tokenizer.model_max_length = 64
    check_limits(loaded, 64, pairs=False)
    with pytest.raises(ValueError, match=r"^max_length: 65 is more than the 64 tokens"):
        check_limits(loaded, 65, pairs=False)


TEXT_KINDS = (
    *("albert", "bert", "bloom", "deberta", "deberta-v2", "distilbert", "electra", "falcon"),
    *("gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "mistral"),
    *("modernbert", "mpnet", "opt", "phi", "phi3", "qwen2", "qwen3", "roberta", "stablelm"),
    "xlm-roberta",
)
"""Made small by the same names of sizes; all others are tried in benchmarks/architectures.py."""


@pytest.mark.full
@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_the_largest_length_of_usual_text_architectures_is_what_its_model_reads(folders, kind):
    known = AutoConfig.for_model(kind)
    fixed = {"head_dim", "num_key_value_heads"} if kind == "falcon" else set()
    sizes = {k: v for k, v in SIZES.items() if hasattr(known, k) and k not in fixed}
    config = AutoConfig.for_model(kind, **sizes)
    auto = AutoModelForSequenceClassification
    if type(config) not in auto._model_mapping:
        auto = AutoModelForCausalLM
    model = auto.from_config(config).eval()
    loaded = replace(unlimited(folders["bert"]), model=model)

    def reads(length):
        ids = torch.full((1, length), 70)
        try:
            model(input_ids=ids, attention_mask=ids.new_ones(ids.shape))
        except (IndexError, RuntimeError):
            return False
        return True

    if reads(4 * POSITIONS):
        check_limits(loaded, 4 * POSITIONS, pairs=False)
        return
    largest = max(n for n in range(POSITIONS - 4, POSITIONS + 4) if reads(n))
    assert largest == POSITIONS - LOST.get(kind, 0)
    check_limits(loaded, largest, pairs=False)
    with pytest.raises(ValueError, match=rf"is more than the {largest} tokens"):
        check_limits(loaded, largest + 1, pairs=False)


def test_tokens_that_were_added_without_rows_for_them_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<q>", "<a>"]})
    tokenizer.save_pretrained(folder)
    message = r"2 tokens that were added \(<a>, <q>\) beyond the model's 260 .*embeddings\(262\)"
    with pytest.raises(ValueError, match=rf"^model: .*{message}"):
        unlimited(folder)


def test_ids_with_a_gap_may_lie_beyond_the_embedding(folders, tmp_path):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "m")
    file = folder / "tokenizer.json"
    made = json.loads(file.read_text())
    made["model"]["vocab"]["z"] = 300
    file.write_text(json.dumps(made))
    with pytest.raises(ValueError, match=r"has 1 tokens \(z\) .* \(ids up to 300\)"):
        unlimited(folder, "causal-lm")


def test_kinds_of_tokens_beyond_the_models_are_refused_where_pairs_are_read(folders, tmp_path):
    made = json.loads((folders["roberta"] / "tokenizer.json").read_text())
    for piece in made["post_processor"]["pair"][3:]:
        next(iter(piece.values()))["type_id"] = 1
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(made))
    columns = ["input_ids", "token_type_ids", "attention_mask"]
    other = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(file), pad_token="<pad>", model_input_names=columns
    )
    loaded = replace(unlimited(folders["roberta"]), tokenizer=other)
    check_limits(loaded, 32, pairs=False)
    with pytest.raises(ValueError, match=r"^model: it cannot read .* pairs of texts \(index out"):
        check_limits(loaded, 32, pairs=True)


def test_images_that_come_out_unlike_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["vit"], tmp_path / "m")
    file = folder / "preprocessor_config.json"
    made = json.loads(file.read_text()) | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
    }
    file.write_text(json.dumps(made | {"do_center_crop": False}))
    with pytest.raises(ValueError, match=r"^model: .* 3 x 16 x 24 or 3 x 24 x 16 .*do_center"):
        load_model(str(folder), "image-classification", labels=("a", "b"))
    crop = {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}}
    file.write_text(json.dumps(made | crop))
    loaded = load_model(str(folder), "image-classification", labels=("a", "b"))
    assert loaded.inputs.shape == (3, 16, 16)
    check_limits(loaded, 128, pairs=False)


def test_images_of_another_size_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["vit"], tmp_path / "m")
    file = folder / "preprocessor_config.json"
    made = json.loads(file.read_text())
    loaded = load_model(str(folder), "image-classification", labels=("a", "b"))
    check_limits(loaded, 128, pairs=False)
    file.write_text(json.dumps(made | {"size": {"height": 24, "width": 24}}))
    loaded = load_model(str(folder), "image-classification", labels=("a", "b"))
    message = r"^model: its image processor makes images of 3 x 24 x 24"
    with pytest.raises(ValueError, match=message):
        check_limits(loaded, 128, pairs=False)
