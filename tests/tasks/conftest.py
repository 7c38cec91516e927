from pathlib import Path

import pytest

from silotune.models import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    makers = {"bert": tiny.tiny_bert, "gpt2": tiny.tiny_gpt2, "llama": tiny.tiny_llama}
    makers["vit"] = tiny.tiny_vit
    return {name: make(root / name) for name, make in makers.items()}
