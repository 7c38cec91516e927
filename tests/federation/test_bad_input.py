"""What cannot work ends before work starts, in words that name the field and the cure."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import silotune as st
from federation.objects import classifier, federation, tables
from federation.test_load import write_tables
from silotune.federation.doctor import configuration

HIDDEN = {"privacy": st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)}


@pytest.fixture
def model(bert):
    return AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)


@pytest.fixture
def place(tmp_path) -> Path:
    """The folder of a run that must not be made."""
    yield tmp_path / "run"
    assert not (tmp_path / "run").exists()


def labelled(*names: str) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    rows = [{"text": f"a {names[i % 2]} ran", "label": i % 2} for i in range(24)]
    return Dataset.from_list(rows, features=features)


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".hidden", "", " east", "a:b", "x" * 200, "é" * 51, "a\ab", "a\ud800", 7],
)
def test_a_client_that_cannot_have_a_folder(bert, name):
    with pytest.raises(ValueError, match=r"clients: .*(cannot be the name of a folder|as text)"):
        federation(bert, clients={name: tables()["east"], "west": tables()["west"]})


def test_clients_with_other_columns(bert, place):
    rows = tables()
    rows["west"] = [{"text": r["text"], "kind": r["label"]} for r in rows["west"]]
    with pytest.raises(ValueError, match=r"clients: east and west have other columns: kind, label"):
        federation(bert, clients=rows).fit(place)


def test_clients_with_other_labels(bert, place):
    clients = {"east": labelled("cat", "dog"), "west": labelled("dog", "cat")}
    with pytest.raises(ValueError, match=r"clients: east and west have other labels in label"):
        federation(bert, clients=clients).fit(place)
    rows = tables()
    rows["west"][3]["label"] = "bird"
    with pytest.raises(ValueError, match=r"label: row 3 .*west.*; the label set is") as caught:
        federation(bert, clients=rows).fit(place)
    assert "bird" not in str(caught.value)


def test_a_part_that_nobody_knows(bert):
    east, west = tables().values()
    for parts, words in (
        ({"train": east, "holdout": east}, "east has a part holdout; name its parts train, valid"),
        ({"test": east}, "east has no part train"),
        ({"train": east, "dev": east, "validation": east}, "a part valid twice"),
    ):
        with pytest.raises(ValueError, match=f"clients: .*{words}"):
            federation(bert, clients={"east": parts, "west": west})


def test_tables_that_are_none(bert, place):
    for table, words in (([], "has no records"), (7, "give a datasets.Dataset, a list of dicts")):
        with pytest.raises(ValueError, match=f"clients: client east.*{words}"):
            federation(bert, clients={"east": table}).fit(place)
    with pytest.raises(ValueError, match="clients: there is none"):
        federation(bert, clients={})


def test_clients_that_differ_in_case_only(bert):
    east = tables()["east"]
    with pytest.raises(ValueError, match=r"^clients: 'East' and 'eaSt' differ in case only"):
        federation(bert, clients={"East": east, "eaSt": east})


RECORDS = [{"text": "secret", "label": "cat"}, {"text": "secret", "label": "dog"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": RECORDS}, r"clients: give \{client: table\}.*not list"),
        ({"clients": Dataset.from_list(RECORDS)}, "clients: give .*not Dataset"),
        ({"clients": {"east": ["secret"]}}, "clients: client east: give .*not list of str"),
        ({"clients": {"east": [("secret", "cat")]}}, "clients: client east: .*not list of tuple"),
        ({"clients": {"east": [*RECORDS, "secret"]}}, "clients: client east: .*not list of str"),
        (
            {"clients": {"east": {"train": RECORDS, "test": ["secret"]}}},
            "clients: client east, test",
        ),
        ({"valid": ["secret"]}, "valid: give .*not list of str"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_is_no_table_is_refused_unseen(bert, changes, words):
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        federation(bert, **changes)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_column_of_mixed_types(bert, place, column):
    rows = tables()
    rows["west"] = [{**r, column: 1} for r in rows["west"]]
    rows["west"][1][column] = "secret"
    words = f"^clients: client west: column '{column}' holds values of several types"
    with pytest.raises(ValueError, match=words) as caught:
        federation(bert, clients=rows).fit(place)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_texts_named_as_labels(bert, place):
    wrong = classifier(text="label", label="text", labels=None)
    rows = [{"text": f"secret {i}", "label": "cat"} for i in range(24)]
    with pytest.raises(ValueError, match=r"^labels: column 'text' .* give labels") as caught:
        federation(bert, clients={"east": rows}, objective=wrong, **HIDDEN).fit(place)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_examples", "20", "give a whole number.*not '20'"),
        ("num_examples", 20.5, r"give a whole number.*not 20\.5"),
        ("num_examples", {"east": None, "west": 3}, "give a whole number.*not None"),
        ("num_examples", {"x": 3}, "is declared for x, but the silos .* are east, west"),
        ("num_held_out", 0, "give a whole number"),
        ("valid_fraction", "x", 'must be a number.*not "x"'),
        ("limit", "3", 'must be a whole number.*not "3"'),
        ("limit", True, "must be a whole number"),
        ("num_examples", True, "give a whole number"),
        ("limit", 1.5, r"must be a whole number.*not 1\.5"),
    ],
)
def test_a_number_that_is_none(bert, field, value, words):
    with pytest.raises(ValueError, match=f"^{field}: {words}"):
        federation(bert, **{field: value})


def test_labels_that_are_no_texts():
    for labels, words in (([0, 1], "as text, such as '0', not int"), (5, "a list .*, not int")):
        with pytest.raises(ValueError, match=f"^labels: give .*{words}"):
            classifier(labels=labels)


class NoSynthetic:
    """An objective that somebody forgot a member of."""

    task, metric, columns, label_names = "sequence-classification", "accuracy", {}, ("a", "b")

    def losses(self, model, batch):
        raise AssertionError

    def measure(self, model, batch):
        raise AssertionError


class NoBuild:
    lr, moves_pairs, basis_free = 0.1, None, False


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("objective", NoSynthetic(), "NoSynthetic lacks .*synthetic.*inherit from Objective"),
        ("objective", st.CausalLM, r"give an object, CausalLM\(\.\.\.\), not the class"),
        ("optimizer", NoBuild(), "NoBuild lacks build"),
        ("method", "fedit", "give a method, such as .*not 'fedit'"),
        ("method", st.methods.FedIT, "give a method, such as"),
        ("privacy", 6.0, r"give silotune.ExampleDP\(\.\.\.\)"),
        ("privacy", None, r"say who is hidden: ExampleDP.*NoDP\(\) to hide nobody"),
        ("rounds", 0, "must be at least 1, not 0"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_an_object_that_is_not_what_it_is_given_for(bert, field, value, words):
    with pytest.raises(ValueError, match=f"^{field}: {words}"):
        federation(bert, **{field: value})


def test_an_aggregator_that_lacks_a_member():
    class Nothing:
        needs_product = False

    with pytest.raises(ValueError, match=r"aggregator: Nothing lacks combine.*Aggregator"):
        st.methods.FedIT(r=2).with_(aggregator=Nothing())


def test_what_claims_nothing_is_refused_under_privacy(bert):
    class Own(st.Adapter):
        def frozen(self, site):
            return frozenset()

        def initial_factors(self, site, seed):
            return {}

        def layers(self, sites, sink, context):
            return {}

    method = st.methods.FedIT(r=2).with_(adapter=Own())
    with pytest.raises(ValueError, match=r"Own does not claim"):
        federation(bert, method=method, **HIDDEN)


def test_a_model_object_without_a_tokenizer_or_weights(bert, model):
    with pytest.raises(ValueError, match=r"^tokenizer: .*is an object, so give its tokenizer"):
        federation(model)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    with pytest.raises(ValueError, match=r"^model: give a name, a folder or a transformers model"):
        federation(nn.Linear(2, 2), tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"^tokenizer: a model that is a name brings its own"):
        federation(bert, tokenizer=tokenizer)
    from accelerate import init_empty_weights

    with init_empty_weights():
        empty = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(bert))
    with pytest.raises(ValueError, match=r"^model: its weights are on the meta device.*load them"):
        federation(empty, tokenizer=tokenizer)
    model.hf_device_map = {"bert": 0, "classifier": 1}
    with pytest.raises(ValueError, match=r"^model: device_map has spread it .* load it without"):
        federation(model, tokenizer=tokenizer)


def test_a_model_with_another_number_of_labels(bert, place):
    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3)
    with pytest.raises(ValueError, match=r"^model: its head has 3 outputs, and there are 2 labels"):
        federation(model, tokenizer=AutoTokenizer.from_pretrained(bert)).fit(place)


@dataclass(frozen=True)
class Whole(st.Aggregator):
    def combine(self, previous, mean):
        return st.Combined(factors=mean.first)


def test_objects_and_worker_processes(bert, model, place, tmp_path):
    pool = {"runtime": "pool", "workers": 2}
    with pytest.raises(ValueError, match=r"^runtime: .*names or paths, not objects"):
        federation(bert, **pool)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    with pytest.raises(ValueError, match=r"^runtime: .*names or paths, not objects"):
        federation(model, tokenizer=tokenizer, clients=write_tables(tmp_path), **pool)

    @dataclass(frozen=True)
    class Local(Whole):
        pass

    notebook = type("Notebook", (Whole,), {"__module__": "__main__"})
    for rule, words in (
        (Local(), "Local is a class of a function, which worker processes cannot import"),
        (notebook(), "Notebook is a class of this notebook or program.*runtime='in-process'"),
    ):
        method = st.methods.FedIT(r=2).with_(aggregator=rule)
        with pytest.raises(ValueError, match=f"^runtime: .*{words}"):
            federation(bert, clients=write_tables(tmp_path), method=method, **pool).fit(place)


def test_a_quorum_of_more_clients_than_there_are(bert, tmp_path):
    too_many = federation(bert, min_clients=3)
    words = r"^min_clients: must be at most the number of clients, 2, not 3"
    for act in (too_many.plan, lambda: too_many.fit(tmp_path / "run")):
        with pytest.raises(ValueError, match=words):
            act()
    assert not (tmp_path / "run").exists()
    federation(bert, min_clients=2).plan()


def test_the_folder_of_another_run(bert, tmp_path):
    federation(bert, rounds=1).fit(tmp_path / "run")
    kept = {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    with pytest.raises(ValueError, match=r"^folder: .*already holds a run.*resume=True"):
        federation(bert, rounds=1).fit(tmp_path / "run")
    other = federation(bert, rounds=1, method=st.methods.FFALoRA(r=4), seed=1)
    with pytest.raises(ValueError, match=r"another federation: .*method.r \(2 -> 4\).*seed"):
        other.fit(tmp_path / "run", resume=True)
    fewer = {"east": tables()["east"][:5], "west": tables()["west"]}
    with pytest.raises(ValueError, match=r"^resume: east has other records than this run began"):
        federation(bert, rounds=1, clients=fewer).fit(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"no run is here"):
        federation(bert).fit(tmp_path / "none", resume=True)
    assert kept == {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}


def test_a_metric_or_a_label_that_is_not_there(bert, tmp_path):
    run = federation(bert, rounds=1).fit(tmp_path / "run")
    with pytest.raises(ValueError, match=r"plot: the run has no acuracy; it has accuracy, loss"):
        run.plot("acuracy")
    with pytest.raises(ValueError, match="text: column 'text' is not in the table"):
        run.evaluate([{"note": "cat", "label": "cat"}])
    good, bad = {"text": "cat", "label": "cat"}, {"text": "dog", "label": None}
    mixed = run.evaluate([bad, good, {"text": " ", "label": "dog"}])
    assert (mixed.metrics, mixed.scored.records) == (run.evaluate([good]).metrics, 1)
    assert mixed.notes == (
        "data: 2 records are empty or without a label, and left out of the table",
    )
    with pytest.raises(ValueError, match=r"^the table: no record can be scored"):
        run.evaluate([bad])
    assert classifier() == run.federation.terms.objective


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": "sites"}, "evaluation: must be one of simulation, site, public"),
        ({"lr_schedule": "step"}, "lr_schedule: must be one of constant, constant_with_warmup"),
        ({"weighting": "foo"}, "weighting: must be one of"),
        ({"dtype": "float16"}, "dtype: must be one of"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: must be one of"),
        ({"device": "tpu"}, "device: must be one of"),
        ({"runtime": "foo"}, "runtime: must be one of"),
        ({"workers": 0}, "workers: must be at least 1"),
        ({"crowd": 0}, "crowd: must be at least 1"),
        ({"crowd": 2.5}, "crowd: must be a whole number"),
        ({"round_deadline": -1.0}, "round_deadline: must be greater than 0"),
        ({"baselines": ("x",)}, "baselines: must be one of silo-alone"),
        ({"report_to": "tensorboard"}, "report_to: must be a list"),
        ({"splits": "train"}, r"splits: give silotune.Splits\(...\), not a str"),
        ({"rounds": "3"}, "rounds: must be a whole number"),
        ({"rounds": 2.5}, "rounds: must be a whole number"),
        ({"local_steps": 1.5}, "local_steps: must be a whole number"),
        ({"micro_batch_size": 2.5}, "micro_batch_size: must be a whole number"),
        ({"seed": None}, "seed: must be a whole number"),
        ({"method": "ffa-lora", "optimizer": None}, "method: give a method"),
        ({"server_optimizer": "adam"}, "server_optimizer: str lacks start"),
    ],
)
def test_a_value_of_the_wrong_kind(bert, changes, words):
    with pytest.raises(ValueError, match=words):
        federation(bert, **changes)


@pytest.mark.parametrize("lr", [-1.0, float("nan"), "x"])
def test_a_rate_that_is_none(lr):
    for kind in (st.optim.SGD, st.optim.AdamW):
        with pytest.raises(ValueError, match="lr: must be "):
            kind(lr=lr)


def test_an_objective_of_unknown_words():
    for changes in ({"pooling": "x"}, {"head": "x"}, {"head_init": "x"}):
        with pytest.raises(ValueError, match=f"{next(iter(changes))}: must be one of"):
            classifier(**changes)


class Own(st.SequenceClassification):
    """Somebody's own, with as few changes as each test needs."""


class HardExamples(Own):
    def losses(self, model, batch):
        losses = super().losses(model, batch)
        kept = losses >= losses.detach().topk(min(len(losses), 4)).values[-1]
        return losses * kept


class OneForAll(Own):
    def losses(self, model, batch):
        return super().losses(model, batch).mean()


class Unmeasured(Own):
    def measure(self, model, batch):
        found = super().measure(model, batch)
        return replace(found, totals={"other": found.totals["accuracy"]})


COLUMNS = {"text": "text", "label": "label", "labels": ("cat", "dog"), "max_length": 32}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (HardExamples, "the objective mixes the examples"),
        (OneForAll, r"objective: losses must be of shape \(8,\)"),
        (Unmeasured, "objective: measure of Unmeasured must give accuracy"),
    ],
)
def test_an_own_objective_that_cannot_be_trained_with(bert, place, kind, words):
    with pytest.raises(ValueError, match=words):
        federation(bert, objective=kind(**COLUMNS), **HIDDEN).fit(place)


def test_noisy_scores_are_for_measures_that_are_known_to_count_one_a_record(bert):
    hidden = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3, metric_noise=3.0)
    federation(bert, evaluation="site", privacy=hidden)
    with pytest.raises(ValueError, match="metric_noise: counts right answers, at most one a rec"):
        federation(bert, evaluation="site", privacy=hidden, objective=Own(**COLUMNS))


@pytest.mark.parametrize(
    ("kinds", "question"),
    [
        (["0.25", "0.5"], "holds numbers with fractions"),
        (["cat", "dog", "-1"], "has the label -1"),
        (["cat", "Cat", "dog"], "has labels that differ in case only"),
        ([f"kind {i}" for i in range(9)], "9 different values in 48 records"),
    ],
)
def test_questions_about_labels_are_asked_everywhere(bert, place, kinds, question):
    """Before the model is opened, and answered by one key."""
    given = tables()
    for rows in given.values():
        for i, row in enumerate(rows):
            row["label"] = kinds[i % len(kinds)]
    asked = federation(bert, clients=given, objective=classifier(labels=None))
    for ask in (asked.plan, asked.data, lambda: asked.fit(place), lambda: asked.fit(place)):
        with pytest.raises(ValueError, match=f"^labels: .*{question}"):
            ask()
    assert not place.exists()
    (data,) = (c for c in configuration(asked, place) if c.what == "data")
    assert not data.ok
    assert question in data.text


def test_label_maps_that_cannot_be_meant(bert):
    with pytest.raises(ValueError, match="label_map: 'wolf' is not in labels; it has: cat, dog"):
        federation(bert, label_map={"Wolf": "wolf"})
    with pytest.raises(ValueError, match="label_map: must be "):
        federation(bert, label_map={1: "cat"})
    with pytest.raises(ValueError, match="label_map: records without labels"):
        federation(bert, objective=st.CausalLM(text="text"), label_map={"x": None})


def test_pairs_that_are_larger_than_the_model(bert, place, monkeypatch):
    """Whoever offers such a run would otherwise take the memory of every site."""
    monkeypatch.setattr("silotune.terms.build.MOST_NUMBERS", 1_000)
    method = st.methods.MiLoRA(r=4_096, target_modules="all-linear")
    with pytest.raises(ValueError, match=r"r: pairs of rank 4,096 at .* lower r, or name fewer"):
        federation(bert, method=method).fit(place, progress=False)
