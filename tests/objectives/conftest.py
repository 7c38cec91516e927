from pathlib import Path

import pytest

from silotune.testing import tiny_models


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    makers = {
        "bert": tiny_models.tiny_bert,
        "gpt2": tiny_models.tiny_gpt2,
        "llama": tiny_models.tiny_llama,
    }
    makers["vit"] = tiny_models.tiny_vit
    return {name: make(root / name) for name, make in makers.items()}
