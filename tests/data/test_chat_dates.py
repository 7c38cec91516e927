"""A chat template prints the day on which a run began, whichever day it is."""

from datetime import UTC, datetime

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

import silotune as st
from federation.objects import federation
from silotune.data.chat_dates import pin_date, pinned
from silotune.testing.tiny_models import tiny_llama

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
PLAIN = """\
{% for m in messages %}
  {% if m['role'] == 'user' %}
U {{ m['content'] }}
  {%- else %}
A {{ m['content'] }}
  {%- endif %}
{% endfor %}"""
DATED = "{%- set day = strftime_now('%d %b %Y, %H:%M, %%, %-d') if strftime_now is defined %}"


@pytest.fixture
def tokenizer(tmp_path):
    return AutoTokenizer.from_pretrained(tiny_llama(tmp_path / "llama"))


def told(tokenizer, template):
    tokenizer.chat_template = template
    pin_date(tokenizer, "2001-02-03T04:05:06+00:00")
    return tokenizer.apply_chat_template(TURNS, tokenize=False)


def test_every_part_of_a_date_is_that_of_the_run(tokenizer):
    said = told(tokenizer, DATED + "{{ day }}|" + PLAIN)
    assert said.startswith("03 Feb 2001, 04:05, %, 3|")
    formats = ("%Y-%m-%d", "%A %B %d %Y", "%I %p", "%j", "%y%m%d", "%x %X", "%c")
    when = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    for one in formats:
        assert told(tokenizer, f"{{{{ strftime_now('{one}') }}}}") == when.strftime(one)


@pytest.mark.parametrize("start", ["", "\n", "  ", "\n\n  "])
def test_nothing_else_of_a_template_changes(tokenizer, start):
    template = start + PLAIN + "{# strftime_now #}"
    tokenizer.chat_template = template
    expected = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert told(tokenizer, template) == expected
    assert tokenizer.chat_template != template
    assert pinned(PLAIN, datetime(2001, 2, 3)) == PLAIN


class Morrow(datetime):
    """The clock of another day."""

    @classmethod
    def now(cls, tz=None):
        return datetime(2031, 5, 6, tzinfo=tz)


def test_a_run_is_the_same_on_the_morrow(tmp_path, monkeypatch):
    base = tiny_llama(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ strftime_now('%d %m %Y') }}" + PLAIN
    tokenizer.save_pretrained(base)
    rows = [{"messages": [{"role": "user", "content": str(i)}, TURNS[1]]} for i in range(40)]
    given = federation(
        base,
        clients={"east": rows, "west": rows},
        objective=st.CausalLM(messages="messages", max_length=64),
        method=st.methods.FedIT(r=2),
        rounds=1,
    )
    run = given.fit(tmp_path / "run")
    said = run.evaluate().metrics
    monkeypatch.setattr(chat_template_utils, "datetime", Morrow)
    assert run.evaluate().metrics == said
    loaded = st.load(tmp_path / "run").tokenizer
    today = datetime.now(UTC).strftime("%d %m %Y")
    assert loaded.apply_chat_template(TURNS, tokenize=False).startswith(today)
    assert (
        AutoTokenizer.from_pretrained(base)
        .apply_chat_template(TURNS, tokenize=False)
        .startswith("06 05 2031")
    )
