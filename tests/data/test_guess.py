"""What columns are for, told by what they are called and hold."""

import pytest
from datasets import ClassLabel, Dataset

from silotune.data import Source, Tables
from silotune.data.guess import guess

N = 60
LONG = [f"the patient number {i} was seen with pain in the left knee" for i in range(N)]
KINDS = ["knee", "hip", "arm"] * (N // 3)
SITES = ["north", "south"] * (N // 2)
HALVES = [i + 0.5 for i in range(N)]


def found(task=None, **columns):
    return guess(Source(train=Dataset.from_dict(columns)), task)


@pytest.mark.parametrize(
    ("columns", "named", "by"),
    [
        ({"note": LONG, "department": KINDS, "clinic": SITES}, ("note", "department"), "clinic"),
        ({"Text": LONG, "Label": KINDS, "Site": SITES}, ("Text", "Label"), "Site"),
        ({"words": LONG, "what": KINDS}, ("words", "what"), None),
        ({"text": LONG, "label": [0, 1, 2] * 20, "id": list(range(N))}, ("text", "label"), None),
        ({"short": KINDS, "long": LONG, "intent": KINDS}, ("long", "intent"), None),
    ],
)
def test_texts_with_labels(columns, named, by):
    told = found("classification", **columns)
    assert told.task == "sequence-classification"
    assert (told.columns["text"], told.columns["label"]) == named
    assert (told.by, told.open) == (by, {})
    assert set(told.labels) == {str(value) for value in columns[named[1]]}
    assert 10 < told.tokens < 30


IDS = [7, 3, 9] * (N // 3)


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"label": IDS, "joint": KINDS}, "joint"),  # one word for each number
        ({"label": IDS, "label_text": KINDS, "clinic": SITES}, "label_text"),
        ({"label": IDS, "joint": ["knee", "hip", "hip"] * (N // 3)}, "label"),  # 3 and 9 alike
        ({"label": IDS, "joint": ["knee", "hip", "arm", "knee", "hip", "leg"] * (N // 6)}, "label"),
        ({"label": IDS, "joint": ["knee", "hip", None] * (N // 3)}, "label"),
        ({"label": IDS, "clinic": KINDS}, "label"),  # it names silos
        ({"label": KINDS, "joint": [f"{kind} pain" for kind in KINDS]}, "label"),
    ],
)
def test_words_are_labels_before_their_numbers(columns, label):
    told = found("classification", text=LONG, **columns)
    assert told.columns == {"text": "text", "label": label}
    assert set(told.labels) == {str(value) for value in columns[label]}


def test_the_only_text_is_no_label():
    told = found("classification", text=KINDS, label=IDS)
    assert told.columns == {"text": "text", "label": "label"}


def test_pairs_chats_prompts_images_and_plain_texts():
    pair = found(premise=LONG, hypothesis=LONG[::-1], label=KINDS)
    assert pair.columns == {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    chat = [[{"role": "user", "content": t}, {"role": "assistant", "content": t}] for t in LONG]
    assert found(messages=chat).columns == {"messages": "messages"}
    share = [[{"from": "human", "value": t}, {"from": "gpt", "value": t}] for t in LONG]
    assert found("causal-lm", conversations=share, id=LONG).columns == {"messages": "conversations"}
    alpaca = found(instruction=LONG, input=LONG, output=LONG)
    assert alpaca.columns == {"prompt": "instruction", "input": "input", "completion": "output"}
    assert found(text=LONG).columns == {"text": "text"}
    photos = [f"photos/{i}.png" for i in range(N)]
    seen = found("classification", image=photos, label=KINDS)
    assert seen.columns == {"image": "image", "label": "label"}
    assert (seen.task, seen.tokens) == ("image-classification", 0)
    several = found(image=photos, labels=[["knee", "hip"], ["arm"]] * (N // 2))
    assert several.columns == {"image": "image", "label": "labels"}
    assert several.task == "multi-label-image-classification"
    assert several.labels == ("arm", "hip", "knee")


def test_what_cannot_be_told_is_left_open():
    several = found("classification", text=LONG, a=KINDS, b=SITES)
    assert several.open == {"label": ("a", "b")}
    assert several.labels == ()
    none = found("classification", text=LONG, number=[i + 0.5 for i in range(N)])
    assert (none.open, none.numbers) == ({"label": ()}, ("number",))
    assert found("classification", n=list(range(N)), label=KINDS).open["text"] == ("n", "label")


@pytest.mark.parametrize("column", [{"Kategorie": KINDS}, {"score": SITES, "Rating": HALVES}])
def test_two_tasks_that_are_near_are_asked_about(column):
    """Texts alone, or what a column of no usual name says of them."""
    name = next(iter(column))
    with pytest.raises(ValueError, match=rf"^task: '{name}' may hold labels, or the texts alone"):
        found(text=LONG, **column)
    told = found("causal-lm", text=LONG, **column)
    assert (told.task, told.unused) == ("causal-lm", tuple(column))
    assert found("classification", text=LONG, **column).columns["label"] == name


def test_numbers_called_like_labels_are_asked_about():
    words = (
        "^task: 'Rating' may hold numbers to learn, .*; say --task regression, or --task causal-lm$"
    )
    with pytest.raises(ValueError, match=words):
        found(text=LONG, Rating=HALVES)
    assert found("regression", text=LONG, Rating=HALVES).columns["label"] == "Rating"
    told = found("classification", text=LONG, Rating=HALVES, id=list(range(N)))
    assert (told.open, told.numbers) == ({"label": ("id",)}, ("Rating",))
    assert found(text=LONG, price=HALVES).task == "causal-lm"


CODES = [["knee", "hip"], ["arm"], []] * (N // 3)
MARKS = {"knee": [0, 1] * (N // 2), "hip": [1, 1, 0] * (N // 3)}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"codes": CODES}, "'codes' may hold labels, .* say --task multi-label-classification, or"),
        (
            {"codes": CODES, "kind": KINDS},
            "'kind', 'codes' may .* say --task classification, or --task multi-label-class.*, or",
        ),
        (
            MARKS,
            "'knee', 'hip' may .* say --task classification, or --task multi-label-class.*, or",
        ),
    ],
)
def test_several_labels_of_no_usual_name_are_asked_about(columns, words):
    """And not passed over, as if the texts alone were learned."""
    with pytest.raises(ValueError, match=f"^task: {words} --task causal-lm$"):
        found(text=LONG, **columns)
    told = found("multi-label-classification", text=LONG, **columns)
    if "codes" in columns:
        assert (told.columns["label"], told.labels) == ("codes", ("arm", "hip", "knee"))
    else:
        assert told.open == {"label": ("knee", "hip")}


def test_lists_of_what_records_say_are_no_labels():
    words = [[f"{word}{i}" for word in ("knee", "hip")] for i in range(N)]
    assert found(text=LONG, tokens=words).task == "causal-lm"
    told = found("multi-label-classification", text=LONG, tokens=words)
    assert (told.open, told.labels) == ({"label": ("tokens",)}, ())
    named = found(text=LONG, labels=words)
    assert (named.task, named.columns["label"]) == ("multi-label-classification", "labels")


def test_columns_that_are_not_used_are_told():
    told = found(text=LONG, label=KINDS, site=SITES, patient_id=LONG, id=LONG, when=LONG)
    assert told.unused == ("id", "when")


def test_a_second_text_is_told_and_not_taken():
    told = found("classification", finding=LONG, asked=[f"{t}?" for t in KINDS], verdict=SITES)
    assert (told.columns, told.second_texts) == ({"text": "finding"}, ())
    asked = [f"does it hurt in the {kind}" for kind in KINDS]
    told = found("classification", finding=LONG, asked=asked, verdict=SITES, id=KINDS)
    assert told.columns == {"text": "finding"}
    assert told.second_texts == ("asked",)
    assert told.open == {"label": ("asked", "verdict", "id")}
    assert found(premise=LONG, hypothesis=LONG, label=KINDS, more=LONG).second_texts == ()
    assert found("causal-lm", text=LONG, asked=asked).second_texts == ()


def test_what_is_the_text_may_not_be_the_label():
    told = found("classification", text=[f"{kind} hurts" for kind in KINDS], a=KINDS, b=SITES)
    assert told.open == {"label": ("a", "b")}


def test_labels_keep_the_order_of_ids_and_of_numbers():
    names = ["zebra", "ant"]
    table = Dataset.from_dict({"text": LONG, "label": [0, 1] * 30})
    named = table.cast_column("label", ClassLabel(names=names))
    assert guess(Source(train=named), None).labels == ("zebra", "ant")
    assert found(text=LONG, label=[10, 9, 2] * 20).labels == ("2", "9", "10")
    assert found(text=LONG, label=["b", " a", None, "a"] * 15).labels == ("a", "b")


def test_the_label_of_records_without_one_is_no_class():
    told = found(text=LONG, label=[0, 1, -1] * 20)
    assert (told.labels, told.unlabelled) == (("0", "1"), True)
    assert not found(text=LONG, label=[0, 1, 2] * 20).unlabelled


def test_silos_that_are_there_are_not_asked_for():
    tables = {s: Tables(train=Dataset.from_dict({"text": LONG, "label": KINDS})) for s in SITES}
    told = guess(Source(silos=tables), None)
    assert (told.divided, told.by, told.may_name_silos) == (True, None, ())


def test_a_column_that_might_name_silos_is_told_and_not_taken():
    told = found(text=LONG, label=KINDS, where=SITES)
    assert (told.by, told.may_name_silos) == (None, ("where",))


def test_people_are_told_apart_from_silos():
    told = found(text=LONG, label=KINDS, site=SITES, patient_id=[f"p{i}" for i in range(N)])
    assert (told.by, told.person) == ("site", "patient_id")


@pytest.mark.parametrize("first", [LONG[0], "sore patient seven weeks"])
def test_a_file_without_a_header_is_refused_and_not_quoted(first):
    with pytest.raises(ValueError, match="does not look like names") as refused:
        found(**{first: LONG, "knee": KINDS})
    assert "patient" not in str(refused.value)
