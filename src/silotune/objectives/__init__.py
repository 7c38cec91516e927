"""What a model is asked to do. One loss for every example, and metrics that add up."""

from .base import Objective as Objective
from .causal_lm import CausalLM as CausalLM
from .classification import Classification as Classification
