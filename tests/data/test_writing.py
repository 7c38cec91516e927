"""Files that are written: what is read back, what they cannot hold, and what is never replaced."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune.data.files import read_bytes
from silotune.data.formats import FileOptions
from silotune.data.writing import write_table

ROWS = st.lists(
    st.tuples(*[st.text(st.sampled_from('\r\n,\t;"ä a0')) for _ in range(2)]), min_size=1
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@given(rows=ROWS)
def test_cells_come_back_as_they_were(tmp_path_factory, suffix, rows):
    place = tmp_path_factory.mktemp("written") / f"said{suffix}"
    columns = dict(zip(("text", "said"), map(list, zip(*rows, strict=True)), strict=True))
    write_table(pa.table(columns), place)
    read = read_bytes(place.name, place.read_bytes(), FileOptions(as_written=True))
    assert read.to_dict() == columns
