"""Floor 5: the catalogue. Every method is one function; add a function and the laws cover it.

Methods are in files by what is particular about them; ``RECIPES`` names them all.

A docstring says what the method is and, in lines that the pages about methods are made of: whether
its average is *exact*, how privacy *noise* enters B A, and how many numbers travel *up* from and
*down* to one client for one adapted layer of (out, in) features in a usual round. r is the rank, K
the number of clients; heads travel besides. Keyword arguments are keys of the section ``method``.

Local optimisers begin afresh in every round, so none outlives a change of basis.
"""

from collections.abc import Callable, Mapping

from silotune.recipe import Recipe

from .chains import cola as cola
from .chains import fedftg as fedftg
from .chains import fedftg_seeded as fedftg_seeded
from .chains import rac_lora as rac_lora
from .chains import xgblora as xgblora
from .combining import fedex_lora as fedex_lora
from .combining import fedsvd as fedsvd
from .combining import flexlora as flexlora
from .combining import flora as flora
from .combining import lora_fair as lora_fair
from .layers import milora as milora
from .layers import mole as mole
from .layers import reslora as reslora
from .moving import alt_lora as alt_lora
from .moving import lora_fa as lora_fa
from .moving import lora_plus as lora_plus
from .moving import lora_pro as lora_pro
from .moving import lora_rite as lora_rite
from .sharing import fedit as fedit
from .sharing import fedsa_lora as fedsa_lora
from .sharing import ffa_lora as ffa_lora
from .sharing import head_only as head_only
from .sharing import la_lora as la_lora
from .sharing import rolora as rolora

RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "ffa-lora": ffa_lora,
    "fedit": fedit,
    "head-only": head_only,
    "rolora": rolora,
    "la-lora": la_lora,
    "fedsa-lora": fedsa_lora,
    "fedsvd": fedsvd,
    "fedex-lora": fedex_lora,
    "flora": flora,
    "flexlora": flexlora,
    "lora-fair": lora_fair,
    "fedftg": fedftg,
    "fedftg-seeded": fedftg_seeded,
    "cola": cola,
    "rac-lora": rac_lora,
    "xgblora": xgblora,
    "reslora": reslora,
    "lora-rite": lora_rite,
    "lora-pro": lora_pro,
    "lora-plus": lora_plus,
    "lora-fa": lora_fa,
    "alt-lora": alt_lora,
    "milora": milora,
    "mole": mole,
}
