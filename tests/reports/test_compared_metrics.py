"""Runs that different metrics score are not compared by one."""

from silotune.reports.comparison import Measurement, compare


def measured(name, seed, metric, value):
    return Measurement(labels={"task": name}, seed=seed, metric=metric, value=value)


def test_what_another_metric_scores_has_no_result_here_and_the_reason():
    runs = [measured("texts", seed, "accuracy", 0.8 + seed / 100) for seed in range(3)]
    runs += [measured("words", seed, "perplexity", 30.0 + seed / 100) for seed in range(3)]
    found = compare(runs, title="", axes=["task"], compared=["task"], baseline={"task": "texts"})
    texts, words = found.groups
    assert (texts.score.n, words.score.n) == (3, 0)
    assert words.failed == ["it is scored by perplexity, and this table by accuracy"]
    assert not texts.best
    assert not words.best
