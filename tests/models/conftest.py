from pathlib import Path

import pytest

NAMES = ("bert", "roberta", "gpt2", "llama", "vit")


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    from silotune.testing import tiny_models  # pytest reads this file before it collects anything

    root = tmp_path_factory.mktemp("tiny")
    return {name: getattr(tiny_models, f"tiny_{name}")(root / name) for name in NAMES}
