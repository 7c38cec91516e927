"""Which recipe is taken: the nearest by public facts, of the same task and unit, or none."""

import json
from dataclasses import fields, replace

import pytest

import silotune as st
from federation.objects import federation
from silotune.config import load_config
from silotune.methods.recipes import PLACES, Facts, Recipe, method_of, nearest, recipes

HERE = Facts(task="sequence-classification", unit="example", epsilon=6.0, labels=2, records=1000)
FEW = Recipe(facts=HERE, settings={"method": {"name": "ffa-lora", "r": 4}}, grid="few")
MANY = Recipe(
    facts=replace(HERE, labels=77, epsilon=1.0),
    settings={"method": {"name": "head-only"}},
    grid="many",
)
OPEN = Recipe(facts=replace(HERE, unit="none"), settings={"method": {"name": "fedit"}})


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (HERE, FEW),
        (replace(HERE, labels=50), MANY),
        (replace(HERE, epsilon=1.5), FEW),  # as many labels count for more than a little epsilon
        (replace(HERE, epsilon=None, labels=None), FEW),  # what is not known is not compared
        (replace(HERE, unit="none", epsilon=None), OPEN),
    ],
)
def test_the_nearest_in_ratios_of_what_both_know(facts, expected):
    assert nearest(facts, (FEW, MANY, OPEN)) is expected


def test_what_no_run_could_have_is_not_compared():
    """It is refused by its own key."""
    facts = [Facts(task="a", unit="b", epsilon=epsilon, silos=3) for epsilon in (-1.0, 6.0)]
    assert facts[0].distance(facts[1]) == 0.0


def test_what_was_measured_with_the_same_model_is_nearer_than_anything():
    far = replace(MANY, facts=replace(MANY.facts, model="m", records=9))
    assert nearest(replace(HERE, model="m"), (FEW, far)) is far
    assert nearest(replace(HERE, model="other"), (FEW, far)).method == FEW.method


@pytest.mark.parametrize(("rate", "kept"), [(0.5, {}), ("auto", {"train.learning_rate": "auto"})])
def test_places_pooling_and_a_rate_of_another_model_are_left_out(rate, kept):
    places = {"target_modules": ["query"], "target_parameters": None, "layers_to_transform": [3]}
    method = {"name": "fedit", "r": 4, **places}
    settings = {"method": method, "model.pooling": "mean", "train.learning_rate": rate}
    row = Recipe(facts=replace(HERE, model="m"), settings=settings)
    assert nearest(replace(HERE, model="m"), (row,)) is row
    other = nearest(replace(HERE, model="n"), (row,))
    assert other.settings == {"method": {"name": "fedit", "r": 4}, **kept}
    assert "model m" in other.why


def test_of_several_about_as_near_the_first_of_the_table_is_taken():
    """Whoever declares no sizes has all that were measured at the same distance."""
    sizes = (22_000, 2_600, 4_000, 2_800)
    table = [Recipe(facts=replace(HERE, records=n), grid=str(n)) for n in sizes]
    near = {None: "22000", 20_000: "22000", 2_700: "2600", 2_800: "2600", 3_900: "4000"}
    assert {n: nearest(replace(HERE, records=n), table).grid for n in near} == near


def test_every_option_that_names_places_is_left_out():
    named = {f.name for f in fields(st.methods.FFALoRA) if f.name.startswith(("target", "layers"))}
    assert named == set(PLACES)


def test_a_method_that_is_named_has_the_nearest_of_its_own():
    assert nearest(HERE, (FEW, MANY), "head-only") is MANY
    with pytest.raises(ValueError, match="nothing was measured of fedsvd for"):
        nearest(HERE, (FEW, MANY), "fedsvd")


def test_where_nothing_was_measured_it_says_what_was():
    with pytest.raises(
        ValueError, match=r"nothing was measured for a causal-lm under unit example"
    ):
        nearest(replace(HERE, task="causal-lm"), (FEW, OPEN))
    with pytest.raises(ValueError, match=r"leave auto out$"):
        nearest(HERE, ())


def test_the_method_of_a_recipe_has_its_options():
    assert method_of(FEW) == st.methods.FFALoRA(r=4)


def test_a_federation_takes_it_and_says_why(bert_at_hand, monkeypatch):
    monkeypatch.setattr("silotune.federation.description.recipes", lambda: (FEW, MANY, OPEN))
    private = st.ExampleDP(target_epsilon=6.0, target_delta=1e-3)
    one = federation(bert_at_hand, method="auto", privacy=private, num_examples=20)
    assert one.terms.method == st.methods.FFALoRA(r=4)
    [reason] = one.reasons
    assert reason.startswith("method: ffa-lora, best where it is most like here (few: ")
    assert "1,000 records" in reason
    assert federation(bert_at_hand, method="auto").terms.method == st.methods.FedIT()


@pytest.mark.parametrize("wrong", [{"privacy": 6}, {"objective": "triage"}, {"num_examples": "20"}])
def test_what_a_method_is_chosen_by_is_checked_like_everything(wrong, bert_at_hand, monkeypatch):
    monkeypatch.setattr("silotune.federation.description.recipes", lambda: (FEW, MANY, OPEN))
    [field] = wrong
    with pytest.raises((ValueError, TypeError), match=f"^{field}"):
        federation(bert_at_hand, method="auto", **wrong)


@pytest.fixture
def bert_at_hand(tmp_path):
    return tmp_path / "no-model"


@pytest.mark.parametrize("row", recipes(), ids=lambda row: row.grid)
def test_every_recipe_that_is_shipped_is_a_configuration(row):
    base = {
        "model": {"name_or_path": row.facts.model, "task": row.facts.task},
        "data": {"path": "d", "silos": {"num": 3}, "columns": {"text": "t", "label": "l"}},
        "privacy": {"unit": row.facts.unit, "target_epsilon": row.facts.epsilon},
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in {**base, **row.settings}.items()]
    assert load_config(None, overrides).method.name == row.method["name"]


def test_the_table_that_is_shipped_can_be_read():
    assert all(isinstance(row, Recipe) for row in recipes())
