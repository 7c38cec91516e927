"""The quick starts run as they stand in the docs: only the hub's name is a tiny model's folder."""

import json
import random
import runpy
import warnings
from pathlib import Path

import pytest

from silotune.testing.tiny_models import tiny_bert, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FOLDER = Path(__file__).parents[2] / "docs" / "quick_starts"
BERT, LLAMA = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M"
WORDS = ("pain", "since", "Monday", "please", "call", "renew", "the", "usual", "thanks", "again")


def write_notes(folder: Path) -> None:
    for name, n in {"north": 200, "east": 200, "south": 200, "public": 30}.items():
        draw = random.Random(name)
        lines = []
        for _ in range(n):
            urgent = draw.choice(["no", "yes"])
            note = " ".join(["urgent" if urgent == "yes" else "routine", *draw.choices(WORDS, k=5)])
            lines.append(json.dumps({"note": note, "urgent": urgent}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))


@pytest.fixture
def run_file(tmp_path, monkeypatch, no_network):
    write_notes(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def run(name: str) -> dict:
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        for hub, make in ((BERT, tiny_bert), (LLAMA, tiny_llama)):
            if hub in text:
                text = text.replace(hub, str(make(tmp_path / make.__name__)))
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            return runpy.run_path(str(file), run_name=f"quick_start_{name}")

    return run


@pytest.mark.slow
def test_simulation(run_file, capsys, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    left = run_file("simulation")
    shown = capsys.readouterr().out
    assert "noise multiplier" in shown
    assert "north: ε = " in shown
    assert left["run"].privacy.epsilon.keys() == {"north", "east", "south"}
    assert max(left["run"].privacy.epsilon.values()) <= 6
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tiny_bert")
    PeftModel.from_pretrained(base, tmp_path / "adapter")
    alike = left["st"].load("adapter/").predict(["urgent pain"])
    assert alike == left["loaded"].predict(["urgent pain"])


@pytest.mark.slow
def test_own_loop(run_file, capsys, tmp_path):
    left = run_file("own_loop")
    assert "epsilon" in capsys.readouterr().out
    assert left["private"].spent().epsilon <= 6
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.full
def test_own_rule(run_file, capsys):
    left = run_file("own_rule")
    assert "finished, 10 rounds" in capsys.readouterr().out
    assert "HalfStep" in left["method"].description


@pytest.mark.full
def test_peft_optimizers(run_file, tmp_path):
    run_file("peft_optimizers")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_every_quick_start_is_run():
    run = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {file.stem for file in FOLDER.glob("*.py")} <= run
