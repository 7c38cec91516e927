"""Whatever becomes of a file of a run: a verb gives what it gave, or names file and cure."""

import shutil
from itertools import product
from pathlib import Path

import pytest

import silotune as st
from federation.damage import DAMAGES, ENDS, missing
from federation.small import PRIVATE, small, train, write_small
from silotune.cli.config_source import of_run
from silotune.federation.run_result import Run
from silotune.runs.folder import RunFolder

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
    "sites/east/ledger.jsonl",
    "sites/east/records.json",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "adapter/silotune.json",
)
CURES = ("--resume", "copy", "run.merged_model", "does not add up")
WAYS = (*DAMAGES, *ENDS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, bert) -> Path:
    config = small(
        write_small(tmp_path_factory.mktemp("finished"), bert),
        *PRIVATE,
        "privacy.lifetime=off",
        "train.num_rounds=2",
    )
    train(config)
    return Path(config.output_dir)


def told(silotune, *words: str) -> str:
    result = silotune(*words)
    return result.stdout if result.exit_code == 0 else result.stderr or result.stdout


def exported(silotune, kind: str) -> str:
    shutil.rmtree("out", ignore_errors=True)
    return told(silotune, "export", "run", "--format", kind, "--output", "out")


def loaded(_) -> str:
    try:
        return str(st.load("run").predict(["the cat ran"]))
    except ValueError as error:
        return f"error: {error}"


def looked_at(_) -> str:
    try:
        run = Run(of_run(RunFolder(Path("run"))), RunFolder(Path("run")))
        return f"{run!r} {run.metrics!r} {run.privacy!r}"
    except ValueError as error:
        return f"error: {error}"


QUICK = {
    "run": lambda silotune: told(silotune, "run", "run"),
    "export": lambda silotune: exported(silotune, "peft"),
    "verify": lambda silotune: told(silotune, "privacy", "verify", "run"),
    "python": looked_at,
}
DEAR = {
    "evaluate": lambda silotune: told(silotune, "evaluate", "run"),
    "resume": lambda silotune: told(silotune, "run", "run", "--resume"),
    "load": loaded,
    "export merged": lambda silotune: exported(silotune, "merged"),
}
VERBS = {**QUICK, **DEAR}


def in_turn():
    """Every file by every quick verb and one dear one, damaged in one way each, in turn."""
    for i, file in enumerate(FILES):
        for j, verb in enumerate((*QUICK, list(DEAR)[i % len(DEAR)])):
            yield file, WAYS[(i + j) % len(WAYS)], verb


@pytest.mark.full
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(list(in_turn()), id="in turn"),
        pytest.param(list(product(FILES, [missing], VERBS)), id="missing", marks=pytest.mark.full),
        pytest.param(list(product(FILES, WAYS, VERBS)), id="all", marks=pytest.mark.slow),
    ],
)
def test_a_verb_gives_what_it_gave_or_names_the_file(silotune, place, finished, cases):
    def fresh() -> None:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(finished, "run")

    def is_right(file: str, verb: str, said: str) -> bool:
        if verb == "resume" and not said.startswith("error: "):  # what was lost is there again
            return looked_at(None) == right["python"]
        if (file, verb) == ("config.yaml", "verify") and not (Path("run") / file).exists():
            return said == right[verb].replace("config.yaml, ", "")  # federation.json says it all
        named = Path(file).name in said
        cured = any(cure in said for cure in CURES)
        return said == right[verb] or (named and (cured or right[verb] in said))

    fresh()
    right = {name: verb(silotune) for name, verb in VERBS.items()}
    wrong = []
    for file, damage, verb in cases:
        fresh()
        damage(Path("run") / file)
        there = {path for path in Path("run").rglob("*") if path.is_file()}
        said = VERBS[verb](silotune)
        if not is_right(file, verb, said):
            wrong.append((file, damage.__name__, verb, said))
        if gone := [path for path in there if not path.exists()]:
            wrong.append((file, damage.__name__, verb, f"deleted {gone}"))
    assert not wrong, "\n".join(map(str, wrong))
