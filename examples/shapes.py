"""Made-up pictures with several shapes on each, and a small vision transformer that knows some.

    python examples/shapes.py            # writes shapes/, in minutes

``shapes/base`` is a ViT that is trained here on public pictures, black shapes on white paper.
``shapes/pictures/<school>/<part>.parquet`` has the pictures of three schools, which draw otherwise:
``picture`` (the bytes of a PNG file) and ``shapes`` (a list, which may be empty). They are what
``examples/shapes.yaml`` learns from.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

LABELS = ("circle", "cross", "square", "triangle")

SIDE, CORNERS = 32, ((0, 0), (16, 0), (0, 16), (16, 16))
"""Pixels of a picture, and where a shape may begin: each in a quarter of its own."""

HOW_MANY = (15, 40, 30, 15)
"""Relative frequency of pictures with none, one, two and three shapes."""

PUBLIC, EPOCHS, BATCH = 3000, 25, 50
RECORDS = {"train": 1000, "test": 200}
"""Of each school."""

Colour = tuple[int, int, int]


class Style(NamedTuple):
    """How somebody draws.

    Attributes:
        paper: the colour behind.
        ink: draws a colour.
        filled: whether shapes are, or only their outlines.
        blur: radius, in pixels.
    """

    paper: Colour
    ink: Callable[[Random], Colour]
    filled: bool
    blur: float = 0.0


def _coloured(draw: Random) -> Colour:
    return draw.randrange(200), draw.randrange(200), draw.randrange(200)


PAPER = Style((255, 255, 255), lambda _: (0, 0, 0), filled=True)
SCHOOLS = {
    "board": Style((30, 50, 40), lambda _: (240, 240, 230), filled=False),
    "crayons": Style((250, 240, 210), _coloured, filled=True),
    "windows": Style((90, 110, 140), lambda d: (255, 200 + d.randrange(50), 90), True, blur=1.0),
}


def drawn(draw: Random, style: Style) -> tuple[Image.Image, list[str]]:
    """A picture, and what is on it."""
    picture = Image.new("RGB", (SIDE, SIDE), style.paper)
    pen = ImageDraw.Draw(picture)
    (count,) = draw.choices(range(len(HOW_MANY)), HOW_MANY)
    shapes = draw.sample(LABELS, count)
    for shape, (left, top) in zip(shapes, draw.sample(CORNERS, count), strict=True):
        size = draw.randint(9, 13)
        x, y = left + draw.randint(1, 15 - size), top + draw.randint(1, 15 - size)
        _shape(pen, shape, (x, y, x + size, y + size), style.ink(draw), style.filled)
    return picture.filter(ImageFilter.GaussianBlur(style.blur)), sorted(shapes)


def _shape(
    pen: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], ink: Colour, filled: bool
) -> None:
    x, y, right, bottom = box
    inside = ink if filled else None
    if shape == "circle":
        pen.ellipse(box, fill=inside, outline=ink, width=2)
    elif shape == "square":
        pen.rectangle(box, fill=inside, outline=ink, width=2)
    elif shape == "triangle":
        pen.polygon([((x + right) / 2, y), (x, bottom), (right, bottom)], inside, ink, width=2)
    else:
        pen.line([(x, y), (right, bottom)], fill=ink, width=3)
        pen.line([(x, bottom), (right, y)], fill=ink, width=3)


def records(school: str, part: str) -> list[dict[str, object]]:
    """The same in every run."""
    draw, made = Random(f"{school} {part}"), list[dict[str, object]]()
    for _ in range(RECORDS[part]):
        picture, shapes = drawn(draw, SCHOOLS[school])
        file = io.BytesIO()
        picture.save(file, "PNG")
        made.append({"picture": file.getvalue(), "shapes": shapes})
    return made


def base(processor: ViTImageProcessorPil) -> ViTForImageClassification:
    """A ViT trained on public pictures."""
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            image_size=SIDE,
            patch_size=4,
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=192,
            id2label=dict(enumerate(LABELS)),
            label2id={label: i for i, label in enumerate(LABELS)},
            problem_type="multi_label_classification",
        )
    )
    draw = Random(0)
    pixels, truth = _tensors([drawn(draw, PAPER) for _ in range(PUBLIC)], processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=EPOCHS * (PUBLIC // BATCH)
    )
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(PUBLIC).split(BATCH):
            loss = model(pixels[rows], labels=truth[rows]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {total / PUBLIC:.3f}", flush=True)
    return model.eval()


def _tensors(
    pictures: Sequence[tuple[Image.Image, list[str]]], processor: ViTImageProcessorPil
) -> tuple[Tensor, Tensor]:
    pixels = processor([picture for picture, _ in pictures], return_tensors="pt")["pixel_values"]
    return pixels, torch.tensor([[float(n in shapes) for n in LABELS] for _, shapes in pictures])


def main() -> None:
    root = Path("shapes")
    for school in SCHOOLS:
        for part in RECORDS:
            file = root / "pictures" / school / f"{part}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            Dataset.from_list(records(school, part)).to_parquet(file)
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    base(processor).save_pretrained(root / "base")
    processor.save_pretrained(root / "base")
    print("wrote shapes/base and shapes/pictures")


if __name__ == "__main__":
    main()
