from pathlib import Path

import pytest

from silotune.testing import tiny_models

MAKERS = {
    "bert": tiny_models.tiny_bert,
    "roberta": tiny_models.tiny_roberta,
    "gpt2": tiny_models.tiny_gpt2,
    "llama": tiny_models.tiny_llama,
    "vit": tiny_models.tiny_vit,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {name: make(root / name) for name, make in MAKERS.items()}
