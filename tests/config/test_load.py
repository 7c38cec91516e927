import pytest

from silotune.config import ConfigError, load_config

HEAD = """\
model: {name_or_path: m, task: sequence-classification}
data: {path: hub/name, columns: {text: t, label: l}}
privacy: {target_epsilon: 6}
"""


def test_a_file(good):
    config = load_config(good)
    assert config.model.name_or_path == "some/model"
    assert config.data.columns.label == "department"
    assert config.privacy.target_epsilon == 6.0
    assert config.output_dir == "runs/small"


def test_the_folder_can_be_chosen(good):
    assert load_config(good, ["output_dir=elsewhere"]).output_dir == "elsewhere"


def test_overrides_alone():
    overrides = [
        "model={name_or_path: m, task: causal-lm}",
        "data={path: hub/name, columns: {text: t}}",
        "privacy.unit=none",
    ]
    assert load_config(None, overrides).output_dir == "runs/run"


BAD_VALUES = [  # (line to add, what is said about it)
    ("privacy.target_epsilon: 0", "must be greater than 0, not 0"),
    ("privacy.target_epsilon: -1.5", "must be greater than 0, not -1.5"),
    ("privacy.target_epsilon: six", 'must be a number or null, not "six"'),
    ("privacy.target_epsilon: true", "must be a number or null, not true"),
    ("privacy.target_epsilon: .inf", "must be a finite number"),
    ("privacy.target_epsilon: .nan", "must be a finite number"),
    ("privacy.noise_multiplier: 0", "must be greater than 0"),
    ("privacy.target_delta: 0", "must be greater than 0"),
    ("privacy.target_delta: 1", "must be below 1, not 1; for example 1e-5"),
    ("privacy.max_grad_norm: 0", "must be greater than 0"),
    ("privacy.relation: replace", "must be one of add-remove, zero-out, replace-one"),
    ("privacy.reserve_rounds: -1", "must be at least 0"),
    ("privacy.unit: exmaple", "did you mean example?"),
    ("method.r: 0", "must be at least 1, not 0"),
    ("method.r: 8.0", "must be a whole number, not 8.0"),
    ("method.r: true", "must be a whole number, not true"),
    ("method.r:", "must be a whole number, not null"),
    ("method.lora_dropout: 1.0", "must be below 1, not 1.0"),
    ("method.lora_dropout: -0.1", "must be at least 0"),
    ("method.lora_alpha: 0", "must be greater than 0"),
    ("method.name: ffalora", "must be one of head-only, fedit, ffa-lora"),
    ("method.name: ffalora", "did you mean ffa-lora?"),
    ("method.target_modules: 3", "must be text or a list of texts or null, not 3"),
    ("method.target_modules: ['']", "must not be empty"),
    ("method.layers_to_transform: 3", "must be a list of whole numbers or null, not 3"),
    ("method.layers_to_transform: [-1]", "must be at least 0, not -1"),
    ("method.layers_to_transform: [true]", "must be a list of whole numbers"),
    ("method.use_rslora: yes", 'must be true or false, not "yes"'),
    ("train.learning_rate: 0", "must be greater than 0"),
    ("train.num_rounds: 0", "must be at least 1"),
    ("train.num_rounds: ten", 'must be a whole number, not "ten"'),
    ("train.batch_size: 1_000", 'must be a whole number, not "1_000"'),
    ("train.momentum: 1", "must be below 1"),
    ("train.seed: -1", "must be at least 0"),
    ("train.round_deadline: 0", "must be greater than 0"),
    ("train.optimizer: adam", "did you mean adamw?"),
    ("data.max_length: 0", "must be at least 1"),
    ("data.valid_fraction: 1", "must be below 1"),
    ("data.limit: 0", "must be at least 1"),
    ("data.silos.num: 0", "must be at least 1"),
    ("data.silos.alpha: 0", "must be greater than 0"),
    ("data.num_examples: {a: 0}", "must be at least 1, not 0"),
    ("data.num_examples: {a: many}", "a mapping of text to a whole number"),
    ("data.labels: [true, false]", "must be a list of texts or a mapping"),
    ("data.labels: good", "must be a list of texts or a mapping"),
    ("report_to: tensorboard", "write [tensorboard]"),
    ("report_to: [comet]", "must be a list of one of tensorboard, mlflow, wandb, trackio"),
    ("output_dir: ''", "must not be empty"),
    ("output_dir: 2026", "must be text, not 2026"),
    ("workers: 0", "must be at least 1"),
    ("evaluation: simulate", "did you mean simulation?"),
]


@pytest.mark.parametrize(("line", "said"), BAD_VALUES)
def test_bad_value_names_line_key_and_fix(wrong, line, said):
    key = line.split(":")[0]
    text = HEAD.replace("privacy: {target_epsilon: 6}\n", "")
    text += "" if key.startswith("privacy") else "privacy.target_epsilon: 6\n"
    problems = wrong(f"{text}{line}\n")
    assert len(problems) == 1
    assert problems[0].startswith(f"c.yaml:{text.count(chr(10)) + 1}: {key}: ")
    assert said in problems[0]


@pytest.mark.parametrize(
    ("key", "example"),
    [
        ("model.name_or_path", "MiniLM"),
        ("model.task", "sequence-classification"),
        ("data.path", "demo:triage"),
    ],
)
def test_missing_key(wrong, good, key, example):
    _section, leaf = key.split(".")
    lines = [line for line in good.read_text().splitlines() if not line.startswith(f"  {leaf}:")]
    problems = wrong("\n".join(lines))
    assert len(problems) == 1
    assert f"{key}: is missing; set it; for example" in problems[0]
    assert example in problems[0]


def test_missing_sections(wrong):
    problems = wrong("train: {seed: 1}\n")
    assert [p.split(": ")[1] for p in problems] == [
        "model.name_or_path",
        "model.task",
        "data.path",
        "privacy.target_epsilon",
    ]


def test_all_problems_are_told_together(wrong):
    text = """\
model: {name_or_path: m, task: sequence-classification, poling: mean}
data:
  path: data.csv
  columns: {text: t}
  max_length: none
privacy: {target_epsilon: -6}
train: {num_rounds: 0, optimizer: adamw, momentum: 0.9}
evaluation: site
baselines: [silo-alone]
"""
    keys = [p.split(": ")[1] for p in wrong(text, "train.local_steps", "train.batch_size=0")]
    assert sorted(keys) == sorted(
        [
            "model.poling",
            "data.max_length",
            "data.silos",
            "data.columns.label",
            "privacy.target_epsilon",
            "train.num_rounds",
            "train.batch_size",
            "baselines",
            "write key=value, such as train.num_rounds=3",
        ]
    )


def test_a_broken_key_does_not_blame_its_neighbours(wrong):
    problems = wrong(HEAD, "privacy={noise_multiplier: much}")
    assert len(problems) == 1
    assert "privacy.noise_multiplier: must be a number" in problems[0]


def test_unknown_key_suggests_a_home_key(wrong):
    assert wrong(HEAD + "train: {num_round: 3}\n") == [
        "c.yaml:4: train.num_round: unknown key; did you mean train.num_rounds?"
    ]


def test_keys_that_are_not_text(wrong):
    problems = wrong(HEAD + "1: x\nnull: y\n")
    assert len(problems) == 2
    assert "c.yaml:4: 1: unknown key" in problems[0]


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("num_server_rounds: 3", "num_rounds", 3),
        ("train: {num_server_rounds: 3}", "num_rounds", 3),
        ("num_rounds: 3", "num_rounds", 3),
        ("train.num_rounds: 3", "num_rounds", 3),
        ("seed: 7", "seed", 7),
        ("learning_rate: 2", "learning_rate", 2.0),
    ],
)
def test_aliases_and_flat_names_in_a_file(load, line, key, value):
    assert getattr(load(f"{HEAD}{line}\n").train, key) == value


def test_aliases_of_every_section(load):
    config = load(
        "model_name_or_path: m\ntask: causal-lm\ndata: {path: p, columns: {text: t}}\n"
        "per_sample_max_grad_norm: 2\nnoise_multiplier: 1\n"
        "lora_r: 4\nlora_target_modules: all-linear\nlayers: [1]\nlora_alpha: 16\n"
    )
    assert config.model.name_or_path == "m"
    assert config.privacy.max_grad_norm == 2.0
    assert config.method.given("r") == 4
    assert config.method.given("target_modules") == "all-linear"
    assert config.method.given("layers_to_transform") == (1,)


def test_flat_name_with_two_homes(wrong):
    (problem,) = wrong(HEAD + "name: x\n")
    assert "write data.name or method.name" in problem


@pytest.mark.parametrize("other", ["num_server_rounds: 4", "num_rounds: 4", "train.num_rounds: 4"])
def test_key_given_twice_by_two_names(wrong, other):
    (problem,) = wrong(f"{HEAD}train: {{num_rounds: 3}}\n{other}\n")
    assert problem.startswith("c.yaml:5: train.num_rounds: is given twice, as train.num_rounds (")
    assert problem.endswith(f"c.yaml:4) and as {other.split(':')[0]}; keep one")


def test_key_twice(wrong):
    (problem,) = wrong(HEAD + "train:\n  seed: 1\n  seed: 2\n")
    assert problem.startswith("c.yaml:6: not valid YAML: the key seed stands there twice")


def test_empty_section_is_defaults(load):
    assert load(HEAD + "train:\n  # seed: 1\nmethod:\n").train.seed == 0


def test_section_that_is_no_mapping(wrong):
    (problem,) = wrong(HEAD + "method: fedit\n")
    assert problem.startswith("c.yaml:4: method: is a section")


@pytest.mark.parametrize("text", ["", "# nothing\n", "just text\n", "[1, 2]\n", "3\n"])
def test_not_a_mapping(wrong, text):
    (problem,) = wrong(text)
    assert problem.startswith("c.yaml: must hold `key: value` pairs")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1\nb: 2\n", 2),
        ("a:\n\t- b\n", 2),
        ("a: b: c\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: !!python/object/apply:os.getcwd []\n", 1),
        ("a: *b\n", 1),
        ("? [a]\n: b\n", 1),
    ],
)
def test_bad_yaml_names_file_and_line(wrong, text, line):
    (problem,) = wrong(text)
    assert problem.startswith(f"c.yaml:{line}: not valid YAML: ")
    assert problem.endswith("check indentation, colons and quotes there")


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file; `silotune init`"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(binary)
    binary.write_bytes(b"a: \x01\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(binary)


def test_byte_order_mark(good):
    good.write_bytes(b"\xef\xbb\xbf" + good.read_bytes())
    assert load_config(good).model.name_or_path == "some/model"


def test_labels_keep_their_order_and_become_text(load):
    config = load(HEAD + "data.labels: {1: good, 0: bad, 010: odd, yes: no}\n")
    assert isinstance(config.data.labels, dict)
    assert list(config.data.labels.items()) == [
        ("1", "good"),
        ("0", "bad"),
        ("010", "odd"),
        ("yes", "no"),
    ]
