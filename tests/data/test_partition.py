import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune.data import partition

LABELS = st.lists(st.integers(0, 4), min_size=40, max_size=300)
SILOS = st.integers(1, 6)
SEEDS = st.integers(0, 2**32)


def every_index_once(parts, records):
    assert all(part.dtype == np.int64 for part in parts)
    assert all(np.all(np.diff(part) > 0) for part in parts)  # sorted, nothing twice
    assert sorted(np.concatenate(parts).tolist()) == list(range(records))


@given(st.integers(6, 500), SILOS, SEEDS)
def test_iid_uses_every_record_once_in_equal_silos(records, silos, seed):
    parts = partition.iid(records, silos, seed)
    every_index_once(parts, records)
    sizes = [len(part) for part in parts]
    assert len(parts) == silos
    assert max(sizes) - min(sizes) <= 1


@given(LABELS, SILOS, st.floats(0.5, 100), SEEDS)
def test_dirichlet_uses_every_record_once_and_fills_every_silo(labels, silos, alpha, seed):
    parts = partition.dirichlet(labels, silos, alpha, seed)
    every_index_once(parts, len(labels))
    assert len(parts) == silos
    assert all(len(part) for part in parts)


@given(st.integers(40, 500), SILOS, st.floats(0.5, 100), SEEDS)
def test_quantity_uses_every_record_once_and_fills_every_silo(records, silos, alpha, seed):
    parts = partition.quantity(records, silos, alpha, seed)
    every_index_once(parts, records)
    assert all(len(part) for part in parts)


@given(
    st.lists(st.integers(40, 90), min_size=2, max_size=3),
    st.sampled_from(["mild", "severe"]),
    SEEDS,
)
def test_label_skew_has_the_exact_mix_in_equal_silos(counts, level, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = partition.label_skew(labels.tolist(), 3, level, seed)
    used = np.concatenate(parts)
    assert len(set(used.tolist())) == len(used) <= len(labels)
    assert len({len(part) for part in parts}) == 1
    for part, mix in zip(parts, partition.SKEWS[level, len(counts)], strict=True):
        shares = np.bincount(labels[part], minlength=len(counts)) / len(part)
        assert shares.tolist() == [share / 100 for share in mix]


def test_label_skew_is_as_large_as_the_classes_allow():
    parts = partition.label_skew([0] * 3000 + [1] * 3000, 3, "severe", seed=0)
    assert [len(part) for part in parts] == [2000] * 3
    parts = partition.label_skew([0, 1, 2] * 1000, 3, "severe", seed=0)
    assert [len(part) for part in parts] == [1000] * 3


def test_skew_tables_are_distributions():
    assert all(sum(mix) == 100 for mixes in partition.SKEWS.values() for mix in mixes)


def test_dirichlet_shuffles_inside_a_class():
    first, second = partition.dirichlet([0] * 100, 2, 50.0, seed=0)
    assert first.min() < second.max()
    assert second.min() < first.max()


def test_small_alpha_skews_labels_more_than_large():
    labels = [0, 1] * 2000

    def imbalance(alpha):
        parts = partition.dirichlet(labels, 4, alpha, seed=3)
        return np.mean([abs(np.mean(np.take(labels, part)) - 0.5) for part in parts])

    assert imbalance(0.1) > 3 * imbalance(100)


def test_quantity_changes_sizes_and_not_the_mix():
    labels = np.array([0, 1] * 5000)
    parts = partition.quantity(len(labels), 3, 0.5, seed=1)
    sizes = [len(part) for part in parts]
    assert max(sizes) > 2 * min(sizes)
    largest = max(parts, key=len)
    assert abs(labels[largest].mean() - 0.5) < 0.05


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: partition.iid(200, 3, seed),
        lambda seed: partition.quantity(200, 3, 1.0, seed),
        lambda seed: partition.dirichlet([0, 1] * 100, 3, 1.0, seed),
        lambda seed: partition.label_skew([0, 1] * 100, 3, "mild", seed),
    ],
)
def test_the_seed_decides(make):
    def as_lists(seed):
        return [part.tolist() for part in make(seed)]

    assert as_lists(7) == as_lists(7)
    assert as_lists(7) != as_lists(8)


def test_by_column_names_silos_in_order():
    parts = partition.by_column(["west", "east", "west", 3])
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "3": [3],
        "east": [1],
        "west": [0, 2],
    }
    assert list(parts) == ["3", "east", "west"]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", "c:d", "two\nlines"])
def test_by_column_refuses_what_is_no_folder_name(name):
    with pytest.raises(ValueError, match=r"by: the silo of row 1 .* cannot name") as caught:
        partition.by_column(["a", name])
    assert name not in str(caught.value).replace("/ \\ :", "")


@pytest.mark.parametrize(
    "values", [[f"secret {i}" for i in range(40)], ["secret" * 20, *["a"] * 40]]
)
def test_a_column_that_names_no_silos_is_not_quoted(values):
    words = "by: the column does not look like names of silos"
    with pytest.raises(ValueError, match=words) as caught:
        partition.by_column(values)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [None, "", "  "])
def test_by_column_names_the_row_without_a_silo(name):
    with pytest.raises(ValueError, match=r"by: row 1 "):
        partition.by_column(["a", name])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: partition.iid(2, 3, 0), "3 silos, but only 2 records"),
        (lambda: partition.iid(2, 0, 0), "0 silos are too few"),
        (lambda: partition.quantity(9, 3, 0.0, 0), r"alpha: 0.0 must be a positive"),
        (lambda: partition.dirichlet([0] * 9, 3, -1, 0), "must be a positive number"),
        (lambda: partition.dirichlet([0] * 9, 3, float("nan"), 0), "must be a positive number"),
        (lambda: partition.dirichlet([0] * 40, 20, 0.01, 0), "a silo stayed empty in 100 draws"),
        (lambda: partition.label_skew([0, 1] * 90, 4, "mild", 0), "for 4 silos and 2 classes"),
        (lambda: partition.label_skew([0, 1, 2, 3] * 90, 3, "mild", 0), "and 4 classes; use diri"),
        (
            lambda: partition.label_skew([0] * 90 + [1], 3, "severe", 0),
            "the rarest class, 1 in number",
        ),
    ],
)
def test_refusals_name_the_key(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert str(caught.value).partition(":")[0] in ("num", "split", "alpha")
