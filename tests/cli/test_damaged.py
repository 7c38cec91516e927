"""Whatever becomes of a file of a run: a verb gives what it gave, or names file and cure."""

import shutil
from pathlib import Path

import pytest

import silotune as st
from federation.damage import missing, of_other_types
from federation.small import small, train, write_small

FILES = (
    "run.json",
    "config.yaml",
    "federation.json",
    "metrics.jsonl",
    "privacy.json",
    "ledger.jsonl",
    "report.html",
    "checkpoint/state.bin",
    "checkpoint/metrics.jsonl",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "adapter/silotune.json",
)
CURES = ("--resume", "copy", "run.merged_model")
DAMAGES = (missing, of_other_types)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, bert) -> Path:
    config = small(write_small(tmp_path_factory.mktemp("finished"), bert))
    train(config)
    return Path(config.output_dir)


def evaluated(silotune) -> str:
    result = silotune("evaluate", "run")
    return result.stdout if result.exit_code == 0 else result.stderr


def exported(silotune, kind: str) -> str:
    shutil.rmtree("out", ignore_errors=True)
    result = silotune("export", "run", "--format", kind, "--output", "out")
    return result.stdout if result.exit_code == 0 else result.stderr


def loaded(_) -> str:
    try:
        return str(st.load("run").predict(["the cat ran"]))
    except ValueError as error:
        return f"error: {error}"


def begun(silotune) -> str:
    return silotune("run", "run").stderr


READERS = {
    "evaluate": evaluated,
    "export": lambda silotune: exported(silotune, "peft"),
    "export merged": lambda silotune: exported(silotune, "merged"),
    "load": loaded,
    "run": begun,
}


def wrongs(silotune, finished, verbs) -> list[tuple[str, str, str, str]]:
    def fresh() -> None:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(finished, "run")

    fresh()
    right = {name: verb(silotune) for name, verb in verbs.items()}
    wrong = []
    for file in FILES:
        for damage in DAMAGES:
            for name, verb in verbs.items():
                fresh()
                damage(Path("run") / file)
                there = {path for path in Path("run").rglob("*") if path.is_file()}
                said = verb(silotune)
                named = said.startswith("error: ") and Path(file).name in said
                if said != right[name] and not (named and any(cure in said for cure in CURES)):
                    wrong.append((file, damage.__name__, name, said))
                if gone := [path for path in there if not path.exists()]:
                    wrong.append((file, damage.__name__, name, f"deleted {gone}"))
    return wrong


def test_readers_give_what_they_gave_or_name_the_file(silotune, place, finished):
    wrong = wrongs(silotune, finished, READERS)
    assert not wrong, "\n".join(map(str, wrong))
