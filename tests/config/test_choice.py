"""The chosen method: its options reach it, and what it cannot do is refused in words."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
import yaml

from silotune.aggregation import FairCosine, FairRidge, Fold, Mean
from silotune.aggregation.fedex_lora import Residual
from silotune.aggregation.fedopt import ServerAdam, ServerMomentum, ServerYogi
from silotune.aggregation.fedsvd import Refactor
from silotune.aggregation.flexlora import Truncate
from silotune.config import Config, build, dump, load_config, notices
from silotune.config.method_section import read_section
from silotune.config.schema import LEAVES
from silotune.config.sections import TrainConfig
from silotune.core import Key, Role
from silotune.engine.experiment import LARGEST_UPDATE
from silotune.methods import (
    FedFTG,
    FedIT,
    FFALoRA,
    IncompatibleMethodError,
    LALoRA,
    LoRARITE,
    built_in,
)
from silotune.methods.axes import completed, refuse_unproved
from silotune.methods.options import own_options
from silotune.methods.rates import usual_rate
from silotune.methods.registry import takers
from silotune.optim import SGD, AdamW, FedProxConfig, GaLoreConfig, LowPassConfig
from silotune.schedules import Chain, Constant


def at_work(method, train: TrainConfig):
    """The axes that the sections come to, with a head that moves."""
    axes = method.axes(train.build_optimizer(type(method)), head=True)
    return completed(axes, train.proximal_mu, train.build_server_optimizer())


PLAIN = """\
model: {name_or_path: m, task: sequence-classification}
data: {path: hub/name, columns: {text: t, label: l}}
privacy: {unit: none}
"""
OPTIONS = {o: takers(o) for m in built_in().values() for o in own_options(m)}
PRIVATE = ["privacy={unit: example, target_epsilon: 6}"]
HIDDEN = ["privacy={unit: client, target_epsilon: 6}", "train.weighting=uniform"]
CORRELATED = ["privacy.noise=correlated", "privacy.sampling=rotation"]

REFUSED = [  # (overrides, the key named, a part of the reason)
    (["method={name: mole}"], "method.experts", "two of their folders or more"),
    (["method={name: mole, experts: [a, a]}"], "method.experts", "listed twice"),
    (
        ["method={name: mole, experts: [a, b], masked_experts: [c]}"],
        "method.masked_experts",
        "c is not among method.experts",
    ),
    (
        ["method={name: mole, experts: [a, b], masked_experts: [b, a]}"],
        "method.masked_experts",
        "one expert at least must be left",
    ),
    (
        ["method={name: mole, experts: [a, b], lora_dropout: 0.1}"],
        "method.name",
        "set method.lora_dropout to 0",
    ),
    (["method={name: fedftg}", *PRIVATE], "method.name", "use fedftg-seeded"),
    (["method={name: fedsa-lora}", *HIDDEN], "method.name", "use privacy.unit: example"),
    (["method={name: rolora}", *HIDDEN, *CORRELATED], "privacy.noise", "use gaussian"),
    (["method={name: rolora}", *PRIVATE, *CORRELATED], "privacy.noise", "use gaussian"),
    (["method={name: la-lora}", *PRIVATE, *CORRELATED], "privacy.noise", "use gaussian"),
    (["method={name: xgblora}", *PRIVATE, *CORRELATED], "privacy.noise", "use gaussian"),
    (["method={name: xgblora}", *HIDDEN, *CORRELATED], "privacy.noise", "use gaussian"),
    (["method={name: cola, init_lora_weights: svd}"], "method.name", "kaiming or orthonormal"),
    (["method={name: rac-lora}", "server_optimizer=adam"], "train.server_optimizer", "use none"),
    (["method={name: la-lora}", "local_steps=1"], "train.local_steps", "at least 2"),
    (["method={name: fedftg}", "optimizer=sgd"], "train.optimizer", "must be adamw"),
    (["method={name: lora-rite}", "optimizer=sgd"], "train.optimizer", "must be adamw"),
    (["method={name: alt-lora}", "local_steps=1"], "train.local_steps", "at least 2"),
    (["method={name: alt-lora}", *PRIVATE, *CORRELATED], "privacy.noise", "use gaussian"),
    (["method={name: fedftg}", "momentum=0.9"], "train.momentum", "belongs to optimizer: sgd"),
    (["method={name: fedftg, lora_dropout: 0.1}"], "method.name", "set method.lora_dropout to 0"),
    (["method={name: flora, init_lora_weights: svd}"], "method.name", "kaiming or orthonormal"),
    (["method={name: fedftg-seeded, init_lora_weights: svd}"], "method.name", "leave"),
    (
        ["method={name: lora-fair, initialization: fresh, init_lora_weights: svd}"],
        "method.name",
        "kaiming or orthonormal",
    ),
    (["method={name: fedit, ranks: {a: 4}}"], "method.ranks", "use flexlora or flora"),
    (["method={name: flora, ranks: {}}"], "method.ranks", "fill it"),
    (["method={name: flora, ranks: {a: 4}}", *HIDDEN], "method.ranks", "one rank for all"),
    (
        ["method={name: flora, ranks: {a: 4}}", "num_examples={b: 500}"],
        "method.ranks",
        "a is no silo of data.num_examples, which names b",
    ),
    (["method={name: flora}", "server_optimizer=adam"], "train.server_optimizer", "use none"),
    (["method={name: fedsvd}", "server_optimizer=yogi"], "train.server_optimizer", "use none"),
    (
        ["method={name: fedftg-seeded, fold_every: 9}", "server_optimizer=momentum"],
        "train.server_optimizer",
        "use none",
    ),
    (["optimizer=sgd", "adam_beta1=0.8"], "train.adam_beta1", "belongs to optimizer: adamw"),
    (["optimizer=sgd", "adam_eps=1e-5"], "train.adam_eps", "belongs to optimizer: adamw"),
    (["server_learning_rate=0.1"], "train.server_learning_rate", "server_optimizer"),
    (["server_momentum=0.1"], "train.server_momentum", "server_optimizer"),
    (
        ["server_optimizer=adam", "server_momentum=0.1"],
        "train.server_momentum",
        "belongs to server_optimizer: momentum",
    ),
]


@pytest.mark.parametrize(("overrides", "key", "reason"), REFUSED)
def test_refused_when_it_is_loaded(wrong, overrides, key, reason):
    (problem,) = wrong(PLAIN, *overrides)
    assert f" {key}: " in problem
    assert reason in problem


def named(name: str) -> list[str]:
    """Overrides; MoLE has experts."""
    given = ["method.experts=[a, b]"] if name == "mole" else []
    return [f"method.name={name}", *given]


@pytest.mark.parametrize("name", sorted(built_in()))
def test_every_method_can_be_chosen(load, name):
    config = load(PLAIN, *named(name))
    axes = at_work(config.method.build(), config.train)
    assert axes.aggregator == built_in()[name]().aggregator()
    assert load(dump(config)) == config


def test_the_schema_knows_all_methods_and_all_their_options():
    assert get_args(LEAVES["method.name"].annotation) == tuple(built_in())
    assert set(OPTIONS) == {option for m in built_in().values() for option in own_options(m)}
    assert all(LEAVES[f"method.{option}"].default is None for option in OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_several_methods_is_the_same_in_all(option):
    first, *others = (own_options(built_in()[name])[option] for name in OPTIONS[option])
    assert all((other.hint, other.about) == (first.hint, first.about) for other in others)


BELOW_1 = (
    "rotation_lambda",
    "cutoff",
)

LISTS = {"experts": "[a, b]", "masked_experts": "[a]"}
"""Options that are lists, and values that they take."""


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_another_method_names_its_methods(load, wrong, option):
    default = own_options(built_in()[OPTIONS[option][0]])[option].default
    value = {bool: False, str: default}.get(type(default), 3)
    value = 0.5 if option in BELOW_1 else value
    value = LISTS.get(option, value)
    for name in sorted(built_in()):
        overrides = (*named(name), f"method.{option}={value}")
        if name in OPTIONS[option]:
            found = load(PLAIN, *overrides).method.given(option)
            assert found == (tuple(value[1:-1].split(", ")) if option in LISTS else value)
            continue
        (problem,) = wrong(PLAIN, *overrides)
        assert f"method.{option}: belongs to {' and '.join(OPTIONS[option])}; leave it" in problem
        assert load(PLAIN, *named(name), f"method.{option}=null")


def chosen(train=None, **method):
    return at_work(read_section(method).build(), TrainConfig(**(train or {})))


def test_options_reach_their_method():
    assert chosen(name="fedex-lora", residual_rank=3).aggregator.rank == 3
    assert chosen(name="fedsvd", refactor_every=3).aggregator == Refactor(every=3)
    assert chosen(name="fedsvd", randomised=True).aggregator == Refactor(randomised=True)
    assert chosen(name="flexlora", balanced=False).aggregator == Truncate(rank=8, balanced=False)
    assert chosen(name="lora-fair").aggregator == FairCosine(strength=0.01)
    assert chosen(name="lora-fair", fair_lambda=0.0).aggregator == FairCosine(strength=0.0)
    assert chosen(name="lora-fair", fair_norm="squared").aggregator == FairCosine(squared=True)
    ridge = chosen(name="lora-fair", objective="ridge", fair_ridge=0.1).aggregator
    assert ridge == FairRidge(ridge=0.1)
    assert isinstance(chosen(name="lora-fair").schedule, Constant)
    assert isinstance(chosen(name="lora-fair", initialization="fresh").schedule, Chain)
    assert chosen(name="fedftg-seeded", fold_every=4).schedule.every == 4
    assert chosen(name="cola", fold_every=4).schedule.every == 4
    assert chosen(name="rac-lora", fold_every=1).schedule.every == 1
    boost = chosen(name="xgblora", booster_layers=2, booster_seed=5).schedule
    assert (boost.layers, boost.seed) == (2, 5)
    linked = chosen(name="reslora", shortcut="middle", pre_num=4).adapter
    assert (linked.shortcut, linked.pre_num, linked.scale) == ("middle", 4, 1.0)
    plain = TrainConfig().build_optimizer(LALoRA)
    assert isinstance(plain, AdamW)
    assert chosen(name="la-lora", low_pass=False).optimizer == plain
    assert chosen(name="la-lora").optimizer == LowPassConfig(plain)
    galore = chosen(name="fedftg", r=4, galore_gap=5, galore_scale=2.0).optimizer
    assert galore == GaLoreConfig(lr=galore.lr, rank=4, gap=5, scale=2.0)
    rite = chosen(name="lora-rite", clip_unmagnified_grad=0.0, cutoff=1e-3).optimizer
    assert (rite.clip_unmagnified_grad, rite.cutoff) == (0.0, 1e-3)
    assert chosen(name="xgblora", booster_weight=0.5).aggregator == Fold(weight=0.5)
    assert chosen(name="xgblora", penalty=0.1).optimizer.weight == 0.1


def test_a_method_takes_the_rule_of_another_and_its_options():
    assert chosen(name="lora-plus", aggregation="fedex-lora").aggregator == Residual()
    rule = chosen(name="la-lora", aggregation="fedex-lora", residual_rank=3).aggregator
    assert rule == Residual(rank=3)
    rule = chosen(name="cola", aggregation="flexlora", ranks={"a": 16}).aggregator
    assert rule == Truncate(rank=16)
    rule = chosen(name="alt-lora", aggregation="lora-fair", objective="ridge").aggregator
    assert rule == FairRidge()
    rule = chosen(name="rac-lora", aggregation="fedsvd", refactor_every=2).aggregator
    assert rule == Refactor(every=2)
    adam = {"server_optimizer": "adam"}
    outer = chosen(adam, name="la-lora", aggregation="fedex-lora").aggregator
    assert (outer.inner, outer.step) == (Residual(), ServerAdam())


def test_a_rule_that_does_not_fit_is_refused_by_its_key(wrong):
    for overrides, words in [
        (("method.name=rolora", "method.aggregation=fedex-lora"), "share both factors"),
        (("method.name=fedit", "method.aggregation=fedsvd"), "train B and never A"),
        (("method.name=flora", "method.aggregation=flexlora"), "a way of its own"),
        (("method.name=reslora", "method.aggregation=flexlora"), "all that is learned"),
    ]:
        (problem,) = wrong(PLAIN, *overrides)
        assert "method.aggregation" in problem
        assert words in problem
    (problem,) = wrong(
        PLAIN,
        "method.name=fedit",
        "method.aggregation=lora-fair",
        "method.initialization=fresh",
    )
    assert "method.initialization: belongs to lora-fair" in problem
    (problem,) = wrong(PLAIN, "method.name=fedit", "method.aggregation=mean")
    assert "method.aggregation" in problem


def test_the_adapter_has_the_largest_rank():
    axes = chosen(name="flexlora", r=2, ranks={"a": 4, "b": 3})
    assert axes.adapter.rank == axes.aggregator.rank == 4
    assert chosen(name="flora", r=6, ranks={"a": 4}).adapter.rank == 6


def test_boosters_are_of_rank_1_unless_somebody_says_otherwise(load):
    boosters = chosen(name="xgblora").adapter
    assert (boosters.rank, boosters.scale) == (1, 1.0)
    wide = chosen(name="xgblora", r=4, lora_alpha=2.0).adapter
    assert (wide.rank, wide.scale) == (4, 0.5)
    config = load(PLAIN, "method.name=xgblora")
    assert (config.method.given("r"), config.method.given("lora_alpha")) == (1, 1.0)
    assert load(dump(config)) == config
    assert load(PLAIN, "method.name=cola").method.given("r") == 8


ADAM = {"optimizer": "adamw", "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_eps": 1e-3}


@pytest.mark.parametrize(
    "name", ["fedit", "lora-rite", "lora-pro", "lora-plus", "lora-fa", "fedftg"]
)
def test_moments_and_epsilon_reach_what_is_made_of_adamw(name):
    given = chosen(ADAM, name=name).optimizer
    assert (given.betas, given.eps) == ((0.8, 0.9), 1e-3)
    usual = chosen({"optimizer": "adamw"}, name=name).optimizer
    own = {"fedit": None, "lora-rite": 1e-6, "fedftg": 1e-6}
    assert (usual.betas, usual.eps) == ((0.9, 0.999), own.get(name, 1e-8))
    p = torch.nn.Parameter(torch.zeros(4, 4))
    tensors = {Key("x", Role.D if name == "fedftg" else Role.HEAD): p}
    (group,) = given.build(tensors, 0.1).param_groups
    assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-8 if name == "lora-rite" else 1e-3)


def test_moments_reach_alt_lora_plus():
    optimizer = chosen(ADAM, name="alt-lora").optimizer
    assert (optimizer.momentum, optimizer.square, optimizer.eps) == (0.8, 0.9, 1e-3)


def test_what_can_be_put_around_a_method():
    plain = SGD(lr=0.5)
    given = {"optimizer": "sgd", "learning_rate": 0.5}
    assert chosen({"proximal_mu": 0.1, **given}).optimizer == FedProxConfig(plain, 0.1)
    assert chosen({"proximal_mu": 0.1, **given}, name="la-lora").optimizer == FedProxConfig(
        LowPassConfig(plain), 0.1
    )
    assert chosen(given).optimizer == plain
    for kind, step in (
        ("momentum", ServerMomentum()),
        ("adam", ServerAdam()),
        ("yogi", ServerYogi()),
    ):
        rule = chosen({"server_optimizer": kind}).aggregator
        assert (rule.inner, rule.step) == (Mean(), step)
        rule = chosen({"server_optimizer": kind, "server_learning_rate": 0.3}).aggregator
        assert rule.step == replace(step, learning_rate=0.3)
    rule = chosen({"server_optimizer": "momentum", "server_momentum": 0.0}).aggregator
    assert rule.step == ServerMomentum(momentum=0.0)


def test_a_server_optimiser_goes_around_whatever_keeps_the_basis():
    able = set()
    for name in built_in():
        try:
            chosen({"server_optimizer": "adam"}, name=name)
            able.add(name)
        except IncompatibleMethodError:
            pass
    folding = {"flora", "fedftg-seeded", "cola", "rac-lora", "xgblora"}
    assert set(built_in()) - able == {"fedask", "fedsvd", "flexlora", *folding}


def test_the_rate_is_the_usual_one_unless_somebody_says_another(load):
    for overrides, rate in (
        (["method.name=lora-rite"], usual_rate(LoRARITE, "adamw")),
        (["train.optimizer=adamw"], usual_rate(FFALoRA, "adamw")),
        (["train.optimizer=adamw", "train.learning_rate=0.5"], 0.5),
        (["method.name=lora-rite", "train.learning_rate=0.5"], 0.5),
        (["train.optimizer=sgd"], usual_rate(FFALoRA, "sgd")),
        (["train.learning_rate=null"], usual_rate(FFALoRA, "adamw")),
        ([], usual_rate(FFALoRA, "adamw")),
        (PRIVATE, usual_rate(FFALoRA, "sgd", 1.0)),
        ([*PRIVATE, "privacy.max_grad_norm=4"], usual_rate(FFALoRA, "sgd", 1.0) / 4),
        ([*PRIVATE, "train.learning_rate=3"], 3.0),
        ([*PRIVATE, "train.optimizer=adamw"], usual_rate(FFALoRA, "adamw", 1.0)),
        ([*HIDDEN, "method.name=fedit"], usual_rate(FedIT, "adamw")),
        (["train.momentum=0.75"], usual_rate(FFALoRA, "sgd") / 4),
        (["train.server_optimizer=momentum"], usual_rate(FFALoRA, "adamw") / 10),
    ):
        config = load(PLAIN, *overrides)
        assert config.train.learning_rate == pytest.approx(rate)
        assert build(config).terms.optimizer.lr == config.train.learning_rate
        assert load(dump(config)) == config


def test_the_optimizer_is_the_usual_one_unless_somebody_says_another(load):
    for overrides, optimizer in (
        ([], "adamw"),
        (HIDDEN, "adamw"),
        (PRIVATE, "sgd"),
        ([*PRIVATE, "train.optimizer=adamw"], "adamw"),
        ([*PRIVATE, "method.name=lora-pro"], "adamw"),
        (["train.optimizer=sgd"], "sgd"),
        (["train.momentum=0.5"], "sgd"),
    ):
        config = load(PLAIN, *overrides)
        assert config.train.optimizer == optimizer
        assert type(build(config).terms.optimizer).__name__.lower() == optimizer
        assert load(dump(config)) == config


def test_a_rate_far_above_the_usual_one_is_noticed(load):
    usual = load(PLAIN, "method.name=fedit").train.learning_rate
    for times, said in ((1, False), (4, False), (5, True)):
        config = load(PLAIN, "method.name=fedit", f"train.learning_rate={times * usual}")
        assert any(text.startswith("train.learning_rate: ") for text in notices(config)) == said


def test_fedftg_is_made_of_adamw(load):
    config = load(PLAIN, "method.name=fedftg")
    assert config.train.optimizer == "adamw"
    assert yaml.safe_load(dump(config))["train"]["optimizer"] == "adamw"
    assert load(PLAIN, "method.name=fedftg", "optimizer=adamw", "momentum=0") == config
    with pytest.raises(IncompatibleMethodError, match="GaLore"):
        FedFTG().axes(SGD(lr=1), head=True)


def test_what_is_refused_when_it_is_loaded_is_refused_when_it_is_built():
    for name, unit in (("fedftg", "example"), ("fedsa-lora", "client")):
        axes = chosen(name=name)
        refuse_unproved(axes, "none")
        with pytest.raises(IncompatibleMethodError):
            refuse_unproved(axes, unit)
    with pytest.raises(IncompatibleMethodError, match="ranks: this method averages"):
        chosen(name="ffa-lora", ranks={"a": 2})


def test_dense_deltas_under_client_level_and_personal_b_under_example_level_are_allowed(load):
    assert load(PLAIN, "method.name=fedftg", *HIDDEN)
    assert load(PLAIN, "method.name=fedsa-lora", *PRIVATE)


def test_what_no_method_reads_is_left_out_of_the_dump(load):
    keys = yaml.safe_load(dump(load(PLAIN, "method.name=fedsvd")))
    assert keys["method"].keys() & {"ranks", *OPTIONS} == {"refactor_every", "randomised"}
    assert not keys["train"].keys() & {"server_learning_rate", "server_momentum"}


def test_the_largest_update_is_the_engines(load):
    assert load(PLAIN).train.largest_update == LARGEST_UPDATE


def test_personal_tensors_are_b_and_the_head():
    plan = chosen(name="fedsa-lora").schedule.plan(0)
    assert plan.trained() - plan.share == {Role.B, Role.HEAD}


def test_a_programme_may_build_a_configuration_from_sections():
    small = load_config(None, ["method.name=fedftg", *OVERRIDES])
    sections = {name: getattr(small, name) for name in ("model", "data", "method", "privacy")}
    assert Config(**sections, train=small.train).method == small.method


OVERRIDES = [
    "model={name_or_path: m, task: sequence-classification}",
    "data={path: hub/name, columns: {text: t, label: l}}",
    "privacy={unit: none}",
]
