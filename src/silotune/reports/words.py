"""What a run did, in sentences. The page and the model card share them."""

from __future__ import annotations

import math

from .facts import PrivacyStatement, RunFacts, Summary
from .guarantee import in_short
from .outcome import Outcome
from .units import count_text, metric_text

METHODS = {
    "ffa-lora": (
        "FFA-LoRA",
        "A is public and stays frozen; B is trained and averaged, so that averaging is exact and "
        "the noise of privacy enters linearly (arXiv 2403.12313).",
    ),
    "fedit": (
        "FedIT",
        "Both factors are trained and each is averaged by itself; the mean of products is not the "
        "product of means, which is the aggregation error (arXiv 2305.05644).",
    ),
    "head-only": (
        "the head only",
        "The encoder is used as it is; a linear classifier on it is trained and averaged.",
    ),
    "rolora": (
        "RoLoRA",
        "B is trained and averaged in one round, A in the next, so that every average is exact "
        "(arXiv 2409.02346).",
    ),
    "la-lora": (
        "LA-LoRA",
        "B is trained in one local step, A in the next, on gradients smoothed along the features; "
        "each is averaged by itself (arXiv 2602.19926).",
    ),
    "fedsa-lora": (
        "FedSA-LoRA",
        "Both factors are trained and A is averaged; B and the classifier stay with their silo "
        "(arXiv 2410.01463).",
    ),
    "fedsvd": (
        "FedSVD",
        "B is trained and averaged; the server writes the product B A anew, with orthonormal rows "
        "in A (arXiv 2505.12805).",
    ),
    "fedex-lora": (
        "FedEx-LoRA",
        "Both factors are averaged, and what their product then lacks is added to the frozen base "
        "(arXiv 2410.09432).",
    ),
    "flora": (
        "FLoRA",
        "The mean of the silos' products is added to the frozen base, and every round begins with "
        "a fresh pair (arXiv 2409.05976).",
    ),
    "flexlora": (
        "FlexLoRA",
        "The mean of the silos' products is cut back to the adapter's rank by a singular value "
        "decomposition (arXiv 2402.11505).",
    ),
    "lora-fair": (
        "LoRA-FAIR",
        "Both factors are averaged, and B is corrected towards the mean of the silos' products "
        "(arXiv 2411.14961).",
    ),
    "fedftg": (
        "FedFTG",
        "Whole matrices are trained by GaLore in a subspace of each silo's own, and averaged "
        "(arXiv 2410.23111).",
    ),
    "fedftg-seeded": (
        "FedFTG with common projectors",
        "Every round trains and averages in a random subspace that all silos draw from one seed; "
        "the sum is added to the frozen base (arXiv 2410.23111, 2403.03507).",
    ),
    "cola": (
        "COLA",
        "Both factors are averaged, each by itself; every few rounds their product is added to the "
        "frozen base, and a fresh pair begins (arXiv 2401.04151).",
    ),
    "rac-lora": (
        "RAC-LoRA",
        "B is trained and averaged beside an A that is frozen; every few rounds their product is "
        "added to the frozen base, and another A is drawn from the seed (arXiv 2410.08305).",
    ),
    "xgblora": (
        "XGBLoRA",
        "Every round draws a few layers by a seed, trains small pairs there, and adds the mean of "
        "the silos' products to the frozen base (arXiv 2410.19694).",
    ),
    "lora-rite": (
        "LoRA-RITE",
        "Both factors are trained by steps that do not depend on how their product is factored, "
        "and each is averaged by itself (arXiv 2410.20625).",
    ),
    "lora-pro": (
        "LoRA-Pro",
        "Both factors are trained by the steps whose product comes closest to one of full "
        "fine-tuning, and each is averaged by itself (arXiv 2407.18242).",
    ),
    "lora-plus": (
        "LoRA+",
        "Both factors are trained, B at a higher rate than A, and each is averaged by itself "
        "(arXiv 2402.12354).",
    ),
    "lora-fa": (
        "LoRA-FA",
        "A is public and stays frozen; B is trained by the steps that come closest to those of "
        "full fine-tuning, and averaged (arXiv 2308.03303).",
    ),
    "alt-lora": (
        "AltLoRA",
        "B is trained in one local step, A in the next, each closest to a step of full "
        "fine-tuning; each is averaged by itself (arXiv 2505.12455).",
    ),
    "milora": (
        "MiLoRA, the mixture",
        "In every transformer layer a router looks at the prompt and chooses which of the layer's "
        "pairs it goes through; pairs and routers are trained and averaged (arXiv 2410.18035).",
    ),
    "reslora": (
        "ResLoRA",
        "Both factors are trained and each is averaged by itself; shortcuts link the pairs of "
        "consecutive layers (arXiv 2402.18039).",
    ),
    "mole": (
        "MoLE",
        "Adapters that were trained before are mixed, layer by layer, by gates that look at the "
        "prompt; the gates alone are trained and averaged (arXiv 2404.13628).",
    ),
}
"""Method -> its name and what it does."""

TASKS = {
    "sequence-classification": "text classification",
    "causal-lm": "language modelling",
    "image-classification": "image classification",
}

SIMULATION = (
    "This was a simulation: one machine held the records of all silos. Metrics, results by silo "
    "and the split of the data were computed from them directly and are not covered by epsilon."
)

PERSONAL = (
    "Models are personal: every silo keeps some of the trained tensors to itself and ends with a "
    "model of its own, and figures of the whole run are of all these models together."
)

EVALUATION = {
    "public": "Metrics were computed on public records, which costs no privacy.",
    "site": "Every silo scored the model on its own records and kept the scores in its own folder.",
    "simulation": "Metrics were computed in a simulation, on records that are not covered by "
    "epsilon.",
}


def method_name(summary: Summary) -> str:
    """``FFA-LoRA (rank 8)``."""
    name = _titled(summary)
    return f"{name} (rank {summary.rank})" if summary.rank else name


def method_words(summary: Summary) -> str:
    """What the method does, in a sentence or two."""
    does = METHODS.get(summary.method, ("", summary.method))[1]
    if not summary.aggregation:
        return does
    other, rule = METHODS[summary.aggregation]
    return f"{does} In place of that average, adapters are combined as in {other}: {rule}"


def _titled(summary: Summary) -> str:
    name = METHODS.get(summary.method, (summary.method, ""))[0]
    if not summary.aggregation:
        return name
    return f"{name}, combined as in {METHODS[summary.aggregation][0]}"


def what_was_done(
    summary: Summary, facts: RunFacts, outcome: Outcome, statement: PrivacyStatement | None
) -> str:
    """The run in two sentences: what was trained and how, what came of it and how private it is."""
    task = TASKS.get(summary.task, summary.task)
    first = (
        f"{count_text(len(facts.silos), 'silo')} fine-tuned {summary.base_model} for {task} with "
        f"{method_name(summary)}, in {count_text(outcome.rounds, 'round')} of "
        f"{count_text(summary.local_steps, 'step')}."
    )
    own = f" {PERSONAL}" if summary.personal else ""
    result = _result(outcome)
    return f"{first}{own} {result[0].upper()}{result[1:]}, and {in_short(statement)}."


def final_score(facts: RunFacts) -> str:
    """How the finished adapter does on the test records; empty if there are none."""
    scores = [f"{name} {metric_text(name, value)}" for name, value in facts.final.items()]
    return f"The finished adapter on the test records: {', '.join(scores)}." if scores else ""


def _result(outcome: Outcome) -> str:
    if not math.isfinite(outcome.after):
        return "no global metric was computed"
    after = metric_text(outcome.metric, outcome.after)
    if not math.isfinite(outcome.before):
        return f"{outcome.metric} is {after}"
    return f"{outcome.metric} went from {metric_text(outcome.metric, outcome.before)} to {after}"
