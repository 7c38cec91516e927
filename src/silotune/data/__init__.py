"""Data. From a path to silos, and from their records to what a model reads."""

from .client_tables import ClientTables as ClientTables
from .columns import Columns as Columns
from .columns import check_columns as check_columns
from .federated_dataset import Prepared as Prepared
from .federated_dataset import prepare_silos as prepare_silos
from .images import ImageExamples as ImageExamples
from .images import image_examples as image_examples
from .loading import Source as Source
from .loading import Splits as Splits
from .loading import Tables as Tables
from .loading import load as load
from .partition import Partition as Partition
from .summary import SiloSummary as SiloSummary
from .summary import summarize as summarize
from .tokenization import TextExamples as TextExamples
from .tokenization import text_examples as text_examples
