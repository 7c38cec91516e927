"""Pretrain a small vision transformer on the public domain of PACS, for examples/pacs.yaml.

    python examples/pretrain_vit.py ../pacs_64/images.parquet runs/vit

The photographs play the public data: the model is trained on them alone. Art, cartoons and
sketches, which it never sees, are written to ``OUTPUT/silos.parquet`` for three private silos.
"""

import argparse
import io
import time
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from PIL import Image
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

PUBLIC = "photo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="parquet with columns domain, class, jpeg, split")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    disable_progress_bars()

    table = Dataset.from_parquet(str(options.data), keep_in_memory=True)
    photos = table.filter(lambda row: row["domain"] == PUBLIC)
    labels = sorted(set(photos["class"]))
    train, held_out = (
        photos.filter(lambda row, part=part: (row["split"] == "train") is part)
        for part in (True, False)
    )
    processor = ViTImageProcessorPil(size={"height": 64, "width": 64})
    model = ViTForImageClassification(
        ViTConfig(
            image_size=64,
            patch_size=8,
            hidden_size=128,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=384,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    )
    fit(model, *tensors(train, labels, processor), epochs=options.epochs)
    pixels, truth = tensors(held_out, labels, processor)
    model.eval()
    with torch.no_grad():
        right = (model(pixels).logits.argmax(-1) == truth).float().mean().item()
    print(f"held-out photographs: {right:.1%} of {len(truth)} right")

    options.output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.output)
    processor.save_pretrained(options.output)
    private = table.filter(lambda row: row["domain"] != PUBLIC)
    private.to_parquet(str(options.output / "silos.parquet"))
    print(f"{options.output}: the model; silos.parquet with {len(private)} private images")


def tensors(
    table: Dataset, labels: list[str], processor: ViTImageProcessorPil
) -> tuple[Tensor, Tensor]:
    images = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in table["jpeg"]]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    return pixels, torch.tensor([labels.index(name) for name in table["class"]])


def fit(model: ViTForImageClassification, pixels: Tensor, truth: Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    start = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(truth)).split(32):
            x = pixels[batch]
            if torch.rand(()) < 0.5:
                x = x.flip(-1)
            loss = model(augmented(x), labels=truth[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        if epoch % 10 == 9:
            seconds = time.monotonic() - start
            print(f"epoch {epoch + 1}: loss {total / len(truth):.3f}, {seconds:.0f} s", flush=True)


def augmented(x: Tensor) -> Tensor:
    """A random crop of the padded images, and random contrast."""
    padded = torch.nn.functional.pad(x, (6, 6, 6, 6), mode="reflect")
    top, left = torch.randint(0, 13, (2,)).tolist()
    return padded[..., top : top + 64, left : left + 64] * (0.8 + 0.4 * torch.rand(()))


if __name__ == "__main__":
    main()
