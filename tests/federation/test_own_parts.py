"""What is left of a silo's own valid and test part is said to whoever may see it; it decides
nothing."""

from pathlib import Path

import pytest

from by_config import opened
from federation.small import NO_WORKER, notes, small, write_csv
from silotune.config import build
from silotune.core.files import read_json
from silotune.federation.data_summary import divide

OF_VALID = "splits.valid: no record can be used at east (1 left out): not scored there, and nothing"
OF_TEST = "splits.test: all records at east are of special tokens only: not scored there"


@pytest.fixture
def silos(place) -> str:
    """Two folders: one whose parts are of no use, and one whose parts are."""
    folder = place.parent / "silos"
    records = {name: [r for r in notes() if r["silo"] == name] for name in ("east", "west")}
    parts = {
        "east": {
            "valid": [{"text": " ", "label": "cat"}],
            "test": [{"text": "<pad><pad>", "label": "cat"}],
        },
        "west": {"valid": records["west"][:3], "test": records["west"][:2]},
    }
    for name, own in parts.items():
        (folder / name).mkdir(parents=True)
        for part, rows in {"train": records[name], **own}.items():
            write_csv(folder / name / f"{part}.csv", rows)
    return f"data.path={folder}"


@pytest.mark.parametrize("evaluation", ["site", "simulation"])
def test_who_is_told(place, silos, evaluation):
    config = small(
        place, silos, "data.silos.by=null", "data.max_length=64", f"evaluation={evaluation}"
    )
    with opened(config, ["silotune"], NO_WORKER, resume=False) as job:
        said = " ".join(job.built.notices)
        assert [len(silo.train.lengths) for silo in job.built.data.silos.values()] == [24, 24]
    sites = Path(config.output_dir) / "sites"
    east, west = (read_json(sites / name / "records.json")["notices"] for name in ("east", "west"))
    assert [any(text.startswith(told) for text in east) for told in (OF_VALID, OF_TEST)] == [
        True
    ] * 2
    assert west == []
    assert [told in said for told in (OF_VALID, OF_TEST)] == [evaluation == "simulation"] * 2


def test_whoever_counts_records_sees_it(place, silos):
    data = divide(build(small(place, silos, "data.silos.by=null", "evaluation=site")))
    assert (data.held_out, data.own_test) == ({"west": 3}, {"west": 2})
    assert any(text.startswith(OF_VALID) for text in data.notices)
