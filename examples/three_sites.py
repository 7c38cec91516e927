"""Made-up notes of three clinics, and what is trained on them: over three sites, and here.

``python examples/three_sites.py`` writes ``notes/<clinic>.jsonl``, ``run.yaml`` (over sites, every
note hidden) and ``simulation.yaml`` (the same on one machine). With ``--unit none`` nothing is
hidden, and both end in the same bytes; noise is another one in every run. No real person is behind
any of the notes. Without the language model of `make demo` a tiny made-up one stands in for it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from silotune.data.demo import CLINICS, TRIAGE_LABELS, triage
from silotune.models.hub import MINILM
from silotune.testing.stand_in import base_for

RECORDS, DECLARED = 300, 250
PRIVACY = {
    "example": "{unit: example, target_epsilon: 6, target_delta: 1e-5}",
    "none": "{unit: none}",
}

COMMON = f"""\
method: {{name: ffa-lora, r: 8, layers_to_transform: [4, 5]}}
train: {{num_rounds: 3, local_steps: 5, batch_size: 32, optimizer: sgd, learning_rate: 1}}
evaluation: site
data:
  columns: {{text: note, label: department}}
  labels: [{", ".join(TRIAGE_LABELS)}]
  max_length: 64
"""
OVER_SITES = f"""\
federation: {{sites: [{", ".join(CLINICS)}], kit: north}}
runtime: nvflare
output_dir: runs/north
"""
HERE = f"""\
  path: notes
  num_examples: {DECLARED}
output_dir: runs/simulation
"""


def main() -> None:
    words = argparse.ArgumentParser(description="Notes and configurations for three sites.")
    words.add_argument("--unit", choices=PRIVACY, default="example", help="what noise hides")
    common = f"privacy: {PRIVACY[words.parse_args().unit]}\n{COMMON}"
    Path("notes").mkdir()
    base = base_for(MINILM, Path("base").resolve())
    if base.said:
        print(base.said)
    name = json.dumps(base.name)
    model = f"{{name_or_path: {name}, task: sequence-classification, pooling: mean}}"
    common = f"model: {model}\n{common}"
    notes = [row for row in triage() if row["split"] == "train"]
    for clinic in CLINICS:
        own = [row for row in notes if row["clinic"] == clinic][:RECORDS]
        lines = [json.dumps({name: row[name] for name in ("note", "department")}) for row in own]
        Path("notes", f"{clinic}.jsonl").write_text("\n".join(lines) + "\n")
    Path("run.yaml").write_text(common + OVER_SITES)
    Path("simulation.yaml").write_text(common + HERE)


if __name__ == "__main__":
    main()
