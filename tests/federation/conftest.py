from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from federation.small import write_small
from silotune.testing.tiny_models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def place(tmp_path, bert) -> Path:
    """A file with a small configuration; everything else is beside it."""
    return write_small(tmp_path, bert)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of 40 images of noise, half of them called cat."""
    numbers = np.random.default_rng(0)
    for label in ("cat", "dog"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for i in range(20):
            pixels = numbers.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "pictures"
