"""Fingerprints of short runs of every example: the same before and after a move.

    python tools/fingerprint.py > before.json        # in one checkout
    python tools/fingerprint.py > after.json         # in another
    diff before.json after.json

Every example is run for two rounds on few records with seeded noise, in the ways that a round can
go (example level, client level, without privacy, other methods), and what it leaves is hashed: the
adapters, and the certificate but for the run's identity and times. Needs the demo's model; examples
whose data are not at hand are left out and named.

Options: a folder that holds the data sets (default ../shared/data), and one of models.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHORT = (
    "train.num_rounds=2",
    "train.local_steps=2",
    "train.batch_size=16",
    "train.per_device_train_batch_size=8",
    "train.threads=1",
    "train.device=cpu",
    "data.limit=120",
    "privacy.insecure_seeded_noise=true",
)
RATE = "train.learning_rate=0.01"
FFA = "method={name: ffa-lora, r: 4, lora_alpha: 6}"
OPEN = ("privacy={unit: none}",)
CLIENT = (
    "privacy={unit: client, noise_multiplier: 3.0, target_delta: 0.1, insecure_seeded_noise: true}",
)
ONE_RANDOM_PLACE = {"run", "time", "started", "finished", "seconds", "created"}


def runs(data: Path, models: Path, stories: Path) -> dict[str, tuple[str, ...]]:
    """Example and overrides, by name."""
    demo = ("data.num_examples=100",)
    methods = {
        f"compare {name}": ("compare.yaml", *demo, *options)
        for name, options in {
            "ffa-lora": (),
            "fedit": ("method={name: fedit, r: 4, lora_alpha: 6}",),
            "fedex-lora, adamw": ("method={name: fedex-lora, r: 4}", "train.optimizer=adamw", RATE),
            "lora-rite": ("method={name: lora-rite, r: 4, lora_alpha: 6}", RATE),
            "flora": ("method={name: flora, r: 4, lora_alpha: 6}",),
            "fedsa-lora": ("method={name: fedsa-lora, r: 4, lora_alpha: 6}",),
            "head-only": ("method={name: head-only}",),
            "public": OPEN,
            "client level": (FFA, "train.weighting=uniform", *CLIENT),
            "fedsvd, discrete": ("method={name: fedsvd, r: 4}", "privacy.noise=discrete"),
            "server adam": (FFA, "train.server_optimizer=adam", *OPEN),
        }.items()
    }
    texts = {
        name: (f"{name}.yaml", f"data.path={data / f'glue_{name}'}", "data.name=null")
        for name in ("sst2", "qnli", "mnli")
    }
    texts["mnli"] += ("data.splits.valid=dev_matched.parquet",)
    told = (
        "stories.yaml",
        f"model.name_or_path={models / 'stories260K' / 'hf'}",
        f"data.path={stories}",
        "data.max_length=32",
    )
    return methods | texts | {"stories": told}


def write_stories(data: Path, path: Path) -> None:
    """Write the sample of TinyStories, if it is at hand, as a table with a column ``text``."""
    sample = data / "tinystories_2mb" / "tinystories_sample.txt.gz"
    if sample.exists():
        texts = gzip.decompress(sample.read_bytes()).decode().split("<|endoftext|>")
        rows = [{"text": text.strip()} for text in texts if text.strip()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 by file, of what a run must leave again."""
    adapters = sorted(folder.rglob("adapter/**/*.safetensors"))
    prints = {str(f.relative_to(folder)): _sha(f.read_bytes()) for f in adapters}
    certificate = json.loads((folder / "privacy.json").read_text())
    return prints | {"privacy.json": _sha(json.dumps(_without(certificate)).encode())}


def _sha(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()[:16]


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in sorted(value.items()) if k not in ONE_RANDOM_PLACE}
    return [_without(v) for v in value] if isinstance(value, list) else value


def main(data: Path, models: Path) -> None:
    """Print all fingerprints as JSON."""
    found: dict[str, object] = {}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        stories = Path(place) / "stories.jsonl"
        write_stories(data, stories)
        for name, (example, *overrides) in runs(data, models, stories).items():
            folder = Path(place) / name.replace(" ", "-")
            command = [sys.executable, "-m", "silotune", "run", str(ROOT / "examples" / example)]
            command += [*SHORT, *overrides, "--output-dir", str(folder)]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            lines = (done.stderr or done.stdout).strip().splitlines()
            found[name] = fingerprint(folder) if done.returncode == 0 else f"left out: {lines[-1:]}"
            print(name, "done" if done.returncode == 0 else lines[-3:], file=sys.stderr)
    print(json.dumps(found, indent=2, sort_keys=True))


if __name__ == "__main__":
    places = [Path(p).resolve() for p in sys.argv[1:]]
    shared = ROOT.parent / "shared"
    main(*(places or [shared / "data", shared / "models"]))
