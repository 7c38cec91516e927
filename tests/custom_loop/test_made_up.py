"""Made-up records with two rows of positions: each is cut by its own mask."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import T5Config, T5ForConditionalGeneration

from silotune.custom_loop import LoRA, PrivacyEngine, adapt
from silotune.custom_loop.made_up import lengths, made_up, unpadded

IDS, IGNORED = 20, -100
SOURCES, TARGETS = (3, 6, 2, 5), (6, 2, 4, 1)


def t5() -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=IDS,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return T5ForConditionalGeneration(config).float()


def rows(sizes, seed, width=6):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, IDS, (len(sizes), width), generator=g)
    mask = (torch.arange(width) < torch.tensor(sizes)[:, None]).long()
    return ids * mask, mask


def pairs(masked=True, width=6):
    """Sources and targets of unlike lengths, padded to the same or to another width."""
    (read, mask), (written, written_mask) = rows(SOURCES, 0), rows(TARGETS, 1, width)
    shifted = torch.cat([torch.zeros_like(written[:, :1]), written[:, :-1]], dim=1)
    labels = written.where(written_mask.bool(), torch.tensor(IGNORED))
    batch = {"input_ids": read, "attention_mask": mask, "labels": labels}
    own = {"decoder_attention_mask": written_mask} if masked else {}
    return {**batch, "decoder_input_ids": shifted, **own}


def losses(model, batch):
    inputs = {name: t for name, t in batch.items() if name != "labels"}
    logits, labels = model(**inputs).logits, batch["labels"]
    each = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    ).view(labels.shape)
    return each.sum(1) / (labels != IGNORED).sum(1)


def private(dataset, synthetic=None, losses=None):
    adapted = adapt(t5(), LoRA(r=2, lora_alpha=3, target_modules=["q", "v"]), train=("B",))
    return PrivacyEngine(noise_multiplier=1.5, target_delta=1e-3).make_private(
        model=adapted,
        optimizer=torch.optim.SGD(adapted.trainable_parameters(), lr=0.1),
        dataset=dataset,
        collate_fn=torch.utils.data.default_collate,
        num_examples=4,
        batch_size=2,
        steps=1,
        losses=losses,
        synthetic=synthetic,
    )


def of_one(batch):
    return [{name: t[i] for name, t in batch.items()} for i in range(len(batch["labels"]))]


@pytest.mark.parametrize("width", [6, 8])
@pytest.mark.parametrize("masked", [True, False])
def test_each_row_is_cut_by_its_own_mask(masked, width):
    batch = pairs(masked, width)
    some = unpadded({name: t[[0]] for name, t in batch.items()}, t5())
    wide = TARGETS[0] if masked else width
    assert some["input_ids"].shape == some["attention_mask"].shape == (1, SOURCES[0])
    assert some["labels"].shape == some["decoder_input_ids"].shape == (1, wide)
    assert torch.equal(some["labels"], batch["labels"][[0], :wide])
    both = [a + b for a, b in zip(SOURCES, TARGETS, strict=True)]
    assert lengths(batch) == (both if masked else [*SOURCES])


def test_labels_that_a_decoder_writes_are_no_part_of_what_is_read():
    batch = {name: t for name, t in pairs(False).items() if not name.startswith("decoder_")}
    some = {name: t[[0]] for name, t in batch.items()}
    assert unpadded(some, t5())["labels"].shape == (1, 6)
    assert unpadded(some, torch.nn.Identity())["labels"].shape == (1, SOURCES[0])


def test_marks_of_records_are_not_cut_where_there_are_as_many_as_tokens():
    some = {name: t[[0]] for name, t in pairs(False).items() if not name.startswith("decoder_")}
    some["labels"] = torch.ones(some["input_ids"].shape)
    cut = unpadded(some, torch.nn.Identity())
    assert cut["input_ids"].shape == (1, SOURCES[0])
    assert cut["labels"].shape == (1, 6)


def test_towers_are_cut_each_by_the_mask_beside_it():
    (a, mask), (b, other) = rows(SOURCES, 0), rows(TARGETS, 1)
    nest = {
        "a": {"input_ids": a[[1]], "attention_mask": mask[[1]]},
        "b": {"input_ids": b[[1]], "attention_mask": other[[1]]},
    }
    cut = unpadded(nest, torch.nn.Identity())
    assert [cut[name]["input_ids"].shape[1] for name in "ab"] == [SOURCES[1], TARGETS[1]]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_an_encoder_with_a_decoder_is_proved(given, masked):
    """Of equal widths and unlike lengths: the target was once cut where its source ended."""
    batch = pairs(masked)
    private(of_one(batch), *((batch, losses) if given else ()))


def test_what_collators_leave_out_is_made_of_the_labels():
    batch = {name: t for name, t in pairs(False).items() if not name.startswith("decoder_")}
    private(of_one(batch))
    made = made_up(batch, t5())
    assert made["labels"].unique().numel() > 5
    assert not torch.equal(made["labels"], batch["labels"])
