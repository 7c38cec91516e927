"""Chats as real templates write them: thinking that is dropped later, no system turn, tools."""

import jinja2
import pytest

from silotune.data.assistant_turns import PublicWordsError, welcome
from silotune.data.chat_templates import passage

THINKING = """\
{%- set last = namespace(user=-1) -%}
{%- for turn in messages -%}
  {%- if turn.role == "user" -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for turn in messages -%}
<|{{ turn.role }}|>
{% if turn.role == "assistant" -%}
  {%- set said = turn.content or "" -%}
  {%- set thought = "" -%}
  {%- if "</think>" in said -%}
    {%- set thought = said.split("</think>")[0].split("<think>")[-1].strip() -%}
    {%- set said = said.split("</think>")[-1].lstrip() -%}
  {%- endif -%}
  {%- if loop.index0 > last.user -%}
<think>
{{ thought }}
</think>

{% endif -%}
{{ said }}
  {%- for call in turn.tool_calls or [] -%}
<call>{{ call.function.name }} {{ call.function.arguments | tojson }}</call>
  {%- endfor -%}
{%- else -%}
{{ turn.content }}
{%- endif -%}<|end|>
{% endfor -%}
{%- if asks -%}<|assistant|>
{% endif -%}"""
"""As Qwen3's: only what was thought since the last question stays."""

STRICT = """\
{%- if messages[0].role == "system" -%}
  {{ raise_exception("System role not supported") }}
{%- endif -%}
{%- for turn in messages -%}[{{ turn.role }}]{{ turn.content | trim }}[/]{%- endfor -%}
{%- if asks -%}[assistant]{%- endif -%}"""
"""As Gemma's."""

DEAF = STRICT.replace('raise_exception("System role not supported")', '""').replace(
    "for turn in messages ", 'for turn in messages if turn.role != "system" '
)
"""The same, but that it says nothing."""

CHAT = [
    {"role": "user", "content": "Is it raining?"},
    {"role": "assistant", "content": "<think>look out</think>No, it is not."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "<think>look again</think>Yes, a little."},
]


def rendering(source):
    def refuse(words):
        raise PublicWordsError(words)

    compiled = jinja2.Environment(keep_trailing_newline=False).from_string(source)
    return lambda turns, asks: compiled.render(
        messages=list(turns), asks=asks, raise_exception=refuse
    )


def learned(p):
    return [p.text[start:end] for start, end in p.spans]


def test_every_turn_of_the_assistant_is_learned_as_it_stands():
    p = passage({"messages": CHAT}, rendering(THINKING))
    assert p.text == rendering(THINKING)(CHAT, False)
    assert "look out" not in p.text
    assert learned(p) == [
        "No, it is not.<|end|>\n",
        "<think>\nlook again\n</think>\n\nYes, a little.<|end|>\n",
    ]


def test_two_turns_that_say_the_same_are_told_apart():
    same = [CHAT[0], {"role": "assistant", "content": "Yes."}] * 2
    p = passage({"messages": same}, rendering(THINKING))
    assert learned(p) == ["Yes.<|end|>\n", "<think>\n\n</think>\n\nYes.<|end|>\n"]
    assert p.spans[0][0] < p.text.rindex("<|user|>") < p.spans[1][0]


def test_calls_of_tools_are_learned_and_their_answers_are_not():
    call = {"type": "function", "function": {"name": "look", "arguments": {"where": "out"}}}
    chat = [
        CHAT[0],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "dry"},
        {"role": "assistant", "content": "No."},
        *CHAT[2:],
    ]
    p = passage({"messages": chat}, rendering(THINKING))
    first, second, third = learned(p)
    assert first == '<call>look {"where": "out"}</call><|end|>\n'
    assert second == "No.<|end|>\n"
    assert third.endswith("Yes, a little.<|end|>\n")


def test_what_a_table_adds_to_the_arguments_of_other_tools_is_not_read():
    """Tables give every record the keys of all."""
    function = {"name": "look", "arguments": {"where": "out", "when": None}, "result": None}
    chat = [CHAT[0], {"role": "assistant", "tool_calls": [{"function": function, "id": None}]}]
    p = passage({"messages": chat}, rendering(THINKING))
    assert '{"where": "out"}' in p.text
    assert "when" not in p.text


@pytest.mark.parametrize("source", [STRICT, DEAF], ids=["strict", "deaf"])
def test_where_a_template_has_no_system_turn_it_opens_the_first_question(source):
    chat = [{"role": "system", "content": "Be short."}, *CHAT[:2]]
    p = passage({"messages": chat}, rendering(source))
    assert p.text.startswith("[user]Be short.\n\nIs it raining?[/]")
    assert len(p.spans) == 1


def test_where_it_has_one_it_stays():
    chat = [{"role": "system", "content": "Be short."}, *CHAT[:2]]
    assert welcome(chat, rendering(THINKING)) == chat


def test_a_system_turn_that_no_question_follows_is_refused():
    chat = [{"role": "system", "content": "Be short."}, {"role": "assistant", "content": "Yes."}]
    with pytest.raises(ValueError, match="no question follows"):
        passage({"messages": chat}, rendering(STRICT))


def test_a_turn_that_is_not_in_the_text_is_refused():
    with pytest.raises(ValueError, match="leaves out"):
        passage({"messages": CHAT}, lambda turns, asks: rendering(THINKING)(turns[-2:], asks))
