"""docs/site-file.md, made from a site's sections: ``python docs/build/site_page.py``."""

from __future__ import annotations

from collections.abc import Iterator

from configuration_page import row
from pydantic import BaseModel

from silotune.config.site_sections import SiteConfig, section_in
from silotune.methods import Method
from silotune.objectives import KINDS
from silotune.optim import SGD, AdamW
from silotune.privacy import ClientDP, ExampleDP
from silotune.site.judged import HARMLESS
from silotune.site.refusal import KEYS, NEVER
from silotune.terms import Terms

HEAD = """\
# A site's own file

<!-- Made by `python docs/build/site_page.py`; change the sections, not this file. -->

`site.yaml` says where the records of one organisation are, and what it takes part in. Its owner
writes it by hand; nothing of it leaves the site but declared numbers and the digest of the policy.

- **What is not said is not allowed.** The defaults refuse every offer.
- An unknown key, a key given twice, a value of the wrong kind, or two that contradict each other
  make no site: everything is refused until the file is mended.
- The file is read anew for every order. Tightening it in the middle of a run makes the next order
  refused.
- The file, its folder and `home` must be writable by their owner alone; nobody else may read
  `home`.

```
silotune site join INVITATION    # make this site's key, and this file, which allows nothing yet
silotune site join ADMISSION     # become a member
silotune site serve              # take part, until it is told to end
silotune site offers             # what was asked, and what this site says to it
silotune site show RUN           # who asks for what, what leaves, what it costs the records
silotune site approve RUN        # let it begin, as far as the policy allows
silotune site refuse RUN         # keep it from beginning, or from going on
silotune site spent              # what the records have paid in all runs
silotune site verify RUN         # hold the certificate that came against this site's own ledger
```

A person's word is bound to the digest of the offer that was looked at. An offer that is altered
under the same name is another offer, and waits for another word: `approve` takes the offer that
`show` has shown last, or the one whose digest is given. A refusal counts whatever the policy is.
"""

CODES = """\
## What a coordinator hears

Never a sentence: a code of a fixed list. `approval` says that nobody has looked at the offer yet,
and `policy:approve` that somebody has refused it. The others name the first key of the policy that
does not allow what is asked:

{codes}

and where no policy can allow it:

{never}
"""

NEVER_SAID = {
    "terms": "a field that this version knows nothing of",
    "bounds": "numbers that no machine could work with, or a regular expression in "
    "`method.target_modules` (a list of names, or `all-linear`, is allowed)",
    "classes": "an objective, optimiser, method or privacy that is code of somebody's own",
    "files": "a method that begins from files, which nobody may name at a site "
    "(`method.init_from`, `method.experts`)",
    "evaluation": "`evaluation: simulation`",
    "labels": "a label set that is not declared, so that records would have to tell it",
}

_PARTS = {
    Terms: "terms.",
    **dict.fromkeys(KINDS, "objective."),
    SGD: "optimizer.",
    AdamW: "optimizer.",
    Method: "method.",
    ExampleDP: "privacy.",
    ClientDP: "privacy.",
}

JUDGED_HEAD = """\
## What need not be judged

Every other field of an offer is judged. These are not, and this is why; numbers that no machine
could work with are refused all the same (`policy:bounds`). Where a run hides nothing
(`unit: none`) the reasons do not hold, and nothing is bounded.

| field | why a policy need not look at it |
|---|---|
"""


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *_sections("", SiteConfig), _codes(), JUDGED_HEAD + "".join(_rows())])


def _sections(key: str, section: type[BaseModel]) -> Iterator[str]:
    """A table of the section's own keys, then the sections inside it."""
    title = f"## {key}\n\n{(section.__doc__ or '').strip()}" if key else "## Top level"
    prefix = f"{key}." if key else ""
    inner = {n: s for n, f in section.model_fields.items() if (s := section_in(f.annotation))}
    own = {n: f for n, f in section.model_fields.items() if n not in inner}
    rows = "".join(row(f"{prefix}{name}", field) for name, field in own.items())
    yield f"{title}\n\n| key | value | default | meaning |\n|---|---|---|---|\n{rows}"
    for name, each in inner.items():
        yield from _sections(f"{prefix}{name}", each)


def _codes() -> str:
    codes = ", ".join(f"`policy:{key}`" for key in KEYS if key not in NEVER)
    never = "\n".join(f"- `policy:{key}`: {NEVER_SAID[key]}" for key in NEVER)
    return CODES.format(codes=codes, never=never)


def _rows() -> Iterator[str]:
    told = {
        f"{_PARTS.get(kind, '')}{field}": why
        for kind, harmless in HARMLESS.items()
        for field, why in harmless.items()
    }
    return (f"| `{field}` | {why} |\n" for field, why in told.items())


if __name__ == "__main__":
    print(reference(), end="")
