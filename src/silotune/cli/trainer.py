"""``site trainer``: the process of a site that computes; its daemon starts it, and again."""

from __future__ import annotations

from pathlib import Path

from .pipes import pipes


def work_at_site(file: Path) -> None:
    """Answer orders until who started this is gone; what is printed goes to the site's log.

    Args:
        file: the site's own, read anew for every order.
    """
    orders, answers = pipes()
    from silotune.config.site_file import read_site
    from silotune.runtimes import frames, serve_orders
    from silotune.site.site import Site

    serve_orders(Site(lambda: read_site(file)).answer, frames(orders), answers)
