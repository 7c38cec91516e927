"""The page: complete, escaped, self-contained, and honest about privacy."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from reports.clinics import (
    LABELS,
    facts,
    hostile,
    rounds,
    scored,
    seeded,
    statement,
    summary,
    write_run,
)
from silotune.core.files import RecordError, write_text
from silotune.reports.page import render
from silotune.runs.folder import RunFolder

HOSTILE = "</title><script>alert('x')</script><img src=http://evil/x onerror=go()>&\"'{{ 7*7 }}"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not close."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style"}:
            self.words.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a whole private run, made once."""
    run = write_run(tmp_path_factory.mktemp("whole") / "run", privacy=statement())
    return render(run, summary())


def test_a_whole_run(whole):
    page = Page(whole)
    assert page.tags.count("svg") == 8
    for words in (
        "3 silos fine-tuned sentence-transformers/all-MiniLM-L6-v2 for text classification with "
        "FFA-LoRA (rank 8), in 20 rounds of 10 steps. Accuracy went from 23.0 % to 87.7 %, and "
        "every record is protected with ε ≤ 5.98 at δ = 1e-5 for the whole run.",
        "+64.7 points",
        "35.5 MB",
        "silotune run examples/triage.yaml train.seed=0",
        "8 hill later than round_deadline (3600 s)",
        "PeftModel.from_pretrained",
        "harbour 800 23.0 % 70.2 % 84.9 % 5.97",
    ):
        assert words in page.text


@pytest.mark.usefixtures("drawn")
def test_loss_is_drawn_where_the_metric_is_another(fake_run, whole):
    assert "Loss after every round." in Page(whole).text
    lines = [replace(r, metrics={"loss": 1.0, "perplexity": math.e}) for r in rounds()]
    run = fake_run(lines=lines, run=replace(facts(), metric="perplexity", scored=None))
    assert "Loss after every round" not in render(run, summary())


def test_what_is_wide_scrolls_by_itself(whole):
    """On a narrow screen the page does not, and text in a picture stays as large as it is."""
    wide = re.findall(r"(<[^<]*>)\s*<table", whole)
    wide += re.findall(r'<figure class="wide">\s*(<[^<]*>)', whole)
    assert len(wide) > 5
    assert set(wide) == {'<div class="scroll" tabindex="0">'}


def test_the_privacy_statement_says_everything_that_epsilon_depends_on(whole):
    text = Page(whole).text
    for words in (
        "One record at one silo (privacy unit: example)",
        "neighbours if one is the other plus one record (relation: add-remove)",
        "Poisson, coins from the operating system",
        "An empty batch still takes a noised step",
        "Euclidean norm of C = 1",
        "Gaussian on the clipped sum",
        "PLD (dp-accounting 0.6.0), grid 1e-4",
        "The server, the other silos and whoever sees their messages",
        "Each silo trusts itself only",
        "the budget of each silo was ε = 6",
        "ε = 5.98 over all silos together if records are disjoint by origin",
        "north 1,200 0.1067 1.42 20 200 5.98 6.34 1e-5",
        "hill 400 0.32 3.61 19 190 5.71 6.06 1e-5",
        "north update poisson sampling rate 0.1067, noise multiplier 1.42, steps 200, "
        "grid points 0 20 times",
        "averaging over silos: every silo's update is seen",
        "silotune privacy verify",
        "Made with silotune 0.1.0, dp-accounting 0.6.0",
        "the update of B and of the head after every round",
        "a person with records at several silos: their epsilons add up",
    ):
        assert words in text


@pytest.mark.usefixtures("drawn")
def test_noise_by_round_is_drawn_where_it_is_known_and_else_said_to_be_unknown(fake_run, whole):
    drawn, unknown = "noise to signal by round", "Noise to signal by round is not shown"
    assert drawn in whole
    assert unknown not in whole
    lines = [replace(record, noise_to_signal=None) for record in rounds()]
    text = render(fake_run(lines=lines, privacy=statement()), summary())
    assert drawn not in text
    assert unknown in text


def test_a_run_without_privacy_says_so_at_once(fake_run):
    html = render(fake_run(lines=[replace(r, epsilon={}) for r in rounds()]), summary())
    text = Page(html).text
    assert text.count("No differential privacy.") == 2
    assert text.index("No differential privacy.") < text.index("Result")
    assert "there was no differential privacy" in text
    assert "ε ≤" not in text
    assert "protected" not in text


def test_noise_too_small_is_said_at_once(fake_run):
    (silo, *_) = statement().silos.values()
    lost = replace(
        statement(),
        silos={"north": replace(silo, epsilon=math.inf)},
        overall={"epsilon": math.inf, "holds_if": "records are disjoint by origin"},
    )
    lines = [replace(r, epsilon={"north": math.inf} if r.epsilon else {}) for r in rounds()]
    text = Page(render(fake_run(lines=lines, privacy=lost), summary())).text
    assert text.count("No differential privacy. The noise of this run is too small") == 2
    assert "∞ of 6, δ = 1e-5" in text
    assert "protected" not in text


@pytest.mark.usefixtures("drawn")
def test_seeded_noise_is_unmistakable(fake_run):
    html = render(fake_run(privacy=seeded()), summary())
    text = Page(html).text
    assert html.count('<p class="banner"><b>NOT PRIVATE</b>') == 2
    assert text.index("NOT PRIVATE") < text.index("accuracy")
    assert "NOT PRIVATE; 5.98 if noise were secret" in text
    assert "north 1,200 0.1067 1.42 20 200 ∞ ∞ 5.98 1e-5" in text
    assert "harbour 800 23.0 % 70.2 % 84.9 % ∞" in text
    assert "largest ε if noise were secret" in text
    assert "anybody can take the noise away" in text
    for claim in ("protected", "under this guarantee", "What no attack can exceed"):
        assert claim not in text
    assert "Noise and sampling coins come from the operating system" not in text


def test_the_final_score_is_shown(fake_run):
    run = fake_run(lines=rounds()[:2], run=replace(facts(), scored=scored()))
    text = Page(render(run, summary())).text
    assert "accuracy 85.0 % 79.4 % to 89.3 % 200" in text
    assert "macro_f1 0.850 0.809 to 0.891 200" in text
    assert "Wilson's for accuracy" in text


def test_every_class_has_its_row_and_its_place_in_the_matrix(fake_run):
    html = render(fake_run(lines=rounds()[:2], run=replace(facts(), scored=scored())), summary())
    text = Page(html).text
    assert "cardiology 40 85.0 % 85.0 % 0.850" in text
    assert "1 cardiology 34 2 2 2 ·" in text
    assert "Most frequent mistakes" not in text
    assert html.count('class="n hit"') == len(LABELS)


@pytest.mark.parametrize("classes", [2, 20, 21, 150, 1000])
def test_any_number_of_classes_is_shown(fake_run, classes):
    """No label is lost, none fills the page at once, and an id has its own name."""
    names = [f"label {i}" for i in range(classes)]
    pairs = [(i, i, 5) for i in range(classes)]
    pairs += [(i, (i + 1) % classes, 1 + (i == 1)) for i in range(classes)]
    about = replace(scored(), classes=pairs, records=6 * classes + 1)
    run = replace(facts(), labels=names, scored=about)
    html = render(fake_run(lines=rounds()[:2], run=run), summary())
    assert ("Confusion matrix" in html) == (classes <= 20)
    assert (f"All {classes} classes" in html) == (classes > 20)
    if classes > 20:
        assert '<th>label 1</th><td>label 2</td><td class="n">2</td>' in html
    assert all(f"<th>{name}</th>" in html for name in names)
    assert len(html) < 1_000_000


@pytest.mark.usefixtures("drawn")
def test_numbers_of_records_stand_beside_scores_in_a_simulation_alone(fake_run):
    run = fake_run(run=replace(facts(), scored=scored()))
    assert "harbour 800 77 23.0 %" in Page(render(run, summary())).text
    text = Page(render(run, replace(summary(), evaluation="public"))).text
    assert " 77 " not in text


@pytest.mark.parametrize(
    ("task", "labels", "heading"),
    [
        ("multi-label-classification", ["ash", "birch", "cedar"], "Label by label"),
        (
            "token-classification",
            [f"{p}-{n}" for n in ("ash", "birch", "cedar") for p in "BI"],
            "Type by type",
        ),
    ],
)
def test_labels_and_types_of_entities_have_a_row_each(fake_run, task, labels, heading):
    """Precision 3 of 5, recall 3 of 4; and one that never occurs has none."""
    half = {"threshold": (0.5,)}
    about = replace(scored(), classes=(), counts=[(0, 4, 5, 3), (1, 0, 0, 0), (2, 2, 0, 0)])
    run = fake_run(lines=rounds()[:2], run=replace(facts(), labels=labels, scored=about))
    text = Page(render(run, replace(summary(), task=task, constants=half))).text
    assert heading in text
    assert "ash 4 60.0 % 75.0 % 0.667" in text
    assert "cedar 2 – 0.0 % 0 " in text
    assert "birch" not in text[text.index(heading) :][:600]
    assert "Confusion matrix" not in text


def test_a_task_without_classes_has_no_table_of_them(fake_run):
    metrics = {"loss": 2.0, "perplexity": 7.389}
    about = replace(scored(), classes=(), metrics=metrics, errors={"loss": 0.1})
    run = fake_run(run=replace(facts(), metric="perplexity", scored=about))
    text = Page(render(run, summary())).text
    assert "Class by class" not in text
    assert "perplexity 7.389 6.074 to 8.989 200" in text


def test_a_statement_of_no_unit_is_no_privacy(fake_run):
    run = fake_run()
    write_text(run.privacy, '{"version": 1, "unit": "none"}')
    assert "No differential privacy." in render(run, summary())


def test_a_simulation_is_marked(whole):
    text = Page(whole).text
    assert "Simulation. This was a simulation" in text
    assert "not covered by epsilon" in text


@pytest.mark.parametrize("evaluation", ["public", "site"])
@pytest.mark.usefixtures("drawn")
def test_outside_simulations_nothing_of_single_silos_is_shown(fake_run, evaluation):
    page = Page(render(fake_run(privacy=statement()), replace(summary(), evaluation=evaluation)))
    assert page.tags.count("svg") == 6
    for words in (
        "70.2 %",
        "90.2 %",
        "orthopaedics 1",
        "Training records by silo and label",
        "Alone:",
    ):
        assert words not in page.text
    assert "harbour 800 5.97" in page.text
    assert "Simulation." not in page.text


@pytest.mark.usefixtures("drawn")
def test_a_run_that_has_just_begun(fake_run):
    running = replace(facts(), status="running", finished=None)
    page = Page(render(fake_run(lines=[], run=running), replace(summary(), evaluation="site")))
    assert "svg" not in page.tags
    assert "No round has ended yet." in page.text
    assert "no global metric was computed" in page.text.lower()
    assert "not yet" in page.text


def test_a_run_that_stopped(fake_run):
    stopped = replace(facts(), status="stopped: the budget of hill is spent")
    html = render(fake_run(lines=rounds()[:5], run=stopped), summary())
    assert '<span class="status stopped">stopped: the budget of hill is spent</span>' in html
    assert "in 4 rounds of 10 steps" in html


def test_a_result_worse_than_the_start_is_on_the_badge(fake_run, whole):
    """A finished run is no longer green; silos that fell are named in a simulation alone."""
    fallen = [
        replace(rounds()[-1], round=-1),
        replace(rounds()[0], round=0, metrics={"accuracy": 0.027}),
    ]
    run = fake_run(lines=fallen)
    html = render(run, summary())
    badge = '<span class="status finished worse">finished, worse than before training</span>'
    assert badge in html
    text = Page(html).text
    assert "Worse than before training: accuracy went from 87.7 % to 2.7 %." in text
    assert "Worse than before training: north, harbour, hill." in text
    assert "worse" not in Page(whole).text.lower()
    public = render(run, replace(summary(), evaluation="public"))
    assert badge in public
    assert "north, harbour, hill." not in Page(public).text


def test_a_budget_that_was_not_given(fake_run):
    given_noise = replace(statement(), target_epsilon=None, released=(), not_covered=())
    page = Page(render(fake_run(privacy=given_noise), summary()))
    assert "budget" not in page.text
    assert "nothing is listed" in page.text


@pytest.mark.usefixtures("drawn")
def test_minimal_facts(fake_run):
    few = replace(
        facts(), versions={}, parameters={}, command=(), host={}, labels=(), silos={}, baselines={}
    )
    few = replace(few, config_digest="", model_digest="")
    run = fake_run(lines=[replace(r, silos={}, missing={}) for r in rounds()], run=few)
    run.config.unlink()
    page = Page(render(run, replace(summary(), split={}, task="causal-lm", pooling="model")))
    assert "Every silo took part in every round." in page.text
    assert page.tags.count("svg") == 4


@pytest.mark.usefixtures("drawn")
def test_a_baseline_scored_on_records_of_all(fake_run):
    """Silos have no records of their own to be scored on; alone and federated still compare."""
    run = fake_run(lines=[replace(r, silos={}) for r in rounds()])
    text = Page(render(run, summary())).text
    assert "by silo, on the held-out records of all" in text
    assert "hill 400 23.0 % 54.4 % 87.7 %" in text


@pytest.mark.usefixtures("drawn")
def test_everything_that_a_user_names_is_escaped(fake_run):
    lines = [
        replace(
            record,
            silos={HOSTILE: {"accuracy": 0.5}},
            missing={HOSTILE: HOSTILE},
            epsilon={HOSTILE: 1.0},
            metrics={"accuracy": 0.5, HOSTILE: 1.0},
        )
        for record in rounds()[:3]
    ]
    (silo,) = list(statement().silos.values())[:1]
    charge = {"kind": HOSTILE, HOSTILE: 1.0}
    silo = replace(silo, charges=[{"release": HOSTILE, "times": 1, "charge": charge}])
    texts = dict.fromkeys(
        (
            "relation",
            "sampling",
            "noise",
            "accountant",
            "cross_check",
            "adversary",
            "trust_model",
            "unit",
        ),
        HOSTILE,
    )
    privacy = replace(
        statement(),
        silos={HOSTILE: silo},
        released=(HOSTILE,),
        not_covered=(HOSTILE,),
        not_claimed=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        overall={"epsilon": 1.0, "holds_if": HOSTILE},
        **dict.fromkeys(texts, HOSTILE),
    )
    words = (
        "title",
        "base_model",
        "method",
        "method_title",
        "method_words",
        "target_modules",
        "data",
        "optimizer",
        "head",
        "pooling",
    )
    split = {HOSTILE: replace(summary().split["hill"], labels={HOSTILE: 400})}
    hostile_summary = replace(summary(), split=split, **dict.fromkeys(words, HOSTILE))
    run = fake_run(lines=lines, run=hostile(HOSTILE), privacy=privacy)
    write_text(run.config, HOSTILE)
    html = render(run, hostile_summary)
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert") > 20
    assert "{{ 7*7 }}" in page.text


def test_the_page_loads_nothing(whole):
    page = Page(whole)
    assert {"script", "link", "iframe", "object", "embed", "img", "base"}.isdisjoint(page.tags)
    loading = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background"}
    assert all(value.startswith("#") for name, value in page.attributes if name in loading), (
        "only references inside the page"
    )
    style = "".join(re.findall(r"<style>(.*?)</style>", whole, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert set(re.findall(r"https?://[^\"' <]*", whole)) <= {"http://www.w3.org/2000/svg"}


def test_dark_and_light(whole):
    assert "@media (prefers-color-scheme: dark)" in whole
    light, dark = (
        set(re.findall(r"(--[a-z-]+):", part))
        for part in whole.split("@media (prefers-color-scheme: dark)")[:2]
    )
    assert light <= dark
    assert not re.search(r'style="[^"]*(?<!, )#[0-9a-f]{6}', whole), "pictures follow the theme"


@pytest.mark.usefixtures("drawn")
def test_equal_runs_give_equal_pages(fake_run, whole):
    assert render(fake_run(privacy=statement()), summary()) == whole


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RecordError, match=r"run\.json"):
        render(RunFolder(tmp_path), summary())
