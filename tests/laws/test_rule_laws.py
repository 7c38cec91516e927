"""Any method that trains a pair may be combined by any rule that fits it, and it is that rule.

The reference is the rule as its paper has it, dense and in NumPy, applied to what the clients sent.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from covering import full
from silotune.aggregation import FairCosine, FairRidge, Fold, Mean, Refactor, Residual, Truncate
from silotune.core import Key, Role, decode_result, unpack
from silotune.engine import federate
from silotune.linalg import dense
from silotune.methods import IncompatibleMethodError, built_in
from silotune.methods.axes import with_rule
from silotune.methods.options import own_options
from silotune.methods.registry import rule_option_names
from silotune.optim import AdamW
from silotune.runtimes import InProcess
from spies import Tapped
from toys import axes, begin, experiment, silos, trainer

RANK, RIDGE = 2, 0.01
RULES = {
    "fedex-lora": Residual(),
    "flexlora": Truncate(rank=RANK),
    "lora-fair": FairRidge(ridge=RIDGE),
    "fedsvd": Refactor(),
}
BOTH = ("fedit", "la-lora", "cola", "lora-rite", "lora-pro", "lora-plus", "alt-lora", "fedrot-lora")
ONLY_B = ("ffa-lora", "rac-lora", "lora-fa")
FIT = {(m, r) for m in BOTH for r in ("fedex-lora", "flexlora", "lora-fair")} | {
    (m, "fedsvd") for m in ONLY_B
}
OPTIMIZER = AdamW(lr=0.05)
WEIGHTS = np.array([1.0, 2.0, 3.0]) / 6  # as in the toy experiment


def plain(method: str):
    chain = {"fold_every": 2} if method in ("cola", "rac-lora") else {}
    return axes(method, OPTIMIZER, **chain)


def added(state) -> dict[str, np.ndarray]:
    """What a state adds at each site, (out, in)."""
    pairs = {site: state.factors.pair(site).dense() for site in state.factors.pair_sites()}
    folded = {site: dense(m) for site, m in state.folded.items()}
    return {s: (p + folded.get(s, torch.zeros_like(p))).double().numpy() for s, p in pairs.items()}


def rule_of(name: str, b: list, a: list) -> np.ndarray:
    """What a rule makes of the clients' B (out, r) and A (r, in): B' A' + R."""
    ideal = sum(w * x @ y for w, x, y in zip(WEIGHTS, b, a, strict=True))
    mean_b = sum(w * x for w, x in zip(WEIGHTS, b, strict=True))
    mean_a = sum(w * y for w, y in zip(WEIGHTS, a, strict=True))
    if name == "flexlora":
        u, s, vt = np.linalg.svd(ideal)
        return (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
    if name == "lora-fair":
        gram = mean_a @ mean_a.T
        ridge = RIDGE * np.trace(gram) / RANK * np.eye(RANK)
        correction = (ideal @ mean_a.T - mean_b @ gram) @ np.linalg.inv(gram + ridge)
        return (mean_b + correction) @ mean_a
    return ideal  # exact


CASES = [
    case if i % 3 == 0 or case[1] == "fedsvd" else full(*case) for i, case in enumerate(sorted(FIT))
]
"""At hand every method with a rule, and every rule with some methods."""


@pytest.mark.parametrize(("method", "rule"), CASES)
def test_a_method_under_another_rule_is_combined_by_that_rule(method, rule, tmp_path):
    method_axes = with_rule(plain(method), RULES[rule])
    runtime = Tapped(InProcess(trainer(method_axes), silos(home=tmp_path)))
    exp = experiment(method_axes, runtime.clients(), rounds=2)
    first, second = federate(exp, runtime, begin(method_axes))
    sent = [unpack(decode_result(blob).sealed)[0] for blob in runtime.results[3:]]
    before = added(first.state)
    for site, after in added(second.state).items():
        start = first.state.factors.pair(site).dense().double().numpy()
        common = first.state.factors[Key(site, Role.A)]
        b = [t[Key(site, Role.B)].double().numpy() for t in sent]
        a = [t.get(Key(site, Role.A), common).double().numpy() for t in sent]
        expected = before[site] - start + rule_of(rule, b, a)
        np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-12)
    if rule in ("fedex-lora", "fedsvd"):
        assert second.aggregation_error < 1e-12


def test_every_other_combination_is_refused_with_the_reason():
    for method in built_in():
        for name, rule in RULES.items():
            if (method, name) in FIT:
                continue
            words = r"aggregation: .*(both factors|train B|all that is learned|its own)"
            with pytest.raises(IncompatibleMethodError, match=words):
                with_rule(plain(method), rule)


@pytest.mark.parametrize(
    "rule", [Residual(), Truncate(rank=RANK), FairRidge(), FairCosine(), Fold(), Refactor()]
)
def test_what_is_not_a_layers_own_pair_alone_has_no_rule_but_the_mean(rule):
    for method in ("reslora", "milora", "fedftg-seeded", "mole", "head-only", "fedftg"):
        with pytest.raises(IncompatibleMethodError):
            replace(plain(method), aggregator=rule)


def test_the_methods_that_are_named_after_a_rule_are_the_plain_method_under_it():
    for name in ("fedex-lora", "flexlora", "lora-fair"):
        assert with_rule(plain("fedit"), plain(name).aggregator) == plain(name)
    assert plain("lora-fair").aggregator == FairCosine()
    assert with_rule(plain("ffa-lora"), plain("fedsvd").aggregator) == plain("fedsvd")
    assert isinstance(plain("fedit").aggregator, Mean)


def test_every_option_of_a_rule_is_known_as_one():
    """What these methods have besides is not of the rule, and must be no option of it."""
    of_rules = {option for name in RULES for option in own_options(built_in()[name])}
    assert of_rules - rule_option_names() == {"initialization"}
    assert of_rules >= rule_option_names()
