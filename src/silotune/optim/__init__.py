"""Floor 2: how a client moves its tensors."""

from .base import Optimizer as Optimizer
from .torch_optim import SGD as SGD
from .torch_optim import AdamW as AdamW
