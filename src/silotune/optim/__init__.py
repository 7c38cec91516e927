"""Floor 2: how a client moves its tensors."""

from .alt_lora import AltLoRA as AltLoRA
from .alt_lora import AltLoRAConfig as AltLoRAConfig
from .base import OptimizerConfig as OptimizerConfig
from .fedprox import FedProxConfig as FedProxConfig
from .galore import GaLore as GaLore
from .galore import GaLoreConfig as GaLoreConfig
from .lora_fa import LoRAFA as LoRAFA
from .lora_fa import LoRAFAConfig as LoRAFAConfig
from .lora_params import lora_params as lora_params
from .lora_plus import LoRAPlus as LoRAPlus
from .lora_plus import LoRAPlusConfig as LoRAPlusConfig
from .lora_pro import LoRAPro as LoRAPro
from .lora_pro import LoRAProConfig as LoRAProConfig
from .lora_rite import LoRARITE as LoRARITE
from .lora_rite import LoRARITEConfig as LoRARITEConfig
from .low_pass import LowPassConfig as LowPassConfig
from .torch_optim import SGD as SGD
from .torch_optim import AdamW as AdamW
