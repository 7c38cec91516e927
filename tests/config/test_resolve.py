import yaml
from hypothesis import given
from hypothesis import strategies as st

from covering import examples
from silotune.config import differences, digest, dump, load_config
from silotune.config.schema import ENVIRONMENT, LEAVES

BASE = [
    "model={name_or_path: m, task: sequence-classification}",
    "data={path: hub/name, columns: {text: t, label: l}}",
    "privacy.target_epsilon=6",
]
PAIRS = [
    "model={name_or_path: m, task: text-embedding, pooling: cls}",
    "data.columns={text: t, text_pair: u, label: l}",
    "targets={score_range: [0, 5], loss: huber}",
]
CAUSAL = ["model={name_or_path: m, task: causal-lm}", "data.columns={prompt: p, completion: c}"]


def again(config, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(dump(config), encoding="utf-8")
    return load_config(path)


def test_round_trip(tmp_path):
    variants = [
        [],
        CAUSAL,
        ["data.silos.by=clinic"],
        ["data.silos={num: 3, split: dirichlet, alpha: 0.1}"],
        ["data.labels={b: 'yes', a: '1e-5'}", "data.num_examples={x: 200, a: 900}"],
        ["layers=[3, 4]", "target_modules=[q, v]", "report_to=[tensorboard]"],
        ["privacy={unit: none}", "baselines=[silo-alone]"],
        PAIRS,
    ]
    for overrides in variants:
        config = load_config(None, [*BASE, *overrides])
        loaded = again(config, tmp_path)
        assert loaded == config
        assert dump(loaded) == dump(config)
        assert digest(loaded) == digest(config)


AWKWARD = st.text(min_size=1) | st.sampled_from(
    ["yes", "no", "on", "null", "~", "1e-5", "010", "0x1F", "1_000", "2026-01-01", "12:30", "=",
     "<<", "a: b", "# c", " x ", "1.", ".5", "-", "true", "!!int 3", "\x85", "\ufeff", "a\r\nb"]
)  # fmt: skip


@examples(40, 150)
@given(st.lists(AWKWARD, min_size=2, unique=True), AWKWARD, st.floats(1e-10, 0.99))
def test_any_text_and_number_survives(tmp_path_factory, labels, name, delta):
    config = load_config(None, BASE)
    data = config.data.model_copy(update={"labels": dict.fromkeys(labels, name), "path": name})
    privacy = config.privacy.model_copy(update={"target_delta": delta})
    config = config.model_copy(update={"data": data, "privacy": privacy})
    path = tmp_path_factory.mktemp("c") / "c.yaml"
    path.write_bytes(dump(config).encode())
    loaded = load_config(path, ["data.silos={by: c}"])
    assert loaded.data.labels == config.data.labels
    assert loaded.data.path == name
    assert loaded.privacy.target_delta == delta


def test_dump_has_home_names_in_order_and_leaves_out_what_does_not_apply():
    values = yaml.safe_load(dump(load_config(None, [*BASE, "num_server_rounds=3"])))
    assert list(values)[:5] == ["model", "data", "method", "privacy", "train"]
    assert values["train"]["num_rounds"] == 3
    assert values["data"]["columns"] == {"text": "t", "label": "l"}
    assert values["data"]["silos"] == {"by": None, "num": None}
    causal = yaml.safe_load(dump(load_config(None, [*BASE, *CAUSAL])))
    assert "head" not in causal["model"]


def test_digest_is_pinned():
    """Changing this strands every checkpoint: do it knowingly."""
    config = load_config(None, BASE)
    assert len(digest(config)) == 64
    assert digest(config) == digest(load_config(None, [*BASE, "train.num_rounds=20"]))


CHANGES = {
    "runtime": "pool",
    "workers": "3",
    "crowd": "2",
    "output_dir": "x",
    "report_to": "[tensorboard]",
    "baselines": "[silo-alone]",
    "federation.kit": "x",
    "federation.folder": "x",
    "federation.offer_deadline": "9",
    "train.device": "cpu",
    "train.threads": "1",
    "train.round_deadline": "1",
    "train.wait_after_quorum": "1",
    "train.per_device_eval_batch_size": "1",
    "train.prefix_cache": "disk",
    "train.eval_every": "2",
    "privacy.lifetime.max_epsilon": "9",
    "privacy.lifetime.max_delta": "1e-6",
    "privacy.lifetime.folder": "y",
    "privacy.lifetime.record": "false",
    "train.num_rounds": "21",
    "train.seed": "1",
    "train.batch_size": "64",
    "train.per_device_train_batch_size": "8",
    "privacy.target_epsilon": "1",
    "data.path": "y",
    "data.labels": "[a, b]",
    "data.columns.text": "y",
    "data.num_examples": "900",
    "method.name": "fedit",
    "evaluation": "site",
}


def test_only_what_determines_the_result_counts():
    rate = "train.learning_rate=1"  # or it goes by the method
    base = load_config(None, [*BASE, rate])
    for key, value in CHANGES.items():
        other = load_config(None, [*BASE, rate, f"{key}={value}"])
        assert (digest(base) == digest(other)) is (key in ENVIRONMENT), key
        named = [line.split(" ")[0] for line in differences(base, other)]
        assert named == ([] if key in ENVIRONMENT else [key])
    assert set(CHANGES) >= ENVIRONMENT


def test_differences_show_both_values():
    old = load_config(None, BASE)
    new = load_config(None, [*BASE, "seed=3", "data.path=x"])
    assert differences(old, new) == ['data.path ("hub/name" -> "x")', "train.seed (0 -> 3)"]


def test_order_of_labels_matters_and_order_of_sizes_does_not():
    def with_data(text):
        return load_config(None, [*BASE, text])

    assert differences(with_data("data.labels={a: x, b: y}"), with_data("data.labels={b: y, a: x}"))
    sizes = with_data("data.num_examples={a: 200, b: 300}")
    assert digest(sizes) == digest(with_data("data.num_examples={b: 300, a: 200}"))


def test_every_key_is_compared_or_environment():
    keys = yaml.safe_load(dump(load_config(None, BASE)))
    assert set(keys) == {key.split(".")[0] for key in LEAVES} - {"targets"}, "options of a task"
