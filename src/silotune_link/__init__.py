"""The link: how bytes get to a site's trainer, and nothing of what they mean.

Whatever carries orders to a site imports this package alone. It stands on Python's own library, so
that an engine's processes and the site's daemon stay small, and outlive a trainer that is killed.
"""
