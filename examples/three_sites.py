"""Made-up notes of three clinics, and what is trained on them: over three sites, and here.

``python examples/three_sites.py`` writes ``notes/<clinic>.jsonl``, ``run.yaml`` (over sites) and
``simulation.yaml`` (the same on one machine). No real person is behind any of the notes.
"""

from __future__ import annotations

import json
from pathlib import Path

from silotune.data.demo import CLINICS, TRIAGE_LABELS, triage

RECORDS, DECLARED = 300, 250

COMMON = f"""\
model:
  name_or_path: sentence-transformers/all-MiniLM-L6-v2
  task: sequence-classification
  pooling: mean
method: {{name: ffa-lora, r: 8, layers_to_transform: [4, 5]}}
privacy: {{unit: none}}  # of made-up notes; noise would be another one in every run
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
    Path("notes").mkdir()
    notes = [row for row in triage() if row["split"] == "train"]
    for clinic in CLINICS:
        own = [row for row in notes if row["clinic"] == clinic][:RECORDS]
        lines = [json.dumps({name: row[name] for name in ("note", "department")}) for row in own]
        Path("notes", f"{clinic}.jsonl").write_text("\n".join(lines) + "\n")
    Path("run.yaml").write_text(COMMON + OVER_SITES)
    Path("simulation.yaml").write_text(COMMON + HERE)


if __name__ == "__main__":
    main()
