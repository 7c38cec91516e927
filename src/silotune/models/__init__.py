"""Transformers models, frozen, and the places in them that may be adapted.

Import from the modules themselves: ``load``, ``target_modules``, ``heads``, ``pooling``,
``testing.tiny_models``.
"""
