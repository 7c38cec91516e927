from pathlib import Path

import pytest

from silotune.models import tiny

MAKERS = {
    "bert": tiny.tiny_bert,
    "roberta": tiny.tiny_roberta,
    "gpt2": tiny.tiny_gpt2,
    "llama": tiny.tiny_llama,
    "vit": tiny.tiny_vit,
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {name: make(root / name) for name, make in MAKERS.items()}
