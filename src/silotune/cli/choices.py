"""What verbs let one choose among, as words; light, since every start reads them."""

from __future__ import annotations

from enum import StrEnum


class Split(StrEnum):
    """Records to score on."""

    VALID = "valid"
    TEST = "test"


class Task(StrEnum):
    """What is learned; ``classification`` is of texts or of images, as the data are."""

    CLASSIFICATION = "classification"
    SEQUENCE_CLASSIFICATION = "sequence-classification"
    MULTI_LABEL_CLASSIFICATION = "multi-label-classification"
    REGRESSION = "regression"
    TEXT_EMBEDDING = "text-embedding"
    TOKEN_CLASSIFICATION = "token-classification"
    IMAGE_CLASSIFICATION = "image-classification"
    MULTI_LABEL_IMAGE_CLASSIFICATION = "multi-label-image-classification"
    CAUSAL_LM = "causal-lm"
    SEQ2SEQ = "seq2seq"


class Format(StrEnum):
    """What to export."""

    PEFT = "peft"
    MERGED = "merged"


class Estimate(StrEnum):
    """What ResLoRA's shortcuts are estimated by."""

    WEIGHTS = "weights"
    INPUTS = "inputs"


class GridRuntime(StrEnum):
    """Where the runs of a grid are made."""

    PROCESSES = "processes"
    RAY = "ray"


class Layout(StrEnum):
    """Of a table."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    HTML = "html"
