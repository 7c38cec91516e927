"""What a model is asked to do. One loss for every example, and metrics that add up."""

from .base import Objective as Objective
from .base import PerExampleLoss as PerExampleLoss
from .causal_lm import CausalLM as CausalLM
from .classification import ImageClassification as ImageClassification
from .classification import SequenceClassification as SequenceClassification
from .classification import counts_right_answers as counts_right_answers
from .known import is_known as is_known
from .label_words import NEEDS_WORDS as NEEDS_WORDS
from .label_words import descriptions as descriptions
from .label_words import say_something as say_something
