import pytest
import yaml

from silotune.config.yaml import explain, parse, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalars_of_yaml_1_2(text, value):
    parsed, _ = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_lines():
    _, lines = parse("a: 1\nb:\n  c: {d: 2}\n  e: 3\n")
    assert lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", "d"): 3,
        ("b", "e"): 4,
    }


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [{b: 1, b: 2}]", "{0: x, '0': y}"])
def test_key_twice(text):
    with pytest.raises(yaml.YAMLError) as error:
        parse(text)
    assert "stands there twice" in explain(error.value)[1]


def test_same_key_in_two_mappings():
    assert parse("[{a: 1}, {a: 2}]")[0] == [{"a": 1}, {"a": 2}]


def test_anchors_and_merges():
    assert parse("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x\n")[0] == {
        "a": {"b": 1},
        "c": {"b": 1, "d": 2},
        "e": {"b": 1},
    }


def test_a_mapping_within_itself_ends():
    with pytest.raises(yaml.YAMLError):
        parse("[" * 5000)
    parse("&a [*a]")


def test_objects_are_refused():
    with pytest.raises(yaml.YAMLError):
        parse("!!python/name:os.system")


def test_write_is_read_by_others_too():
    value = {"a": "1e-5", "b": "yes", "c": 1e-5, "d": [True, None], "e": "Zürich"}
    assert parse(write(value))[0] == value
    assert yaml.safe_load(write(value)) == value
