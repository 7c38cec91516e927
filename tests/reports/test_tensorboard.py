"""What TensorBoard shows is what metrics.jsonl holds."""

import sys

import pytest

from reports.clinics import rounds
from silotune.reports.tensorboard import scalars, summary_writer, write_events


def read(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def test_every_number_of_every_round(fake_run):
    run = fake_run(lines=rounds()[:4])
    write_events(run)
    shown = read(run)
    assert set(shown) == set(scalars(rounds()[3]))
    assert set(shown["global/accuracy"]) == {0, 1, 2, 3}
    assert set(shown["round/bytes_up"]) == {1, 2, 3}
    assert shown["epsilon/hill"][3] == pytest.approx(rounds()[3].epsilon["hill"])
    assert shown["silos/hill/accuracy"][2] == pytest.approx(rounds()[2].silos["hill"]["accuracy"])


def test_written_again_after_a_resume(fake_run):
    """Rounds that were cut off are gone, others are not there twice."""
    run = fake_run(lines=rounds()[:4])
    write_events(run)
    run.write_rounds(run.read_rounds()[:1])
    run.append_round(rounds()[2])
    write_events(run)
    assert set(read(run)["global/accuracy"]) == {0, 2}


def test_without_tensorboard_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"report_to: .*pip install 'silotune\[tensorboard\]'"):
        summary_writer()
