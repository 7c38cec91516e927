import pytest

from silotune.config import Config, notices

TEXT = """\
model: {name_or_path: m, task: sequence-classification}
data: {path: hub/name, columns: {text: t, label: l}}
privacy: {target_epsilon: 6}
"""
CAUSAL = """\
model: {name_or_path: m, task: causal-lm}
data: {path: hub/name, columns: {text: t}}
privacy: {target_epsilon: 6}
"""
IMAGE = """\
model: {name_or_path: m, task: image-classification}
data: {path: hub/name, columns: {image: i, label: l}}
privacy: {target_epsilon: 6}
"""
PAIRS = """\
model: {name_or_path: m, task: text-embedding}
data: {path: hub/name, columns: {text: t, text_pair: u, label: l}}
targets: {score_range: [0, 5]}
privacy: {target_epsilon: 6}
"""
MEAN = "model.pooling=mean"
PROTOTYPES = "model.head_init=label-prototypes"
DESCRIBED = "data.labels={0: bad, 1: good}"

TRUNCATED = ["privacy.sampling=truncated-poisson", "privacy.relation=zero-out"]
CLIENT = ["privacy.unit=client", "train.weighting=uniform"]
RATE = "privacy.client_sampling_rate"
TURNS = [*CLIENT, "privacy.sampling=rotation", "privacy.noise=correlated"]

BAD = [  # (file, overrides, the key named, a part of the fix)
    (TEXT, ["privacy.target_epsilon=null"], "privacy.target_epsilon", "needed for privacy.unit"),
    (
        TEXT,
        ["privacy={target_epsilon: 6, noise_multiplier: 1}"],
        "privacy.target_epsilon",
        "set the other to null",
    ),
    *(
        (TEXT, [f"privacy={{unit: none, {key}: 1}}"], f"privacy.{key}", "set it to null")
        for key in ("target_epsilon", "noise_multiplier")
    ),
    (TEXT, ["data.num_examples=900", "target_delta=0.01"], "privacy.target_delta", "0.0011"),
    (
        TEXT,
        ["data.num_examples={a: 900, b: 200}", "target_delta=0.005"],
        "privacy.target_delta",
        "0.0011 of silo a",
    ),
    (TEXT, ["data.num_examples=100"], "train.batch_size", "at most data.num_examples = 100"),
    (TEXT, ["data.num_examples=100"], "train.batch_size", "not 128; lower it (128 by default)"),
    (TEXT, ["data.num_examples={a: 900, b: 100}"], "train.batch_size", "100 of silo b"),
    (TEXT, ["data.num_examples={}"], "data.num_examples", "fill it or write null"),
    (TEXT, ["method.name=head-only", "model.head=frozen"], "model.head", "must be trained"),
    (CAUSAL, ["method.name=head-only"], "method.name", "use ffa-lora"),
    (TEXT, [PROTOTYPES, DESCRIBED], "model.head_init", "needs model.pooling: mean"),
    (TEXT, [PROTOTYPES, MEAN], "data.labels", "label: description"),
    (IMAGE, [PROTOTYPES, DESCRIBED], "model.head_init", "use random"),
    (IMAGE, [MEAN], "model.pooling", "use model"),
    (TEXT, ["model.pooling=cls"], "model.pooling", "is for task: text-embedding; use model"),
    (PAIRS, ["model.head=trained"], "model.head", "leave this key out"),
    (PAIRS, ["targets={}"], "targets.score_range", "declare it in public"),
    (PAIRS, ["data.columns.label=null"], "data.columns.label", "depends on others"),
    (PAIRS, ["targets.loss=contrastive"], "targets.loss", "moves more than the one gradient"),
    (PAIRS, ["targets.threshold=0.5"], "targets.threshold", "leave this key out"),
    (PAIRS, ["data.labels=[a, b]"], "data.labels", "leave this key out"),
    (PAIRS, ["method.name=head-only"], "method.name", "use ffa-lora"),
    (CAUSAL, ["model.head=trained"], "model.head", "leave this key out"),
    (CAUSAL, ["model.head_init=random"], "model.head_init", "leave this key out"),
    (CAUSAL, ["model.head_scale=1.0"], "model.head_scale", "leave this key out"),
    (CAUSAL, ["model.pooling=model"], "model.pooling", "leave this key out"),
    (CAUSAL, ["data.labels=[a, b]"], "data.labels", "leave this key out"),
    (CAUSAL, ["data.silos={num: 3, split: dirichlet}"], "data.silos.split", "iid or quantity"),
    (CAUSAL, ["data.columns={}"], "data.columns", "{text: ...}"),
    (CAUSAL, ["data.columns={prompt: p}"], "data.columns", "not prompt"),
    (CAUSAL, ["data.columns={text: t, messages: m}"], "data.columns", "not text and messages"),
    (TEXT, ["data.columns={text: t}"], "data.columns.label", "name that column"),
    (TEXT, ["data.columns={label: t}"], "data.columns.text", "name that column"),
    (TEXT, ["data.columns.prompt=p"], "data.columns.prompt", "leave this key out"),
    (IMAGE, ["data.columns.text=t"], "data.columns.text", "leave this key out"),
    (IMAGE, ["data.columns.image=null"], "data.columns.image", "name that column"),
    (TEXT, ["data.silos={by: c, num: 3}"], "data.silos", "not both"),
    (TEXT, ["data.silos={by: c, split: iid}"], "data.silos.split", "leave this key out"),
    (TEXT, ["data.silos={alpha: 0.1}"], "data.silos.alpha", "give num"),
    (TEXT, ["data.path=a/b.csv"], "data.silos", "{by: <column>}"),
    (TEXT, ["data.path=a/b.jsonl.gz"], "data.silos", "{num: 3}"),
    (TEXT, ["data.labels=[a, b, a]"], "data.labels", "a stands there twice"),
    (TEXT, ["data.labels=[a]"], "data.labels", "two labels"),
    (TEXT, ["method.target_modules=[]"], "method.target_modules", "write null"),
    (TEXT, ["layers=[]"], "method.layers_to_transform", "write null"),
    (TEXT, ["method.target_parameters=[]"], "method.target_parameters", "write null"),
    (TEXT, ["train.optimizer=adamw", "momentum=0.9"], "train.momentum", "leave it out"),
    (TEXT, ["data.silos.num=3", "min_clients=4"], "train.min_clients", "data.silos.num = 3"),
    (TEXT, ["evaluation=site", "baselines=[silo-alone]"], "baselines", "leave baselines out"),
    (TEXT, ["runtime=pool", "crowd=4"], "crowd", "set it to 1"),
    (TEXT, ["privacy.noise=correlated"], "privacy.noise", "rotation"),
    (TEXT, ["privacy.sampling=rotation"], "privacy.noise", "belongs to"),
    (TEXT, ["privacy.sampling=truncated-poisson"], "privacy.relation", "zero-out alone"),
    (TEXT, [*TRUNCATED, "max_batch_size=100"], "privacy.max_batch_size", "batch_size = 128"),
    (TEXT, ["max_batch_size=500"], "privacy.max_batch_size", "leave it out"),
    (TEXT, ["privacy.bands=3"], "privacy.bands", "leave it out"),
    (TEXT, ["privacy.max_update_norm=2"], "privacy.max_update_norm", "privacy.unit: client"),
    (TEXT, [f"{RATE}=0.5"], RATE, "privacy.unit: client"),
    (TEXT, [*CLIENT, "privacy.noise=discrete"], "privacy.noise", "is for hiding single records"),
    (TEXT, [*CLIENT, "privacy.sampling=truncated-poisson"], "privacy.sampling", "use poisson"),
    (TEXT, [*CLIENT, "max_batch_size=500"], "privacy.max_batch_size", "privacy.unit: example"),
    (TEXT, [*CLIENT, "privacy.noise=correlated"], "privacy.noise", "sampling: rotation"),
    (TEXT, [*CLIENT, "privacy.sampling=rotation"], "privacy.noise", "belongs to"),
    (TEXT, [*CLIENT, "privacy.bands=3"], "privacy.bands", "noise: correlated"),
    (TEXT, [*TURNS, "adaptive_clipping=true"], "privacy.adaptive_clipping", "set it to false"),
    (TEXT, [*TURNS, f"{RATE}=0.4"], RATE, "set it to 0.5"),
    (TEXT, [*TURNS, f"{RATE}=0.7"], RATE, "set it to 1"),
    (TEXT, [*TURNS, "privacy.relation=replace-one"], "privacy.relation", "choose one"),
    (TEXT, [*CLIENT, "privacy.relation=replace-one"], "privacy.relation", "choose one"),
    (TEXT, [*CLIENT, "min_clients=2"], "train.min_clients", "leave it out"),
    (TEXT, ["privacy.unit=client"], "train.weighting", "must be uniform"),
    (TEXT, ["lora_dropout=0.1"], "method.lora_dropout", "must be 0 for privacy.unit: example"),
]


@pytest.mark.parametrize(("text", "overrides", "key", "fix"), BAD)
def test_bad_combination(wrong, text, overrides, key, fix):
    problems = wrong(text, *overrides)
    assert len(problems) == 1
    assert f": {key}: " in problems[0]
    assert fix in problems[0]


SITES = ["federation={sites: [a, b], kit: north}", "runtime=folder", "evaluation=site"]


def test_a_path_where_sites_have_the_records_is_one_problem(wrong):
    [problem] = wrong(TEXT, *SITES, "data.path=notes.csv")
    assert ": data.path: is of a site's own records" in problem


GOOD = [
    (TEXT, []),
    (CAUSAL, []),
    (IMAGE, []),
    (PAIRS, []),
    (PAIRS, ["model.pooling=last", "targets.loss=huber", "targets.cosine_range=[-1, 1]"]),
    (TEXT, ["privacy={unit: none}"]),
    (TEXT, ["privacy={noise_multiplier: 0.5}"]),
    (TEXT, ["train.per_device_train_batch_size=1000"]),
    (TEXT, ["data.path=demo:triage"]),
    (TEXT, ["data.silos.by=clinic"]),
    (TEXT, ["data.silos={num: 3, split: dirichlet, alpha: 0.1}"]),
    (TEXT, ["data.columns.text_pair=p"]),
    (TEXT, ["method.name=head-only"]),
    (TEXT, ["data.num_examples={a: 900, b: 200}"]),
    (TEXT, ["privacy={unit: none}", "data.num_examples=900", "target_delta=0.5"]),
    (TEXT, [PROTOTYPES, MEAN, DESCRIBED]),
    (TEXT, [PROTOTYPES, MEAN, "data.labels=[bad, good]"]),
    (TEXT, ["baselines=[silo-alone]"]),
    (IMAGE, ["model.head_init=checkpoint"]),
    (CAUSAL, ["data.columns={prompt: p, completion: c}"]),
    (CAUSAL, ["data.columns={messages: m}"]),
    (CAUSAL, ["data.silos={num: 3, split: quantity}"]),
    (TEXT, [*TRUNCATED, "max_batch_size=400"]),
    (TEXT, ["privacy.sampling=rotation", "privacy.noise=correlated", "privacy.bands=4"]),
    (TEXT, ["privacy.sampling=rotation", "privacy.noise=correlated"]),
    (TEXT, ["privacy.noise=discrete", "privacy.relation=zero-out"]),
    (TEXT, ["privacy.noise=discrete", "privacy.relation=replace-one"]),
    (TEXT, [*TRUNCATED, "privacy.noise=discrete"]),
    (TEXT, ["privacy.relation=replace-one"]),
    (TEXT, [*CLIENT, "privacy.adaptive_clipping=true", f"{RATE}=0.5"]),
    (TEXT, TURNS),
    (TEXT, [*TURNS, f"{RATE}=0.333", "privacy.bands=4"]),
    (TEXT, [*TURNS, f"{RATE}=0.01", "privacy.relation=zero-out"]),
]


@pytest.mark.parametrize(("text", "overrides"), GOOD)
def test_good_combination(load, text, overrides):
    assert isinstance(load(text, *overrides), Config)


def test_notices_name_what_the_data_decides(load):
    undeclared = list(notices(load(TEXT)))
    assert [line.split(":")[0] for line in undeclared] == [
        "data.labels",
        "data.num_examples",
        "evaluation",
    ]
    declared = ["data.labels=[a, b]", "data.num_examples=900", "evaluation=public"]
    assert list(notices(load(TEXT, *declared))) == []


def test_no_notices_without_privacy_or_labels(load):
    assert list(notices(load(TEXT, "privacy={unit: none}"))) == []
    assert not any("labels" in line for line in notices(load(CAUSAL)))
