"""Floor 2: which tensors exist at a site, and the layer that computes with them."""

from .base import Adapter as Adapter
from .base import Layer as Layer
from .dense import Dense as Dense
from .inject import AdaptedModel as AdaptedModel
from .inject import birth as birth
from .inject import fixed_keys as fixed_keys
from .inject import inject as inject
from .inject import merge as merge
from .linear import AdaptedLinear as AdaptedLinear
from .linear import Head as Head
from .lora import Init as Init
from .lora import LoRA as LoRA
from .peft_io import PeftLayout as PeftLayout
from .peft_io import load_peft as load_peft
from .peft_io import save_peft as save_peft
from .projection import Projection as Projection
