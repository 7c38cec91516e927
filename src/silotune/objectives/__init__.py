"""What a model is asked to do. One loss for every example, and metrics that add up."""

from .base import Objective as Objective
from .base import PerExampleLoss as PerExampleLoss
from .causal_lm import CausalLM as CausalLM
from .image_classification import ImageClassification as ImageClassification
from .label_words import NEEDS_WORDS as NEEDS_WORDS
from .label_words import descriptions as descriptions
from .label_words import say_something as say_something
from .multi_label_classification import MultiLabelClassification as MultiLabelClassification
from .multi_label_image_classification import (
    MultiLabelImageClassification as MultiLabelImageClassification,
)
from .registry import KINDS as KINDS
from .registry import TASKS as TASKS
from .registry import TaskName as TaskName
from .registry import counts_right_answers as counts_right_answers
from .registry import find as find
from .registry import is_known as is_known
from .regression import Regression as Regression
from .seq2seq import Seq2Seq as Seq2Seq
from .sequence_classification import SequenceClassification as SequenceClassification
from .task import Task as Task
from .text_embedding import TextEmbedding as TextEmbedding
from .token_classification import TokenClassification as TokenClassification
