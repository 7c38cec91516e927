"""silotune: private federated fine-tuning of transformer models with low-rank adapters.

The names below are the public face; whatever is not among them is private and may move. They are
imported when they are first used, so that ``import silotune`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from silotune.version import __version__ as __version__

if TYPE_CHECKING:
    from silotune import adapters as adapters
    from silotune import aggregation as aggregation
    from silotune import methods as methods
    from silotune import objectives as objectives
    from silotune import optim as optim
    from silotune import schedules as schedules
    from silotune import testing as testing
    from silotune.adapters import Adapter as Adapter
    from silotune.aggregation import Aggregator as Aggregator
    from silotune.aggregation import Combined as Combined
    from silotune.comparison import Compared as Compared
    from silotune.comparison import compare as compare
    from silotune.core import Factors as Factors
    from silotune.core import Key as Key
    from silotune.core import Role as Role
    from silotune.core import Site as Site
    from silotune.custom_loop import LoRA as LoRA
    from silotune.custom_loop import PrivacyEngine as PrivacyEngine
    from silotune.custom_loop.adapt import adapt as adapt
    from silotune.custom_loop.adopt import adopt as adopt
    from silotune.data import Partition as Partition
    from silotune.data import Splits as Splits
    from silotune.engine import QuorumError as QuorumError
    from silotune.federation.federation import Federation as Federation
    from silotune.federation.load import load as load
    from silotune.federation.loaded_model import LoadedModel as LoadedModel
    from silotune.federation.plan import Plan as Plan
    from silotune.federation.run_result import Run as Run
    from silotune.federation.sites import Sites as Sites
    from silotune.federation.verify import verify as verify
    from silotune.methods import About as About
    from silotune.methods import Method as Method
    from silotune.methods import register as register
    from silotune.objectives import CausalLM as CausalLM
    from silotune.objectives import ImageClassification as ImageClassification
    from silotune.objectives import MultiLabelClassification as MultiLabelClassification
    from silotune.objectives import (
        MultiLabelImageClassification as MultiLabelImageClassification,
    )
    from silotune.objectives import Objective as Objective
    from silotune.objectives import Regression as Regression
    from silotune.objectives import Seq2Seq as Seq2Seq
    from silotune.objectives import SequenceClassification as SequenceClassification
    from silotune.objectives import TextEmbedding as TextEmbedding
    from silotune.objectives import TokenClassification as TokenClassification
    from silotune.optim import lora_params as lora_params
    from silotune.privacy import ClientDP as ClientDP
    from silotune.privacy import ExampleDP as ExampleDP
    from silotune.privacy import NoDP as NoDP
    from silotune.privacy.lifetime.choice import Lifetime as Lifetime
    from silotune.schedules import Schedule as Schedule

_HOMES = {
    "Adapter": "silotune.adapters",
    "Aggregator": "silotune.aggregation",
    "Combined": "silotune.aggregation",
    "Compared": "silotune.comparison",
    "compare": "silotune.comparison",
    "Factors": "silotune.core",
    "Key": "silotune.core",
    "Role": "silotune.core",
    "Site": "silotune.core",
    "LoRA": "silotune.custom_loop",
    "PrivacyEngine": "silotune.custom_loop",
    "adapt": "silotune.custom_loop",
    "adopt": "silotune.custom_loop",
    "Partition": "silotune.data",
    "Splits": "silotune.data",
    "QuorumError": "silotune.engine",
    "Federation": "silotune.federation.federation",
    "LoadedModel": "silotune.federation.loaded_model",
    "load": "silotune.federation.load",
    "Plan": "silotune.federation.plan",
    "Run": "silotune.federation.run_result",
    "Sites": "silotune.federation.sites",
    "verify": "silotune.federation.verify",
    "About": "silotune.methods",
    "Method": "silotune.methods",
    "register": "silotune.methods",
    "CausalLM": "silotune.objectives",
    "ImageClassification": "silotune.objectives",
    "MultiLabelClassification": "silotune.objectives",
    "MultiLabelImageClassification": "silotune.objectives",
    "Regression": "silotune.objectives",
    "Objective": "silotune.objectives",
    "SequenceClassification": "silotune.objectives",
    "Seq2Seq": "silotune.objectives",
    "TextEmbedding": "silotune.objectives",
    "TokenClassification": "silotune.objectives",
    "lora_params": "silotune.optim",
    "ClientDP": "silotune.privacy",
    "ExampleDP": "silotune.privacy",
    "NoDP": "silotune.privacy",
    "Lifetime": "silotune.privacy.lifetime.choice",
    "Schedule": "silotune.schedules",
}
"""Public name -> module, or module:name."""

_MODULES = (
    "adapters",
    "aggregation",
    "methods",
    "objectives",
    "optim",
    "schedules",
    "testing",
)

__all__ = sorted(("__version__", *_HOMES, *_MODULES))  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"silotune.{name}")
    if name in _HOMES:
        module, _, other = _HOMES[name].partition(":")
        return getattr(import_module(module), other or name)
    raise AttributeError(f"module 'silotune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
