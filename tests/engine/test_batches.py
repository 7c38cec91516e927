"""A batch is cut where it is cheapest."""

from itertools import combinations, pairwise
from types import SimpleNamespace

import pytest
import torch

from silotune.engine.batches import PASS_TOKENS, microbatches, pass_tokens, taken

WIDE = PASS_TOKENS["cpu"]


def lengths(records: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 129, (records,), generator=generator).tolist()


def cost(parts, tokens) -> int:
    return sum(WIDE + len(part) * max(tokens[i] for i in part) for part in parts)


def every_cut(ordered, size):
    for cuts in range(len(ordered)):
        for inner in combinations(range(1, len(ordered)), cuts):
            parts = [ordered[i:j] for i, j in pairwise([0, *inner, len(ordered)])]
            if all(len(part) <= size for part in parts):
                yield parts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1, 3, 9])
def test_no_other_cut_is_cheaper(size, seed):
    tokens = lengths(9, seed)
    parts = list(microbatches(range(9), tokens, size, WIDE))
    ordered = sorted(range(9), key=lambda i: (tokens[i], i))
    assert cost(parts, tokens) == min(cost(p, tokens) for p in every_cut(ordered, size))


@pytest.mark.parametrize("size", [1, 8, 32, 1000])
def test_each_record_goes_once_and_never_too_many_at_once(size):
    tokens = lengths(300, 0)
    drawn = list(range(0, 300, 2))
    parts = list(microbatches(drawn, tokens, size, WIDE))
    assert sorted(i for part in parts for i in part) == drawn
    assert max(map(len, parts)) <= size


def test_nothing_drawn_is_no_part():
    assert list(microbatches([], [3, 4], 2, WIDE)) == []


def test_records_of_one_length_fill_their_parts():
    parts = list(microbatches(range(10), [1] * 10, 4, WIDE))
    assert len(parts) == 3


def test_a_device_that_passes_are_dear_on_pads_more():
    tokens = [4, 5, 60, 61]
    parts = list(microbatches(range(4), tokens, 4, WIDE))
    assert parts == [[0, 1], [2, 3]]
    assert list(microbatches(range(4), tokens, 4, PASS_TOKENS["cuda"])) == [[0, 1, 2, 3]]


def of_width(units: int | None, device: str = "cpu") -> SimpleNamespace:
    config = SimpleNamespace(**{} if units is None else {"hidden_size": units})
    return SimpleNamespace(device=torch.device(device), model=SimpleNamespace(config=config))


@pytest.mark.parametrize(("units", "tokens"), [(32, 250), (128, 62), (384, 40), (4096, 40)])
def test_a_pass_through_a_narrow_model_costs_more_of_its_tokens(units, tokens):
    assert pass_tokens(of_width(units)) == tokens
    assert pass_tokens(of_width(units, "cuda")) == PASS_TOKENS["cuda"]


def test_a_model_that_tells_no_width_counts_as_wide():
    assert pass_tokens(of_width(None)) == WIDE
    assert pass_tokens(SimpleNamespace(device=torch.device("cpu"), model=torch.nn.ReLU())) == WIDE


def test_padding_is_cut_of_tokens_and_of_no_records_numbers():
    """Also where a record has as many numbers as a batch has columns."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for labels in (torch.tensor([[0.0, 1, 1], [1, 0, 0]]), torch.tensor([[7, 8, -100], [7, 8, 9]])):
        one = taken({"input_ids": mask + 4, "attention_mask": mask, "labels": labels}, [0])
        assert one["input_ids"].shape == (1, 2)
        assert one["labels"].tolist() == [
            labels[0, : 3 if labels.is_floating_point() else 2].tolist()
        ]
