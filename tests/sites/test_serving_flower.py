"""Sites that serve a SuperNode of Flower, and a configured run over it, by the commands of each."""

import json
import os
import shutil
import subprocess

import pytest

from federation.objects import SEEDED
from silotune.federation.workers import SILOTUNE
from sites.daemons import ENVIRONMENT, admitted, places, until
from sites.test_daemons import SAME, charged
from sites.wire import simulation, weights

pytest.importorskip("flwr", reason="Flower is not installed: silotune[flower]")

from silotune.runtimes.flower_loopback import FlowerLoopback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("flower"),
    pytest.mark.filterwarnings("default"),  # of Flower's own
]

RUN = """\
model: {{name_or_path: {model}, task: sequence-classification}}
data: {{columns: {{text: text, label: label}}, labels: [cat, dog], max_length: 32}}
federation:
  sites: [east, west]
  kit: {kit}
  offer_deadline: 300
method: {{name: ffa-lora, r: 2}}
privacy: {{unit: example, noise_multiplier: 2, target_delta: 1e-3, insecure_seeded_noise: true}}
train:
  num_rounds: 3
  local_steps: 2
  batch_size: 8
  optimizer: sgd
  learning_rate: 0.5
  threads: 1
  round_deadline: 300
evaluation: site
runtime: flower
output_dir: {output}
"""


def test_a_configured_run_over_flower_ends_in_the_bits_of_the_simulation(tmp_path, bert):
    simulation(tmp_path, bert, privacy=SEEDED, **SAME).fit(tmp_path / "here", progress=False)
    with places(bert) as sites:
        near = next(iter(sites.values())).home.parent
        members = admitted(near / "north", sites)
        doors = {name: near / f"{name}.door" for name in sites}
        for name, site in sites.items():
            site.serve("--flower", str(doors[name]))
        until(lambda: all(door.is_socket() for door in doors.values()))
        with FlowerLoopback(near / "flower", doors) as flower:
            shutil.copytree(flower.home, members.folder / "flower")
            config, there = tmp_path / "run.yaml", tmp_path / "there"
            given = {"model": bert, "kit": members.folder, "output": there}
            config.write_text(RUN.format(**{k: json.dumps(str(v)) for k, v in given.items()}))
            done = subprocess.run(
                [*SILOTUNE, "run", str(config)],
                env=os.environ | ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=800,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        for site in sites.values():
            assert len(charged(site, there)) == 3
    assert weights(there) == weights(tmp_path / "here")
    told = json.loads((there / "privacy.json").read_text())
    assert "Flower" in json.dumps(told)
