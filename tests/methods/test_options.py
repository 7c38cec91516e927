"""Options: what a field does not take is refused by its name, before anything begins."""

import pytest

from silotune.aggregation import FairCosine, Mean, Residual, Truncate
from silotune.methods import (
    FedExLoRA,
    FedIT,
    FedSVD,
    FFALoRA,
    FlexLoRA,
    IncompatibleMethodError,
    LoRAFAIR,
    MoLE,
    ResLoRA,
    XGBLoRA,
)
from silotune.optim import SGD

STEP = SGD(lr=0.1)

WRONG = [
    (FedIT, {"r": 0}, "r: must be at least 1, not 0"),
    (FedIT, {"r": True}, "r: must be a whole number, not true"),
    (FedIT, {"r": 2.0}, "r: must be a whole number"),
    (FedIT, {"lora_alpha": 0}, "lora_alpha: must be greater than 0"),
    (FedIT, {"lora_alpha": "8"}, "lora_alpha: must be a number"),
    (FedIT, {"lora_alpha": float("nan")}, "lora_alpha: must be a finite number"),
    (FedIT, {"lora_alpha": float("inf")}, "lora_alpha: must be a finite number"),
    (FedIT, {"lora_dropout": 1.0}, "lora_dropout: must be below 1"),
    (FedIT, {"use_rslora": 1}, "use_rslora: must be true or false, not 1"),
    (FedIT, {"init_lora_weights": "gaussian"}, "must be one of kaiming, orthonormal, svd"),
    (FedIT, {"target_modules": 3}, "target_modules: must be text or a list"),
    (FedIT, {"target_modules": ["query", ""]}, "target_modules: must not be empty"),
    (FedIT, {"layers_to_transform": [-1]}, "layers_to_transform: must be at least 0"),
    (FedIT, {"ranks": {"north": 0}}, "ranks: must be at least 1"),
    (FedIT, {"aggregation": FFALoRA()}, "FFALoRA is no method in whose way others may combine"),
    (FedSVD, {"refactor_every": 0}, "refactor_every: must be at least 1"),
    (LoRAFAIR, {"objective": "mean"}, "objective: must be one of cosine, ridge"),
    (FedExLoRA, {"residual_rank": 0}, "residual_rank: must be at least 1"),
    (XGBLoRA, {"booster_seed": -1}, "booster_seed: must be at least 0"),
    (ResLoRA, {"pre_num": 0}, "pre_num: must be at least 1"),
    (MoLE, {"experts": [""]}, "experts: must not be empty"),
]


@pytest.mark.parametrize(("method", "options", "words"), WRONG)
def test_what_an_option_does_not_take_is_refused(method, options, words):
    with pytest.raises(ValueError, match=words):
        method(**options)


def test_lists_become_tuples_so_that_a_method_is_a_value():
    method = FedIT(target_modules=["query", "value"], layers_to_transform=[0, 1])
    assert method.target_modules == ("query", "value")
    assert method == FedIT(target_modules=("query", "value"), layers_to_transform=(0, 1))


def test_whole_numbers_are_numbers():
    assert FedIT(lora_alpha=16).pair().scale == 2.0


def test_a_method_is_combined_in_the_way_of_another():
    method = FedIT(r=4, ranks={"north": 6}, aggregation=FlexLoRA(balanced=False))
    axes = method.axes(STEP, head=True)
    assert axes.aggregator == Truncate(rank=6, balanced=False)
    assert FedIT(aggregation=FedExLoRA(residual_rank=3)).axes(STEP, head=True).aggregator == (
        Residual(rank=3)
    )
    assert FedIT(aggregation=LoRAFAIR()).axes(STEP, head=True).aggregator == FairCosine()
    assert FedIT().axes(STEP, head=True).aggregator == Mean()
    assert method.label == "fedit combined as flexlora"
    assert method.full_title == "FedIT, combined as in FlexLoRA"
    assert "In place of that average, adapters are combined as in FlexLoRA" in method.description


def test_a_rule_that_would_be_wrong_is_refused():
    with pytest.raises(IncompatibleMethodError, match=r"aggregation: .*both factors"):
        FFALoRA(aggregation=FedExLoRA()).axes(STEP, head=True)
    with pytest.raises(IncompatibleMethodError, match=r"aggregation: .*way of its own"):
        FlexLoRA(aggregation=FedExLoRA()).axes(STEP, head=True)
    with pytest.raises(IncompatibleMethodError, match="ranks: this method averages"):
        FedIT(ranks={"north": 2}).axes(STEP, head=True)


def test_experts_are_read_when_the_method_is_opened(tmp_path):
    method = MoLE(experts=[str(tmp_path / "a"), str(tmp_path / "b")])
    assert method.axes(STEP, head=True).adapter.experts == (), "enough for a plan"
    with pytest.raises(ValueError, match=r"experts"):
        method.opened("some/model")
