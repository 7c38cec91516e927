"""Floor 2: data. From a path to silos, and from their records to what a model reads."""

from .columns import Columns as Columns
from .columns import check_columns as check_columns
from .divide import Silos as Silos
from .images import ImageExamples as ImageExamples
from .images import image_examples as image_examples
from .silos import Prepared as Prepared
from .silos import Silo as Silo
from .silos import prepare_silos as prepare_silos
from .sources import Source as Source
from .sources import Splits as Splits
from .sources import Tables as Tables
from .sources import load as load
from .summary import SiloSummary as SiloSummary
from .summary import summarize as summarize
from .text import TextExamples as TextExamples
from .text import text_examples as text_examples
