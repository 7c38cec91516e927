"""silotune: private federated fine-tuning of transformer models with low-rank adapters."""

__version__ = "0.1.0"
