"""The version of silotune: of the wheel, of what runs and certificates say."""

__version__ = "0.1.0"
