import pytest
import torch

from models.conftest import NAMES
from silotune.models.load import load_model
from silotune.testing import tiny_models

MAKERS = {name: getattr(tiny_models, f"tiny_{name}") for name in NAMES}


@pytest.mark.parametrize("name", MAKERS)
def test_same_seed_same_folder(folders, tmp_path, name):
    torch.manual_seed(3)
    again = MAKERS[name](tmp_path / "again")
    other = MAKERS[name](tmp_path / "other", seed=1)
    weights = [f / "model.safetensors" for f in (folders[name], again, other)]
    first, second, third = (path.read_bytes() for path in weights)
    assert first == second != third
    assert len(first) < 200_000


def test_any_text_comes_back(folders):
    tokenizer = load_model(str(folders["llama"]), "causal-lm").tokenizer
    text = "Naïve  touché, 100 % \n ok 🙂"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 1
    assert ids[-1] == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_sizes_differ(folders):
    config = load_model(str(folders["gpt2"]), "causal-lm").model.config
    assert config.n_embd != config.n_inner
