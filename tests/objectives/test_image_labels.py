"""Several labels on an image: the loss of texts with several, on what is read of images."""

import pytest
import torch

from silotune.adapters import LoRA, inject
from silotune.core import Factors
from silotune.engine.batches import taken
from silotune.engine.passes import Passes
from silotune.models.heads import random_head
from silotune.models.load import load_model
from silotune.models.target_modules import find_sites
from silotune.objectives import MultiLabelClassification, MultiLabelImageClassification
from silotune.testing.tiny_models import tiny_vit

NAMES = ("ash", "birch", "cedar")
MARKED = {
    "label": NAMES,
    "class_weights": {"birch": 3.0},
    "label_smoothing": 0.2,
    "threshold": {"ash": 0.3},
}
IMAGES = MultiLabelImageClassification(image="photo", **MARKED)
TEXTS = MultiLabelClassification(text="text", **MARKED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_vit(tmp_path_factory.mktemp("images") / "vit")


@pytest.fixture
def loaded(folder):
    loaded = load_model(str(folder), IMAGES.task, labels=NAMES)
    for key, tensor in random_head(loaded.heads, 0).items():
        loaded.model.get_submodule(key.site).get_parameter(key.name).copy_(tensor)
    loaded.model.double()
    return loaded


def records(loaded, n=5):
    batch = IMAGES.synthetic(loaded.inputs, (1,) * n, 0)
    return {name: t.double() if name == "pixel_values" else t for name, t in batch.items()}


def test_losses_and_scores_are_those_of_texts_with_several_labels(loaded):
    batch = records(loaded)
    assert batch["labels"].dtype == torch.float32
    mine, other = (task.losses(loaded.model, batch) for task in (IMAGES, TEXTS))
    assert torch.equal(mine, other)
    z, y = loaded.model(pixel_values=batch["pixel_values"]).logits[0], batch["labels"][0]
    smooth, weight, p = y * 0.8 + 0.1, torch.tensor([1.0, 3.0, 1.0]), z.sigmoid()
    by_hand = -(weight * smooth * p.log() + (1 - smooth) * (1 - p).log()).mean()
    assert float(mine[0].detach()) == pytest.approx(float(by_hand), rel=1e-6)
    scores = [task.measure(loaded.model, batch).metrics() for task in (IMAGES, TEXTS)]
    assert scores[0] == scores[1]
    assert IMAGES.constants == {"threshold": (0.3, 0.5, 0.5)}


def test_rows_are_the_gradients_of_records_alone(loaded):
    sites = find_sites(loaded.model, None)
    adapted = inject(loaded.model, sites, loaded.heads, LoRA(rank=2, alpha=5.0))
    adapted.model.double()
    g = torch.Generator().manual_seed(0)
    noise = {
        k: torch.randn(t.shape, generator=g, dtype=torch.float64) / 4
        for k, t in adapted.extract().items()
    }
    adapted.load(Factors(noise))
    adapted.train_only({key.role for key in adapted.tensors})
    passes = Passes(adapted, IMAGES, records(loaded))
    together = passes.together(range(5))
    alone = torch.stack([passes.alone(i) for i in range(5)])
    assert together.norm(dim=1).min() > 1e-3
    torch.testing.assert_close(together, alone, rtol=1e-8, atol=1e-10)
    one = taken(passes.records, [3])
    assert one["labels"].shape == (1, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"label": ("ash",), "labels": NAMES},
            "^label: one column of 0 and 1 is one label; use image-class",
        ),
        ({"labels": ("a", "b")}, "^labels: 2 names for 3 columns"),
        ({"threshold": 1.0}, "^threshold: must be between 0 and 1"),
        ({"class_weights": {"oak": 1.0}}, "^class_weights: oak is no label"),
        ({"head_init": "label-prototypes"}, "^head_init: must be one of"),
        ({"head_scale": 0.0}, "^head_scale: must be positive"),
    ],
)
def test_what_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        MultiLabelImageClassification(image="photo", **{"label": NAMES, **change})
