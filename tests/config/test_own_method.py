"""A method of the user's own, named in YAML by where its class is; and who may name one."""

import itertools
import sys

import pytest
import yaml

from silotune.config import ConfigError, differences, digest, dump, import_method, load_config
from silotune.methods import registry
from silotune.optim import AdamW

PLAIN = """\
model: {name_or_path: m, task: sequence-classification}
data: {path: hub/name, columns: {text: t, label: l}}
privacy: {unit: none}
"""
SOURCE = '''
"""A method of the clinic's own."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from silotune.core import Phase, RoundPlan, Role
from silotune.methods import About, Method
from silotune.schedules import Constant, Schedule

RAN = []
RAN.append(__name__)


@dataclass(frozen=True, kw_only=True)
class Slow(Method):
    """Slow LoRA (nobody): B alone."""

    name: ClassVar[str] = "slow"
    title: ClassVar[str] = "Slow LoRA"
    sentence: ClassVar[str] = "B is trained"
    made_of_adamw: ClassVar[bool] = True

    r: Annotated[int, Ge(1), About("Rank.")] = 3
    slowness: Annotated[int, Ge(1), About("What steps are divided by.")] = 2
    places: Annotated[tuple[str, ...] | None, About("Where.")] = None

    def schedule(self, *, head: bool) -> Schedule:
        roles = frozenset({Role.B, Role.HEAD} if head else {Role.B})
        return Constant(RoundPlan(phases=(Phase(roles=roles),), share=roles))


class Nothing:
    pass
'''
NUMBERS = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that no test has imported."""
    monkeypatch.setattr(registry, "_OWN", {})
    name = f"clinic_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def written(module, *keys):
    return PLAIN + f"method: {{name: '{module}:Slow'{''.join(f', {key}' for key in keys)}}}\n"


def test_a_class_that_the_users_file_names_is_the_method(load, module):
    config = load(written(module, "slowness: 5", "places: [a, b]", "lora_alpha: 6"))
    method = config.method.build()
    assert (method.title, method.slowness, method.places) == ("Slow LoRA", 5, ("a", "b"))
    assert (method.r, method.lora_alpha) == (3, 6)
    assert config.method.title == f"{module}:Slow"
    assert isinstance(config.train.build_optimizer(type(method)), AdamW)
    assert config.train.optimizer == "adamw"


def test_so_is_one_that_an_override_names(load, module):
    method = load(PLAIN, f"method.name={module}:Slow", "method.slowness=7").method.build()
    assert method.slowness == 7
    whole = load(PLAIN, f"method={{name: '{module}:Slow', slowness: 8}}").method.build()
    assert whole.slowness == 8


def test_what_was_resolved_loads_again_and_its_options_count(load, module):
    config = load(written(module, "slowness: 5"))
    keys = yaml.safe_load(dump(config))["method"]
    assert (keys["name"], keys["slowness"], keys["places"]) == (f"{module}:Slow", 5, None)
    assert load(dump(config)) == config
    other = load(written(module, "slowness: 6"))
    assert digest(config) != digest(other)
    assert differences(config, other) == ["method.slowness (5 -> 6)"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["slowness: 0"], "method.slowness: must be at least 1, not 0"),
        (["slowness: fast"], 'method.slowness: must be a whole number or null, not "fast"'),
        (["slownes: 3"], "method.slownes: unknown key; did you mean method.slowness?"),
        (["residual_rank: 3"], "method.residual_rank: belongs to fedex-lora; leave it out with"),
        (["r: 0"], "method.r: must be at least 1"),
    ],
)
def test_its_options_are_checked_like_ours(wrong, module, keys, words):
    (problem,) = wrong(written(module, *keys))
    assert problem.startswith("c.yaml:4: ")
    assert words in problem


def test_all_problems_are_told_at_once(wrong, module):
    problems = wrong(written(module, "slowness: 0", "slownes: 3", "r: 0"), "train.seed=-1")
    assert len(problems) == 4


def test_an_option_of_it_belongs_to_nobody_else(wrong, load, module):
    load(written(module))
    (problem,) = wrong(PLAIN, "method.name=fedit", "method.slowness=3")
    assert f"method.slowness: belongs to {module}:Slow; leave it out with fedit" in problem


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module:Slow", "there is no module no_such_module to import Slow from"),
        ("MODULE:Slwo", "has no class Slwo; did you mean Slow?"),
        ("MODULE:Nothing", "is no class that inherits from silotune.methods.Method"),
        ("MODULE:", "should say where a class is"),
        (":Slow", "should say where a class is"),
    ],
)
def test_what_cannot_be_imported_is_told_in_words(wrong, module, path, words):
    name = path.replace("MODULE", module)
    (problem,) = wrong(PLAIN + f"method: {{name: '{name}', r: 2, slowness: 3, damping: 1}}\n")
    assert problem.startswith("c.yaml:4: method.name: ")
    assert words in problem


def test_the_folder_of_a_run_brings_in_no_code(tmp_path, module):
    """Whoever gives somebody a folder would run what they like there."""
    file = tmp_path / "config.yaml"
    file.write_text(written(module, "slowness: 5"))
    with pytest.raises(ConfigError, match=f"silotune --method-class {module}:Slow"):
        load_config(file, of_run=True)
    assert module not in sys.modules
    with pytest.raises(ConfigError):
        load_config(file, ["train.seed=1"], of_run=True)
    assert module not in sys.modules
    import_method(f"{module}:Slow")
    assert load_config(file, of_run=True).method.build().slowness == 5


def test_unless_the_user_says_its_name(tmp_path, module):
    file = tmp_path / "config.yaml"
    file.write_text(written(module))
    config = load_config(file, [f"method.name={module}:Slow"], of_run=True)
    assert config.method.build().title == "Slow LoRA"


def test_a_rules_own_options_are_written_out_with_it(load):
    config = load(PLAIN, "method={name: fedit, aggregation: fedex-lora, residual_rank: 3}")
    assert yaml.safe_load(dump(config))["method"]["residual_rank"] == 3
    assert load(dump(config)) == config
