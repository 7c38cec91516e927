"""Floor 2: how a client moves its tensors."""

from .base import Optimizer as Optimizer
from .galore import GaLore as GaLore
from .torch_optim import SGD as SGD
from .torch_optim import AdamW as AdamW
from .wrappers import LowPass as LowPass
from .wrappers import Proximal as Proximal
