"""Floor 2: transformers models, frozen, and the places in them that may be adapted.

Import from the modules themselves: ``load``, ``sites``, ``head``, ``pooling``, ``tiny``.
"""
