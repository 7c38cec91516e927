"""The tiny models of the tests of models, for the tests of their makers."""

from models.conftest import folders

__all__ = ["folders"]
