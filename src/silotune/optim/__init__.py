"""Floor 2: how a client moves its tensors."""

from .alt_lora import AltLoRA as AltLoRA
from .base import Optimizer as Optimizer
from .galore import GaLore as GaLore
from .lora_fa import LoRAFA as LoRAFA
from .lora_plus import LoRAPlus as LoRAPlus
from .lora_pro import LoRAPro as LoRAPro
from .lora_rite import LoRARite as LoRARite
from .torch_optim import SGD as SGD
from .torch_optim import AdamW as AdamW
from .wrappers import LowPass as LowPass
from .wrappers import Proximal as Proximal
