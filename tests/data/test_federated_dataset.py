import pytest
from datasets import ClassLabel, Dataset, Features, Value

from silotune.data import Columns, Partition, Source, Tables, prepare_silos
from silotune.data.client_tables import left_out_notices

COLUMNS = Columns(text="note", label="kind")


def table(records, start=0, **more):
    """Records with different notes and kinds in turn."""
    numbers = range(start, start + records)
    columns = {"note": [f"note {i}" for i in numbers], "kind": [i % 2 for i in numbers]}
    return Dataset.from_dict(columns | more)


def prepare(source, silos=None, **more):
    settings = {
        "columns": COLUMNS,
        "silos": silos or Partition(num=3),
        "labels": ("bad", "good"),
        "evaluation": "simulation",
        "valid_fraction": 0.2,
        "limit": None,
        "seed": 0,
    }
    return prepare_silos(source, **(settings | more))


SMALL = {"valid_fraction": 0.5, "seed": 2}
"""Something of a few records is held out, and not all."""


def notes(silo):
    return set(silo.train["text"][:]) | set(silo.valid["text"][:] if silo.valid else [])


def refused(words, source, silos=None, **more):
    with pytest.raises(ValueError, match=words) as caught:
        prepare(source, silos, **more)
    assert "\n" not in str(caught.value)


def test_a_pool_becomes_silos_with_held_out_records():
    prepared = prepare(Source(train=table(300)))
    assert list(prepared.silos) == ["silo-0", "silo-1", "silo-2"]
    for silo in prepared.silos.values():
        assert len(silo.valid) == pytest.approx(20, abs=5 * 16**0.5)
        assert (len(silo.train) + len(silo.valid), silo.test, silo.left_out) == (100, None, {})
        assert silo.train.column_names == ["text", "label"]
    together = [notes(silo) for silo in prepared.silos.values()]
    assert set().union(*together) == set(table(300)["note"])
    assert sum(map(len, together)) == 300
    assert prepared.labels == ("bad", "good")
    assert prepared.notices == ()


def test_many_silos_sort_by_number():
    prepared = prepare(Source(train=table(60)), Partition(num=12))
    assert list(prepared.silos) == sorted(prepared.silos)
    assert list(prepared.silos)[:2] == ["silo-00", "silo-01"]


def test_silos_by_column():
    pool = table(12, clinic=["west", "east", "east"] * 4)
    prepared = prepare(Source(train=pool), Partition(by="clinic"), valid_fraction=0.25)
    assert {name: len(notes(silo)) for name, silo in prepared.silos.items()} == {
        "east": 8,
        "west": 4,
    }
    assert notes(prepared.silos["west"]) == {f"note {i}" for i in range(0, 12, 3)}


def test_silos_by_the_label_and_by_class_labels():
    prepared = prepare(Source(train=table(12)), Partition(by="kind"))
    assert set(prepared.silos["1"].train["label"][:]) == {1}
    features = Features(
        {"note": Value("string"), "kind": Value("int64"), "site": ClassLabel(names=["x", "y"])}
    )
    named = Dataset.from_dict(
        {"note": list("abcd"), "kind": [0, 1, 0, 1], "site": [0, 1, 1, 0]}, features=features
    )
    assert list(prepare(Source(train=named), Partition(by="site")).silos) == ["x", "y"]


def test_silos_as_folders():
    source = Source(
        silos={
            "east": Tables(train=table(10), valid=table(3, 100), test=table(2, 200)),
            "west": Tables(train=table(5, 10)),
        },
        test=table(7, 300),
    )
    prepared = prepare(source, Partition(), valid_fraction=0.5, seed=1)
    east, west = prepared.silos["east"], prepared.silos["west"]
    assert (len(east.train), len(east.valid), len(east.test)) == (10, 3, 2)
    assert (len(west.train) + len(west.valid), west.test) == (5, None)
    assert (prepared.valid, len(prepared.test)) == (None, 7)


@pytest.mark.parametrize(
    ("evaluation", "parts", "held_out"),
    [
        ("simulation", {}, True),
        ("simulation", {"test": table(4)}, True),
        ("simulation", {"valid": table(4)}, False),
        ("public", {"valid": table(4)}, False),
        ("public", {"test": table(4)}, False),
    ],
)
def test_what_is_held_out(evaluation, parts, held_out):
    prepared = prepare(Source(train=table(300), **parts), evaluation=evaluation)
    for silo in prepared.silos.values():
        assert (silo.valid is not None) == held_out
        assert len(notes(silo)) == 100
    assert (prepared.valid is None) == ("valid" not in parts)
    assert (prepared.test is None) == ("test" not in parts)


@pytest.mark.parametrize(
    ("evaluation", "parts"),
    [("site", {}), ("site", {"valid": table(4)}), ("simulation", {})],
)
def test_a_record_has_no_say_in_where_others_are(evaluation, parts):
    """Or one record would move many between the table that trains and the one that scores."""

    def divided(rows) -> tuple[set[str], set[str]]:
        pool = table(300, clinic=["east"] * 300).select(rows)
        silo = prepare(
            Source(train=pool, **parts), Partition(by="clinic"), evaluation=evaluation
        ).silos["east"]
        return set(silo.train["text"][:]), set(silo.valid["text"][:])

    train, held = divided(range(300))
    assert len(held) == pytest.approx(0.2 * 300, abs=5 * (300 * 0.2 * 0.8) ** 0.5)
    for left_out in (0, 150, 299):
        fewer, held_fewer = divided([i for i in range(300) if i != left_out])
        assert fewer == train - {f"note {left_out}"}
        assert held_fewer == held - {f"note {left_out}"}
    assert divided(range(299, -1, -1)) == (train, held)


def test_equal_records_are_held_out_together():
    pool = Dataset.from_dict(
        {"note": ["a", "b"] * 50, "kind": [0, 1] * 50, "clinic": ["east"] * 100}
    )
    for seed in range(20):
        try:
            silo = prepare(
                Source(train=pool), Partition(by="clinic"), evaluation="site", seed=seed
            ).silos["east"]
        except ValueError:
            continue  # all are on one side
        assert set(silo.train["text"][:]).isdisjoint(silo.valid["text"][:])
        return
    pytest.fail("no seed divides them")


@pytest.mark.parametrize(
    ("evaluation", "fraction", "words"),
    [
        ("public", 0.2, "evaluation: public needs records that everybody may see"),
        ("site", 0.0, "evaluation: site needs held-out records, and silo-0, silo-1, silo-2 has"),
        ("simulation", 0.0, "evaluation: simulation needs held-out records"),
        ("site", 1.0, r"valid_fraction: 1\.0 must be at least 0 and below 1"),
    ],
)
def test_nothing_to_measure_by(evaluation, fraction, words):
    refused(words, Source(train=table(30)), evaluation=evaluation, valid_fraction=fraction)


def test_a_silo_too_small_to_hold_out_is_not_scored():
    pool = table(41, clinic=["west"] + ["east"] * 40)
    silos = prepare(Source(train=pool), Partition(by="clinic"), valid_fraction=0.1).silos
    assert (len(silos["west"].train), silos["west"].valid) == (1, None)
    assert len(silos["east"].valid) > 0
    everything = r"at 0\.99 every record of silo '(east|west)' would be held out; lower it"
    refused(everything, Source(train=pool), Partition(by="clinic"), valid_fraction=0.99)


def test_empty_records_go_before_sizes_are_fixed():
    pool = Dataset.from_dict(
        {"note": ["a", "", "c", "d", " ", None], "kind": [0, 1, 1, None, 0, 1], "c": list("xxxyyx")}
    )
    refused("silo 'y' is empty: all its 2 records are blank", Source(train=pool), Partition(by="c"))
    source = Source(train=pool.select([0, 1, 2, 5]), test=pool)
    prepared = prepare(source, Partition(by="c"), valid_fraction=0)
    silo = prepared.silos["x"]
    assert (silo.train["text"][:], silo.left_out) == (["a", "c"], {"train": 2, "test": 2})
    assert (len(silo.test), prepared.test) == (2, None)
    assert prepared.notices == ()
    assert list(left_out_notices(prepared.silos)) == [
        "data: 2 records are empty or without a label, and left out of train",
        "data: 2 records are empty or without a label, and left out of test",
    ]
    drawn = prepare(source, Partition(num=2), valid_fraction=0)
    assert [len(silo.train) for silo in drawn.silos.values()] == [1, 1]


def test_empty_tables_are_named():
    blank = Dataset.from_dict({"note": [""], "kind": [0]})
    source = Source(silos={"east": Tables(train=blank)})
    refused(r"silo 'east', train is empty \(1 blank", source, Partition())
    prepared = prepare(Source(train=table(300), test=blank))
    assert prepared.test is None
    assert prepared.notices == ("splits.test: no record of it can be used, so it is not used",)
    nothing = Dataset.from_dict({"note": [], "kind": []})
    refused("the train table is empty", Source(train=nothing))
    refused(
        "silo 'east', train is empty", Source(silos={"east": Tables(train=nothing)}), Partition()
    )


def test_labels_from_the_data_are_said():
    prepared = prepare(Source(train=table(300)), labels=None)
    assert prepared.labels == ("0", "1")
    (notice,) = prepared.notices
    assert notice.startswith("labels: taken from the data once: 0, 1; write them")


def test_labels_from_the_data_are_those_of_all_silos():
    tables = {"a": table(9), "b": Dataset.from_dict({"note": ["x"] * 9, "kind": [2] * 9})}
    source = Source(
        silos={name: Tables(train=rows) for name, rows in tables.items()}, valid=table(4)
    )
    prepared = prepare(source, Partition(), labels=None)
    assert prepared.labels == ("0", "1", "2")
    assert set(prepared.silos["b"].train["label"][:]) == {2}


@pytest.mark.parametrize("labels", [("good",), ("good", "good")])
def test_a_label_set_needs_two(labels):
    refused("labels: needs two or more different labels", Source(train=table(9)), labels=labels)


def test_a_label_outside_the_set_is_named_with_its_row_in_the_file():
    pool = Dataset.from_dict({"note": list("abc"), "kind": [0, 1, 7], "clinic": ["x", "x", "y"]})
    refused(
        "row 2 .* of the train table has a label outside",
        Source(train=pool),
        Partition(by="clinic"),
    )


def test_a_test_part_without_labels_is_not_used():
    hidden = Dataset.from_dict({"note": ["a"], "kind": [-1]})
    prepared = prepare(Source(train=table(30), valid=table(5), test=hidden))
    assert prepared.test is None
    assert prepared.notices == ("splits.test: all labels are -1, so it is not used",)


def test_a_language_model_has_no_labels():
    prepared = prepare(Source(train=table(300)), columns=Columns(text="note"), labels=None)
    assert prepared.labels == ()
    assert prepared.silos["silo-0"].train.column_names == ["text"]
    words = "split: dirichlet needs label"
    refused(
        words,
        Source(train=table(9)),
        Partition(num=2, split="dirichlet"),
        columns=Columns(text="note"),
    )


@pytest.mark.parametrize(
    "split", ["iid", "dirichlet", "quantity", "label-skew-mild", "label-skew-severe"]
)
def test_every_partition_can_be_asked_for(split):
    prepared = prepare(Source(train=table(300)), Partition(num=3, split=split, alpha=2.0))
    sizes = [len(notes(silo)) for silo in prepared.silos.values()]
    assert len(sizes) == 3
    assert sum(sizes) == 300
    assert prepared.notices == ()


def test_records_that_a_skew_leaves_over_are_counted():
    prepared = prepare(Source(train=table(305)), Partition(num=3, split="label-skew-severe"))
    assert [len(notes(silo)) for silo in prepared.silos.values()] == [100] * 3
    (notice,) = prepared.notices
    assert notice.startswith("split: label-skew-severe leaves 5 records out")


@pytest.mark.parametrize("evaluation", ["simulation", "public", "site"])
@pytest.mark.parametrize("silos", [{"by": "clinic"}, {"num": 1}])
def test_how_many_records_are_empty_is_no_public_notice(evaluation, silos):
    rows = {"note": ["", *(f"note {i}" for i in range(40))], "kind": [0, 1] * 20 + [0]}
    pool = Dataset.from_dict(rows | {"clinic": ["east"] * 41})
    prepared = prepare(
        Source(train=pool, valid=table(4)), Partition(**silos), evaluation=evaluation
    )
    dealt = evaluation == "simulation" and "num" in silos
    said = [*prepared.notices, *left_out_notices(prepared.silos)]
    assert any("1 record is empty" in text for text in prepared.notices) == dealt
    assert any("1 record is empty" in text for text in said) == (dealt or "by" in silos)


def test_limit_draws_from_each_silo_before_holding_out():
    pool = table(40, clinic=["east"] * 30 + ["west"] * 10)
    prepared = prepare(Source(train=pool, test=table(50)), Partition(by="clinic"), limit=15)
    assert {name: len(notes(s)) for name, s in prepared.silos.items()} == {"east": 15, "west": 10}
    assert 0 < len(prepared.silos["east"].valid) < 8
    assert notes(prepared.silos["east"]) != {f"note {i}" for i in range(15)}
    assert len(prepared.test) == 50
    refused("limit: 0 must be at least 1", Source(train=pool), Partition(by="clinic"), limit=0)


def test_what_a_limit_leaves_changes_by_one_record_at_most():
    def left(rows) -> set[str]:
        pool = table(40, clinic=["east"] * 40).select(rows)
        return notes(prepare(Source(train=pool), Partition(by="clinic"), limit=15).silos["east"])

    whole = left(range(40))
    for out in range(40):
        fewer = left([i for i in range(40) if i != out])
        assert len(fewer) == 15
        assert fewer == whole or len(whole - fewer) == 1


def test_the_seed_decides():
    def drawn(seed):
        silo = prepare(Source(train=table(300)), seed=seed, limit=50).silos["silo-1"]
        return silo.train["text"][:], silo.valid["text"][:]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_silos_hold_out_at_different_places():
    pool = table(60, clinic=["east", "west"] * 30)
    silos = prepare(Source(train=pool), Partition(by="clinic"), **SMALL).silos
    places = [[int(t.removeprefix("note ")) // 2 for t in s.valid["text"]] for s in silos.values()]
    assert places[0] != places[1]


def test_one_silo_draws_alike_whoever_else_is_there():
    pool = table(40, clinic=["east", "west"] * 20)
    both = prepare(Source(train=pool), Partition(by="clinic"))
    alone = prepare(Source(train=pool.select(range(0, 40, 2))), Partition(by="clinic"))
    assert both.silos["east"].valid["text"][:] == alone.silos["east"].valid["text"][:]


@pytest.mark.parametrize(
    ("source", "silos", "words"),
    [
        (Source(train=table(9)), Partition(), "give either by: COLUMN or num: NUMBER"),
        (Source(train=table(9)), Partition(by="kind", num=2), "give either by"),
        (
            Source(train=table(9)),
            Partition(by="knd"),
            r"by: column 'knd' .* mean 'kind'",
        ),
        (Source(silos={"a": Tables(train=table(9))}), Partition(num=3), "leave it out"),
    ],
)
def test_silos_that_do_not_fit_the_data(source, silos, words):
    refused(words, source, silos)


@pytest.mark.parametrize("evaluation", ["simulation", "site"])
def test_tables_that_name_silos_are_theirs(evaluation):
    source = Source(
        train=table(40, clinic=["west ", "east"] * 20),
        valid=table(6, 100, clinic=["east", "east", "west"] * 2),
        test=table(2, 200, clinic=["west"] * 2),
    )
    prepared = prepare(source, Partition(by="clinic"), evaluation=evaluation)
    assert (prepared.valid, prepared.test) == (None, None)
    east, west = prepared.silos["east"], prepared.silos["west"]
    assert (len(east.train), len(east.valid), east.test) == (20, 4, None)
    assert (len(west.train), len(west.valid), len(west.test)) == (20, 2, 2)
    assert west.test["text"][:] == ["note 200", "note 201"]


def test_public_tables_are_everybodys_whatever_they_name():
    source = Source(train=table(4, clinic=["w", "e"] * 2), valid=table(2, 9, clinic=["e", "w"]))
    prepared = prepare(source, Partition(by="clinic"), evaluation="public")
    assert len(prepared.valid) == 2
    assert prepared.silos["e"].valid is None


@pytest.mark.parametrize("clinics", [["e", "e"], []])
def test_records_of_a_part_do_not_decide_what_a_silo_trains_on(clinics):
    """One more of them, of a silo that has none, would move a fifth of its training records."""
    train, valid = table(300, clinic=["w", "e", "e"] * 100), table(2, 900, clinic=["w", "e"])
    own = valid.select(range(len(clinics))).remove_columns("clinic").add_column("clinic", clinics)
    source = Source(train=train, valid=own, test=table(2, 910, clinic=["w", "e"]))
    silos = prepare(source, Partition(by="clinic")).silos
    assert (len(silos["e"].train), len(silos["w"].train)) == (200, 100)
    assert (silos["w"].valid, silos["w"].left_out["valid"]) == (None, 0)
    said = list(left_out_notices(silos))
    assert any(text.startswith("splits.valid: no record can be used at") for text in said)
    assert all("w (0 left out)" in text for text in said)
    if not clinics:
        refused("put some into their valid part", source, Partition(by="clinic"), evaluation="site")


def test_a_part_that_names_a_silo_that_does_not_train():
    source = Source(train=table(4, clinic=["w", "e"] * 2), test=table(1, 9, clinic=["secret"]))
    refused(
        "by: the test table has records of a silo that has none", source, Partition(by="clinic")
    )


@pytest.mark.parametrize("empty", [{}, {"note": [], "kind": []}, {"note": [" "], "kind": [0]}])
def test_a_silo_whose_part_is_empty_trains_on_all_and_is_told(empty):
    none = Dataset.from_dict(empty)
    tables = {
        "east": Tables(train=table(100), valid=table(3, 500)),
        "west": Tables(train=table(100, 100), valid=none, test=none),
    }
    silos = prepare(Source(silos=tables), Partition(), evaluation="site").silos
    assert (len(silos["west"].train), silos["west"].valid, silos["west"].test) == (100, None, None)
    assert len(silos["east"].valid) == 3
    count = len(none)
    told = [
        f"splits.valid: no record can be used at west ({count} left out): not scored there, and "
        "nothing is held out instead",
        f"splits.test: no record can be used at west ({count} left out): not scored there",
    ]
    said = list(left_out_notices(silos))
    assert [text for text in said if text.startswith("splits")] == told
    assert list(left_out_notices({"east": silos["east"]})) == []


def test_a_part_for_everybody_that_is_empty_is_said_and_some_are_held_out():
    none = Dataset.from_dict({})
    prepared = prepare(Source(train=table(100), valid=none, test=none))
    assert (prepared.valid, prepared.test) == (None, None)
    assert len(prepared.notices) == 2
    assert prepared.silos["silo-0"].valid is not None


def test_parts_of_silos_that_nobody_looks_at_are_said():
    silos = {"east": Tables(train=table(9), test=table(3, 9))}
    said = prepare(Source(silos=silos, valid=table(4)), Partition(), evaluation="public").notices
    assert said == (
        "splits: with evaluation: public, the silos' own valid and test parts are not used",
    )


def test_a_silo_without_records_is_named():
    none = Dataset.from_dict({})
    source = Source(silos={"east": Tables(train=table(9)), "west": Tables(train=none)})
    refused("data: silo 'west', train is empty", source, Partition())
    refused("data: the train table is empty", Source(train=none))
    refused("data: silo 'west', train is empty", source, Partition(), labels=None)


def test_silos_that_differ_in_case_only():
    train = table(6, clinic=["ICU", "ward", "Icu "] * 2)
    words = r"by: the silos of rows 0 and 2 \(the first is 0\) of the train table differ in case"
    refused(words, Source(train=train), Partition(by="clinic"))
    silos = {"ICU": Tables(train=table(3)), "icu": Tables(train=table(3, 3))}
    refused("clients: 'ICU' and 'icu' differ in case only", Source(silos=silos), Partition())


def test_questions_about_labels_and_their_answers_reach_every_table():
    kinds = ["yes", "no", "maybe ", "", "-1"] * 10
    train = Dataset.from_dict({"note": [f"note {i}" for i in range(50)], "kind": kinds})
    valid = Dataset.from_dict({"note": ["x", "y"], "kind": ["-1", " yes"]})
    source = Source(train=train, valid=valid)
    refused("labels: .* has the label -1", source, labels=None)
    refused("label: row 2 .* outside of the label set", source, labels=("yes", "no"))
    answers = {"-1": None, "maybe": "no"}
    prepared = prepare(source, labels=None, label_map=answers, evaluation="public")
    assert prepared.labels == ("no", "yes")
    assert sum(len(silo.train) for silo in prepared.silos.values()) == 30
    assert prepared.valid["label"][:] == [1]


def classes(*names, records=12):
    kinds = Features({"note": Value("string"), "kind": ClassLabel(names=list(names))})
    ids = [i % len(names) for i in range(records)]
    notes = [f"{names[i]} {n}" for n, i in enumerate(ids)]
    return Dataset.from_dict({"note": notes, "kind": ids}, features=kinds)


@pytest.mark.parametrize("labels", [None, ("cat", "dog")])
@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize("others", [("no", "yes"), ("bird",), ("bird", "cow", "eel")])
def test_classes_of_other_names_are_not_taken_by_their_ids(labels, part, others):
    """As of image folders, where a silo may have none of the classes of another."""
    west = {"train": classes("dog", "cat"), part: classes(*others)}
    source = Source(silos={"east": Tables(train=classes("cat", "dog")), "west": Tables(**west)})
    words = rf"^label: the classes of silo 'west', {part} are called otherwise .* set is: cat, dog$"
    refused(words, source, Partition(), labels=labels, **SMALL)
    every = ("cat", "dog", *others)
    silos = prepare(source, Partition(), labels=every, **SMALL).silos
    for name, own in silos.items():
        for table in filter(None, (own.train, own.valid, own.test)):
            told = [every[label] for label in table["label"][:]]
            assert told == [note.split()[0] for note in table["text"][:]], name


def test_other_names_for_the_same_ids_are_those_of_all_tables():
    silos = {name: Tables(train=classes("nay", "aye")) for name in ("east", "west")}
    own = prepare(Source(silos=silos), Partition(), **SMALL).silos["west"].train
    assert own["label"][:] == [int(note.startswith("aye")) for note in own["text"][:]]
    refused(
        "the classes of silo 'east', train are called",
        Source(silos=silos),
        Partition(),
        labels=("bad", "good", "ugly"),
        **SMALL,
    )
