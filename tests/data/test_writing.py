"""Files that are written: what is read back, what they cannot hold, and what is never replaced."""

import os

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune.data.files import read_bytes
from silotune.data.formats import FileOptions
from silotune.data.writing import check_new, write_table

ROWS = st.lists(
    st.tuples(*[st.text(st.sampled_from('\r\n,\t;"ä a0')) for _ in range(2)]), min_size=1
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@given(rows=ROWS)
def test_cells_come_back_as_they_were(tmp_path_factory, suffix, rows):
    place = tmp_path_factory.mktemp("written") / f"said{suffix}"
    columns = dict(zip(("text", "said"), map(list, zip(*rows, strict=True)), strict=True))
    write_table(pa.table(columns), place, overwrite=False)
    read = read_bytes(place.name, place.read_bytes(), FileOptions(as_written=True))
    assert read.to_dict() == columns


ONE = pa.table({"text": ["cat"]})


def test_what_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    place = tmp_path / "said.csv"
    check_new(str(place), overwrite=False)
    place.write_text("another's")
    with pytest.raises(ValueError, match="exists already, and was not replaced"):
        write_table(ONE, place, overwrite=False)
    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(ValueError, match="exists already, and was not replaced"):
        write_table(ONE, place, overwrite=False)
    assert place.read_text() == "another's"
    write_table(ONE, place, overwrite=True)
    assert place.read_text() == "text\ncat\n"
    write_table(ONE, tmp_path / "new.csv", overwrite=False)
    assert (tmp_path / "new.csv").read_text() == "text\ncat\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.csv", "said.csv"]


def refused(*_places):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_is_never_written_over(tmp_path, is_there):
    (tmp_path / "said.csv").symlink_to(tmp_path / "elsewhere.csv")
    if is_there:
        (tmp_path / "elsewhere.csv").write_text("another's")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"output: .*said.csv is a link; name the file"):
            check_new(str(tmp_path / "said.csv"), overwrite=overwrite)
    with pytest.raises(ValueError, match="exists already"):
        write_table(ONE, tmp_path / "said.csv", overwrite=False)
    assert (tmp_path / "said.csv").is_symlink()
