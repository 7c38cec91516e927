"""One federation, from what it is given to its result folder: plan, fit, load, audit, export.

Rounds, clients and the server are next door, in ``engine``.
"""
