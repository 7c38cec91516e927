import builtins
from io import BytesIO

import pytest
import torch
from datasets import Dataset
from PIL import Image

from silotune.core.dataset import ClientDataset
from silotune.data import image_examples


def processor(*, images, return_tensors):
    """The first pixel of each image, as (n, 3, 1, 1)."""
    assert return_tensors == "pt"
    pixels = torch.tensor([image.getpixel((0, 0)) for image in images])
    return {"pixel_values": pixels[:, :, None, None]}


def picture(colour, mode="RGB"):
    return Image.new("RGB", (2, 3), colour).convert(mode)


def encoded(image, kind="PNG"):
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


RED, BLUE = picture("red"), picture("blue")


@pytest.fixture
def files(tmp_path):
    for name, image in [("red.png", RED), ("blue.png", BLUE)]:
        image.save(tmp_path / name)
    return tmp_path


def colours(cells):
    table = Dataset.from_dict({"image": cells, "label": list(range(len(cells)))})
    examples: ClientDataset = image_examples(table, processor, "silo x, train")
    assert list(examples.lengths) == [1] * len(cells)
    batch = examples.batch([1, 0])
    assert batch["labels"].tolist() == [1, 0]
    return batch["pixel_values"].flatten(1).tolist()


def test_bytes():
    assert colours([encoded(RED), encoded(BLUE)]) == [[0, 0, 255], [255, 0, 0]]


def test_paths(files):
    paths = [str(files / "red.png"), str(files / "blue.png")]
    assert colours(paths) == [[0, 0, 255], [255, 0, 0]]


def test_bytes_or_path(files):
    cells = [
        {"bytes": encoded(RED), "path": "gone.png"},
        {"bytes": None, "path": str(files / "blue.png")},
    ]
    assert colours(cells) == [[0, 0, 255], [255, 0, 0]]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_every_mode_is_read_as_rgb(mode):
    assert colours([encoded(picture("white", mode))] * 2) == [[255, 255, 255]] * 2


def test_a_file_that_is_gone_by_its_batch_is_named(files):
    paths = [str(files / "red.png"), str(files / "blue.png")]
    table = Dataset.from_dict({"image": paths, "label": [0, 1]})
    examples = image_examples(table, processor, "silo x, train")
    (files / "blue.png").unlink()
    assert examples.batch([0])["labels"].tolist() == [0]
    with pytest.raises(ValueError, match=r"image: row 1 .* is no readable image"):
        examples.batch([1])


NOISE = Image.effect_noise((64, 64), 90).convert("RGB")


@pytest.mark.parametrize(
    "cell",
    [
        b"no image",
        b"\x89PNG\r\n\x1a\n",
        *(encoded(NOISE, kind)[:-500] for kind in ("BMP", "JPEG", "PNG", "TIFF", "WEBP")),
    ],
)
def test_what_is_no_image_is_named_before_training(cell):
    table = Dataset.from_dict({"image": [encoded(RED), cell], "label": [0, 1]})
    with pytest.raises(
        ValueError, match=r"row 1 \(the first is 0\) of silo x, train is no readable"
    ):
        image_examples(table, processor, "silo x, train")


def test_a_missing_file_is_named_by_its_row(tmp_path):
    table = Dataset.from_dict({"image": [str(tmp_path / "gone.png")], "label": [0]})
    with pytest.raises(ValueError, match=r"row 0 .* is no readable image$"):
        image_examples(table, processor, "silo x, train")


def test_without_pillow_the_extra_is_named(monkeypatch):
    original = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    table = Dataset.from_dict({"image": [encoded(RED)], "label": [0]})
    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(ValueError, match=r"images need Pillow: pip install 'silotune\[images\]'"):
        image_examples(table, processor, "silo x, train")
