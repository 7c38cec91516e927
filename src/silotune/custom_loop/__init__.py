"""The private mechanism inside somebody's own training loop, without a federation."""

from .adapt import LoRA as LoRA
from .adapt import adapt as adapt
from .adopt import adopt as adopt
from .batch import Batch as Batch
from .loop import PrivateLoop as PrivateLoop
from .loop import Spent as Spent
from .optimizer import PrivateOptimizer as PrivateOptimizer
from .privacy_engine import PrivacyEngine as PrivacyEngine
