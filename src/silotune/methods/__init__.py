"""The catalogue of methods, one file a paper.

A method is a frozen dataclass (``base.Method``); to add one, add its file. The registry finds it,
and with it do the command line, the configuration, the pages and the laws. The line below hands it
on as ``silotune.methods.Name``.
"""

from .alt_lora import AltLoRA as AltLoRA
from .axes import Axes as Axes
from .axes import IncompatibleMethodError as IncompatibleMethodError
from .base import Kind as Kind
from .base import Method as Method
from .cola import COLA as COLA
from .dora import DoRA as DoRA
from .fed_sb import FedSB as FedSB
from .fedask import FedASK as FedASK
from .fedex_lora import FedExLoRA as FedExLoRA
from .fedftg import FedFTG as FedFTG
from .fedftg_seeded import FedFTGSeeded as FedFTGSeeded
from .fedit import FedIT as FedIT
from .fedrot_lora import FedRotLoRA as FedRotLoRA
from .fedsa_lora import FedSALoRA as FedSALoRA
from .fedsvd import FedSVD as FedSVD
from .ffa_lora import FFALoRA as FFALoRA
from .flexlora import FlexLoRA as FlexLoRA
from .flora import FLoRA as FLoRA
from .head_only import HeadOnly as HeadOnly
from .hetlora import HetLoRA as HetLoRA
from .la_lora import LALoRA as LALoRA
from .lora_fa import LoRAFA as LoRAFA
from .lora_fair import LoRAFAIR as LoRAFAIR
from .lora_plus import LoRAPlus as LoRAPlus
from .lora_pro import LoRAPro as LoRAPro
from .lora_rite import LoRARITE as LoRARITE
from .milora import MiLoRA as MiLoRA
from .mole import MoLE as MoLE
from .options import About as About
from .rac_lora import RACLoRA as RACLoRA
from .registry import built_in as built_in
from .registry import find as find
from .registry import known as known
from .registry import register as register
from .reslora import ResLoRA as ResLoRA
from .rolora import RoLoRA as RoLoRA
from .xgblora import XGBLoRA as XGBLoRA
