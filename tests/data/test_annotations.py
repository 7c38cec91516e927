"""Tags of words and spans of texts: read, checked, and laid on tokens."""

import copy

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from tokenizers.normalizers import BertNormalizer
from tokenizers.processors import TemplateProcessing

from silotune.data import text_examples
from silotune.data.columns import Columns, filled_rows, readable
from silotune.data.guess import guess
from silotune.data.loading import Source
from silotune.data.summary import summarize
from silotune.objectives.iob2 import tags_of

LABELS = tags_of(("NAME", "DATE"))
WORDS = Columns(words="words", tags="tags")
SPANS = Columns(text="text", spans="spans")


def words(label_map=None, features=None, **data):
    table = Dataset.from_dict(data, features=features)
    return readable(table, WORDS, LABELS, "the train table", label_map or {})


def spans(*records, label_map=None):
    table = Dataset.from_list([{"text": text, "spans": list(own)} for text, own in records])
    return readable(table, SPANS, LABELS, "the train table", label_map or {})


def span(start, end, label="NAME"):
    return {"start": start, "end": end, "label": label, "id": "x"}


def tokens(table, tokenizer, max_length=64):
    return text_examples(table, tokenizer, max_length, "a table")


def test_a_record_of_which_no_token_is_left_is_left_out(letters):
    bare = copy.deepcopy(letters)
    bare.backend_tokenizer.normalizer = BertNormalizer()  # which drops what has no width
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    examples = tokens(words(words=[["good"], ["\u200b"]], tags=[["B-NAME"], ["O"]]), bare)
    assert examples.rows.tolist() == [0]


def test_tags_become_ids():
    table = words(words=[["good", "film"], ["the"]], tags=[["B-NAME", "I-NAME"], ["O"]])
    assert table["tags"][:] == [[1, 2], [0]]
    named = Features({"words": List(Value("string")), "tags": List(ClassLabel(names=["X", "O"]))})
    own = words({}, named, words=[["a"]], tags=[[1]])
    assert own["tags"][:] == [[0]]


def test_a_label_map_is_of_types():
    told = {"PERSON": "NAME", "PLACE": None}
    table = words(told, words=[["a"] * 4], tags=[["B-PERSON", "I-PERSON", "B-PLACE", "I-PLACE"]])
    assert table["tags"][:] == [[1, 2, 0, 0]]
    record = ("ab cd", [span(0, 2, "PLACE"), span(3, 5, "PERSON")])
    assert spans(record, label_map=told)["spans"][:] == [[{"start": 3, "end": 5, "label": 1}]]


@pytest.mark.parametrize(
    ("said", "own", "why"),
    [
        (["zebra", "b"], ["O"], "tags: row 1 .* has 2 words and 1 tags"),
        (["zebra"], ["B-ZEBRA"], "tags: row 1 .* not O, or B- or I-.*labels are: NAME, DATE$"),
        (["zebra"], [None], "tags: row 1 .* not O, or B- or I-"),
        (["zebra"], ["NAME"], "tags: row 1 .* not O, or B- or I-"),
        (["zebra"], ["I-NAME"], "tags: row 1 .* write IOB2"),
        (["zebra", "b"], ["B-DATE", "I-NAME"], "tags: row 1 .* write IOB2"),
    ],
)
def test_tags_that_are_refused_by_their_row(said, own, why):
    with pytest.raises(ValueError, match=why) as refused:
        words(words=[["a"], said], tags=[["O"], own])
    assert "zebra" not in str(refused.value).lower()


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ([span(0, 9)], "lies outside of its text"),
        ([span(-1, 2)], "lies outside of its text"),
        ([span(None, 2)], "lies outside of its text"),
        ([span(2, 2)], "a span without a character"),
        ([span(0, 3), span(2, 4)], "spans that cross or lie in one another"),
        ([span(0, 4), span(1, 2)], "spans that cross or lie in one another"),
        ([span(0, 2, "ZEBRA")], "not in labels.*labels are: NAME, DATE"),
        ([span(0, 2, None)], "not in labels"),
    ],
)
def test_spans_that_are_refused_by_their_row(own, why):
    with pytest.raises(ValueError, match=rf"spans: row 1 .* of the train table has .*{why}") as no:
        spans(("abcd", [span(0, 2)]), ("zebra", own))
    assert "zebra" not in str(no.value).lower()


@pytest.mark.parametrize(
    ("columns", "data", "why"),
    [
        (WORDS, {"words": ["a b"], "tags": [["O"]]}, "words: .* does not hold lists of words"),
        (WORDS, {"words": [["a"]], "tags": [[3]]}, "tags: .* does not hold lists of tags by name"),
        (SPANS, {"text": ["a"], "spans": ["x"]}, "spans: .* does not hold lists of .start, end"),
        (
            SPANS,
            {"text": ["a"], "spans": [[{"start": "0", "end": "1", "label": "NAME"}]]},
            "but lists of {start: text, end: text, label: text}; name a column that does$",
        ),
    ],
)
def test_columns_of_another_kind(columns, data, why):
    with pytest.raises(ValueError, match=why):
        readable(Dataset.from_dict(data), columns, LABELS, "a table")


def test_records_without_annotation_are_left_out_and_those_without_entity_are_not():
    table = spans(("good", [span(0, 4)]), ("bad", []), (" ", []), (None, []))
    assert filled_rows(table).tolist() == [0, 1]
    assert filled_rows(spans(("good", []), ("film", []))).tolist() == [0, 1]
    table = words(words=[["a"], None, ["b"], [""]], tags=[["O"], ["O"], None, ["O"]])
    assert filled_rows(table).tolist() == [0]


def test_a_words_first_token_carries_its_tag(letters):
    table = words(words=[["ab", "c", "def"]], tags=[["B-NAME", "I-NAME", "B-DATE"]])
    batch = tokens(table, letters).batch([0])
    assert batch["labels"].tolist() == [[-100, 1, -100, 2, 3, -100, -100, -100]]


def test_every_token_of_a_span_has_a_tag(letters):
    table = spans(("abc de", [span(4, 6, "DATE"), span(1, 3)]), ("a", []))
    batch = tokens(table, letters).batch([0, 1])
    assert batch["labels"].tolist() == [
        [-100, 0, 1, 2, 3, 4, -100],
        [-100, 0, -100, -100, -100, -100, -100],
    ]


def test_a_token_that_is_partly_in_a_span_belongs_to_it(bert):
    batch = tokens(spans(("good film bad", [span(6, 11)])), bert).batch([0])
    assert batch["labels"].tolist() == [[-100, 0, 1, 2, -100]]
    touching = tokens(spans(("good", [span(0, 2), span(2, 4, "DATE")])), bert).batch([0])
    assert touching["labels"].tolist() == [[-100, 1, -100]]


def test_what_a_cut_takes_is_counted(letters):
    table = spans(("abcdefgh", [span(0, 2), span(3, 5), span(6, 8)]), ("ab", [span(0, 2)]))
    examples = tokens(table, letters, max_length=6)
    assert (examples.truncated, examples.cut_entities) == (1, 2)
    assert examples.batch([0])["labels"].tolist() == [[-100, 1, 2, 0, 1, -100]]
    said = words(words=[["ab", "cd", "ef"]], tags=[["B-NAME", "I-NAME", "B-DATE"]])
    assert tokens(said, letters, max_length=5).cut_entities == 2
    assert tokens(said, letters, max_length=8).cut_entities == 0


def test_entities_are_counted_by_type():
    table = spans(("abcd", [span(0, 2), span(2, 4)]), ("ab", [span(0, 2, "DATE")]))
    assert summarize(table, [3, 3], LABELS).labels == {"NAME": 2, "DATE": 1}
    table = words(words=[["a", "b"]], tags=[["B-NAME", "I-NAME"]])
    assert summarize(table, [3], LABELS).labels == {"NAME": 1, "DATE": 0}


def test_what_columns_are_for_is_guessed():
    many = 40
    texts = [f"patient {i} was seen in the ward" for i in range(many)]
    given = {"note": texts, "entities": [[span(0, 7)], [span(0, 3, "DATE")]] * (many // 2)}
    found = guess(Source(train=Dataset.from_dict(given)), None)
    assert found.task == "token-classification"
    assert found.columns == {"text": "note", "spans": "entities"}
    assert found.labels == ("DATE", "NAME")
    rows = {"tokens": [t.split() for t in texts], "ner_tags": [["O", "B-AGE"] + ["O"] * 5] * many}
    found = guess(Source(train=Dataset.from_dict(rows)), None)
    assert found.columns == {"words": "tokens", "tags": "ner_tags"}
    assert (found.labels, found.open) == (("AGE",), {})
    found = guess(Source(train=Dataset.from_dict({"note": texts})), "token-classification")
    assert found.open == {"tags": ("note",)}
