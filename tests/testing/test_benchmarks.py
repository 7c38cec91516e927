"""What benchmarks are made of goes with the code that it calls."""

from benchmarks.records import draw, random_phrases


def test_records_as_long_as_those_of_sst2_are_drawn_in_batches():
    examples = random_phrases(0, 200)
    [batch] = draw(examples, 8, 1, seed=0).batches
    assert examples.batch(batch)["input_ids"].shape[0] == len(batch) > 0
