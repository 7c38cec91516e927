"""Floor 2: which tensors exist at a site, and the layer that computes with them."""

from .base import Adapter as Adapter
from .inject import AdaptedModel as AdaptedModel
from .inject import birth as birth
from .inject import inject as inject
from .linear import AdaptedLinear as AdaptedLinear
from .linear import Head as Head
from .lora import Init as Init
from .lora import LoRA as LoRA
