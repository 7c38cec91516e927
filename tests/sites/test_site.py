"""A run with sites: what they are asked, what they answer, and what never crosses."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import transformers

import silotune as st
from federation.objects import SEEDED, classifier
from federation.small import SILOS
from silotune.core import Factors, RecordError, decode_result, decode_task, encode_task
from silotune.federation.acceptance import SitesRefuseError
from silotune.federation.sites import Sites
from silotune.models.hub import files_digest
from silotune.privacy import SiloStoreError
from silotune.privacy.lifetime.budget import Ceiling
from silotune.runtimes.messages import TRAIN, lines_of, message, opened
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from silotune.site.site import Site
from silotune.terms import Machine
from silotune.testing.tiny_models import tiny_bert
from sites.wire import EVERYTHING, OPEN, Wire, federation, simulation, terms, weights, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)


def run_of(folder):
    return json.loads((folder / "run.json").read_text())["run"]


def home_of(courier, name, folder):
    return Home(courier.own[name].home).run(run_of(folder))


def lines(file):
    return file.read_text().splitlines(keepends=True)


FULL = pytest.mark.full


@pytest.mark.parametrize(
    ("privacy", "method"),
    [
        pytest.param(st.NoDP(), "FFALoRA", id="none"),
        pytest.param(SEEDED, "FedIT", id="seeded"),
        pytest.param(SEEDED, "FFALoRA", id="FFA-LoRA", marks=FULL),
        pytest.param(st.NoDP(), "FedIT", id="FedIT", marks=FULL),
    ],
)
def test_it_ends_in_the_bits_of_the_simulation(tmp_path, bert, privacy, method):
    changes = {"privacy": privacy, "method": getattr(st.methods, method)(r=2)}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    courier = wire(tmp_path, bert)
    federation(bert, min_clients=2, **changes).fit(
        tmp_path / "there", courier=courier, progress=False
    )
    assert weights(tmp_path / "there") == weights(tmp_path / "here")


@pytest.mark.full
@pytest.mark.parametrize("upload", ["bfloat16", "int8"])
def test_updates_in_fewer_bits_end_in_the_bits_of_the_simulation(tmp_path, bert, upload):
    changes = {"privacy": SEEDED, "upload_dtype": upload}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    courier = wire(tmp_path, bert)
    federation(bert, min_clients=2, **changes).fit(
        tmp_path / "there", courier=courier, progress=False
    )
    assert weights(tmp_path / "there") == weights(tmp_path / "here")


@pytest.mark.full
@pytest.mark.parametrize("asked", [{"clients_per_round": 1}, {"cohort_rate": 0.4}])
def test_sampled_sites_with_carried_optimisers_end_in_the_bits_of_the_simulation(
    tmp_path, bert, asked
):
    """Each is asked in some rounds, and its optimiser goes on from its own last one."""
    changes = {
        "privacy": SEEDED,
        "optimizer": st.optim.AdamW(lr=0.01),
        "rounds": 4,
        "seed": 3,
        "local_state": "carried",
        "lr_schedule": "cosine",
        **asked,
    }
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    alone = replace(EVERYTHING, privacy=replace(OPEN, min_other_sites=0))
    courier = wire(tmp_path, bert, policy=alone)
    described = federation(bert, min_clients=1, **changes)
    described.fit(tmp_path / "there", courier=courier, progress=False)
    assert weights(tmp_path / "there") == weights(tmp_path / "here")


@pytest.mark.parametrize(
    "upload", ["float32", *(pytest.param(u, marks=FULL) for u in ("bfloat16", "int8"))]
)
def test_a_private_run_adds_up_on_both_sides(tmp_path, bert, upload):
    """The coordinator's certificate is made of what it heard; each site has the same by itself."""
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    described = federation(bert, privacy=PRIVATE, upload_dtype=upload)
    run = described.fit(folder, courier=courier, progress=False)
    assert run.privacy.verify().ok
    assert not (folder / "sites").exists(), "no folder of a site is at the coordinator"
    for name, site in courier.own.items():
        found = verify_own(Home(site.home), name, run_of(folder))
        assert found.ok, found.findings
        own = Home(site.home).run(run_of(folder)) / "ledger.jsonl"
        mine = [line for line in lines(folder / "ledger.jsonl") if f'"silo": "{name}"' in line]
        assert lines(own) == mine
    told = json.loads((folder / "sites.json").read_text())
    assert {site["result"] for site in told["sites"].values()} == {"taken"}


@pytest.mark.parametrize(
    "privacy",
    [pytest.param(st.NoDP(), id="none", marks=FULL), pytest.param(PRIVATE, id="example")],
)
def test_sites_keep_the_result_where_their_policy_lets_them(tmp_path, bert, privacy):
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    courier.allow("west", accept_result=False)
    federation(bert, privacy=privacy).fit(folder, courier=courier, progress=False)
    kept = {name: home_of(courier, name, folder) / "adapter" for name in SILOS}
    assert weights(folder) == (kept["east"] / "adapter_model.safetensors").read_bytes()
    assert not kept["west"].exists()
    assert st.load(kept["east"]).predict(["cat slept"])


def test_tensors_that_stay_at_the_site_end_in_its_own_adapter(tmp_path, bert):
    changes = {"method": st.methods.FedSALoRA(r=2)}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    courier, folder = wire(tmp_path, bert), tmp_path / "there"
    federation(bert, **changes).fit(folder, courier=courier, progress=False)
    for name in SILOS:
        here = tmp_path / "here" / "sites" / name / "adapter" / "adapter_model.safetensors"
        there = home_of(courier, name, folder) / "adapter" / "adapter_model.safetensors"
        assert there.read_bytes() == here.read_bytes()
    assert not list((folder / "adapter").glob("*.safetensors"))


@pytest.mark.parametrize(
    "privacy",
    [pytest.param(st.NoDP(), id="none", marks=FULL), pytest.param(SEEDED, id="seeded")],
)
def test_a_site_that_is_started_again_before_every_order(tmp_path, bert, privacy):
    class Restarting(Wire):
        def carried(self, name, order):
            self.restart(name)
            return super().carried(name, order)

    runs = {}
    for kind in (Wire, Restarting):
        place = tmp_path / kind.__name__
        place.mkdir()
        courier = wire(place, bert, kind)
        federation(bert, privacy=privacy, rounds=2).fit(
            place / "run", courier=courier, progress=False
        )
        runs[kind] = weights(place / "run")
    assert runs[Wire] == runs[Restarting]


def test_a_coordinator_that_is_killed_goes_on_and_nothing_is_charged_twice(tmp_path, bert):
    """Every answer of a round was lost with it: sites send again what they charged for."""

    class Killed(Exception):
        pass

    class Losing(Wire):
        trains = 0

        def carried(self, name, order):
            answer = super().carried(name, order)
            self.trains += order[:1] == b"T"
            if order[:1] == b"T" and self.trains == 4:  # the second round's last answer is lost
                raise Killed
            return answer

    courier, folder = wire(tmp_path, bert, Losing), tmp_path / "run"
    with pytest.raises(Killed):
        federation(bert, privacy=PRIVATE).fit(folder, courier=courier, progress=False)
    run = federation(bert, privacy=PRIVATE).fit(
        folder, courier=courier, progress=False, resume=True
    )
    for name in SILOS:
        assert len(lines(home_of(courier, name, folder) / "ledger.jsonl")) == 3
    assert run.privacy.verify().ok
    assert [len(r.clients) for r in run.metrics if r.round >= 0] == [2, 2, 2]


def test_nobody_is_in_the_way_of_a_quorum(tmp_path, bert):
    class Silent(Wire):
        def carried(self, name, order):
            lost = name == "west" and order[:1] == b"T"
            return None if lost else super().carried(name, order)

    courier, folder = wire(tmp_path, bert, Silent), tmp_path / "run"
    for name in SILOS:
        courier.own[name] = replace(
            courier.own[name],
            policy=replace(EVERYTHING, privacy=replace(OPEN, min_other_sites=0)),
        )
    run = federation(bert, min_clients=1).fit(folder, courier=courier, progress=False)
    assert {r.missing["west"] for r in run.metrics if r.round >= 0} == {"no answer in time"}


def test_a_person_has_to_approve(tmp_path, bert, caplog):
    """Who waits may stop waiting, and goes on with the same offer."""
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    courier.allow("west", approve="each")
    asked = {"privacy": PRIVATE}
    impatient = federation(bert, **asked)
    impatient.offer_deadline = 1.5
    with pytest.raises(SitesRefuseError, match=r"nobody has approved the run at west"):
        impatient.fit(folder, courier=courier, progress=False)
    home = Home(courier.own["west"].home)
    [offer] = home.offers()
    home.decide(offer, "approved")
    federation(bert, **asked).fit(folder, courier=courier, progress=False, resume=True)
    assert run_of(folder) == offer.run


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"methods": ("fedit",)}, "its policy does not allow it (methods)"),
        ({"max_rounds": 2}, "its policy does not allow it (max_rounds)"),
        ({"coordinator": "mallory"}, "its policy does not allow it (coordinator)"),
        ({"privacy": replace(OPEN, units=("example",))}, "(privacy.units)"),
        ({"privacy": replace(OPEN, min_other_sites=2)}, "(privacy.min_other_sites)"),
    ],
)
def test_what_a_policy_does_not_allow_does_not_begin(tmp_path, bert, changes, code):
    courier = wire(tmp_path, bert)
    courier.allow("west", **changes)
    with pytest.raises(SitesRefuseError, match="west: ") as refused:
        federation(bert).fit(tmp_path / "run", courier=courier, progress=False)
    assert code in str(refused.value)
    assert {kind for _, kind, _ in courier.kinds} == {"O"}


def test_a_policy_that_is_tightened_counts_for_the_next_order(tmp_path, bert):
    class Tightened(Wire):
        def carried(self, name, order):
            if order[:1] == b"T" and self.kinds.count(("west", "T", "R")) == 1:
                self.allow("west", max_local_steps=1)
            return super().carried(name, order)

    courier, folder = wire(tmp_path, bert, Tightened), tmp_path / "run"
    with pytest.raises(st.QuorumError, match=r"west: its policy does not allow it"):
        federation(bert, privacy=PRIVATE).fit(folder, courier=courier, progress=False)
    assert len(lines(home_of(courier, "west", folder) / "ledger.jsonl")) == 1


def test_a_base_of_other_weights(tmp_path, bert):
    other = tiny_bert(tmp_path / "other", seed=1)
    courier = wire(tmp_path, bert)
    digest = files_digest(str(bert))
    courier.own["west"] = replace(courier.own["west"], models={digest: other})
    with pytest.raises(SitesRefuseError, match="west: it has no base model of this digest"):
        federation(bert).fit(tmp_path / "run", courier=courier, progress=False)


def test_a_server_that_asks_for_more_than_was_agreed(tmp_path, bert):
    """Orders are those of an honest round but for one field; nothing is trained or charged."""
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    orders = []

    class Kept(Wire):
        def carried(self, name, order):
            orders.append((name, order))
            return super().carried(name, order)

    courier = wire(tmp_path, bert, Kept)
    federation(bert, privacy=PRIVATE, rounds=1).fit(folder, courier=courier, progress=False)
    [(_, order)] = [(n, o) for n, o in orders if o[:1] == b"T" and n == "west"]
    asked = opened(order)
    task = decode_task(asked.body)
    home = home_of(courier, "west", folder)
    before = lines(home / "ledger.jsonl")
    for lie in (
        replace(task, steps=3),
        replace(task, round=1),
        replace(task, run="another"),
        replace(task, client="east"),
        replace(task, learning_rates=(5.0, *task.learning_rates[1:])),
        replace(task, seed=1),
    ):
        answer = opened(courier.sites["west"].answer(message(TRAIN, asked.head, encode_task(lie))))
        assert answer.kind == b"N" or decode_result(lines_of(answer)[1]).refusal
    assert lines(home / "ledger.jsonl") == before


@pytest.mark.parametrize(
    "order",
    [
        b"",
        b"T",
        b"?" * 40,
        message(b"Z", {"run": "x"}),
        message(b"T", {"run": "../.."}),
        message(b"B", {}),
        message(b"O", {}, b"{}"),
        message(b"F", {"run": None}),
    ],
)
def test_it_never_raises_and_answers_with_a_code(tmp_path, bert, order):
    answer = opened(wire(tmp_path, bert).sites["east"].answer(order))
    assert answer.kind == b"N"
    assert set(answer.head) == {"code"}
    assert answer.body == b""


def test_a_file_of_its_own_that_cannot_be_read_refuses_everything(tmp_path, bert):
    def unreadable():
        raise ValueError("a key that nobody knows: secret")

    assert opened(Site(unreadable).answer(b"anything")).head == {"code": "policy:file"}


def test_sizes_that_a_server_makes_up(tmp_path, bert):
    class Lying(Wire):
        def carried(self, name, order):
            asked = opened(order)
            if asked.kind == b"B":
                sizes = {**asked.head["sizes"], name: 2000}
                order = message(b"B", {**asked.head, "sizes": sizes})
            return super().carried(name, order)

    with pytest.raises(SitesRefuseError, match=r"what was not agreed \(sizes\)"):
        federation(bert, privacy=PRIVATE).fit(
            tmp_path / "run", courier=wire(tmp_path, bert, Lying), progress=False
        )


def test_a_certificate_that_says_less_than_the_ledger(tmp_path, bert):
    class Lying(Wire):
        def carried(self, name, order):
            asked = opened(order)
            if asked.kind == b"F":
                said = json.loads(asked.head["certificate"])
                said["silos"][name]["epsilon"] /= 2
                order = message(b"F", {**asked.head, "certificate": json.dumps(said)}, asked.body)
            return super().carried(name, order)

    courier, folder = wire(tmp_path, bert, Lying), tmp_path / "run"
    with pytest.raises(SiloStoreError, match="certificate is not what its ledger says"):
        federation(bert, privacy=PRIVATE, rounds=1).fit(folder, courier=courier, progress=False)
    assert json.loads((folder / "run.json").read_text())["status"].startswith("failed")
    told = json.loads((folder / "sites.json").read_text())["sites"]
    assert {site["result"] for site in told.values()} == {
        "the certificate is not what its ledger says"
    }


def test_noisy_counts_and_scores_are_heard_of(tmp_path, bert):
    privacy = replace(PRIVATE, count_noise=2.0, metric_noise=2.0)
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    run = federation(bert, privacy=privacy, weighting="num_examples").fit(
        folder, courier=courier, progress=False
    )
    assert run.privacy.verify().ok
    assert all("accuracy" in record.metrics for record in run.metrics if record.round >= 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": "simulation"}, "evaluation: simulation looks at"),
        ({"objective": classifier(labels=None)}, "labels: must be given"),
        ({"runtime": "pool"}, "runtime: pool is for clients on this machine"),
        ({"limit": 3}, "limit: is of a site's own records"),
        ({"method": st.methods.FFALoRA(r=2, init_from="/a")}, "init_from: names files"),
    ],
)
def test_what_cannot_be_where_records_are_elsewhere(bert, changes, words):
    with pytest.raises(ValueError, match=words):
        federation(bert, **changes)


def test_without_a_courier_it_is_said_what_is_missing(tmp_path, bert):
    with pytest.raises(ValueError, match="courier: these clients are at their sites"):
        federation(bert).fit(tmp_path / "run", progress=False)


def test_an_update_without_its_charge_is_not_used(tmp_path, bert):
    class Hiding(Wire):
        def carried(self, name, order):
            answer = opened(super().carried(name, order))
            if name == "west" and answer.kind == b"R":
                return message(b"R", {}, lines_of(answer)[1])
            return message(*answer)

    courier, folder = wire(tmp_path, bert, Hiding), tmp_path / "run"
    for name in SILOS:
        courier.allow(name, privacy=replace(OPEN, min_other_sites=0))
    with closing(
        federation(bert, privacy=PRIVATE, min_clients=1).rounds(folder, courier=courier)
    ) as rounds:
        record = next(record for record in rounds if record.round == 0)
    assert record.missing["west"] == "it did not tell what it charged for its update"


def test_a_limit_that_is_lowered_counts_for_a_run_that_is_open(tmp_path, bert):
    class Lowered(Wire):
        def carried(self, name, order):
            if order[:1] == b"T" and self.kinds.count(("west", "T", "R")) == 1 and name == "west":
                life = Ceiling(epsilon=1.3, delta=1e-3)
                privacy = replace(OPEN, units=("example",), max_epsilon=1.3, max_delta=1e-3)
                self.allow("west", privacy=replace(privacy, lifetime=life))
            return super().carried(name, order)

    courier, folder = wire(tmp_path, bert, Lowered), tmp_path / "run"
    with pytest.raises(st.QuorumError, match="west"):
        federation(bert, privacy=PRIVATE).fit(folder, courier=courier, progress=False)
    assert len(lines(home_of(courier, "west", folder) / "ledger.jsonl")) == 1


def test_what_was_accepted_and_taken_stays(tmp_path, bert):
    """A later offer of the same name, a worse certificate and an earlier state change nothing."""
    courier, folder = wire(tmp_path, bert), tmp_path / "run"
    orders = []

    class Kept(Wire):
        def carried(self, name, order):
            orders.append((name, order))
            return super().carried(name, order)

    courier = wire(tmp_path, bert, Kept)
    federation(bert, privacy=PRIVATE, rounds=1).fit(folder, courier=courier, progress=False)
    site, home = courier.sites["west"], Home(courier.own["west"].home)
    run, kept = run_of(folder), home_of(courier, "west", folder)
    of_west = {order[:1]: opened(order) for name, order in orders if name == "west"}
    offer, finish, train = (of_west[kind] for kind in (b"O", b"F", b"T"))
    adapter = (kept / "adapter" / "adapter_model.safetensors").read_bytes()

    other = replace(home.offer(run), title="another")
    answers = [
        site.answer(message(b"O", offer.head, other.to_bytes())),
        site.answer(message(b"F", {**finish.head, "certificate": "{}"}, finish.body)),
        site.answer(message(b"F", {**finish.head, "certificate": "[" * 9999}, finish.body)),
        site.answer(message(b"F", finish.head, train.body)),
    ]
    codes = [opened(answer).head["code"] for answer in answers]
    assert codes == ["order:offer", "certificate", "certificate", "order:round"]
    assert verify_own(home, "west", run).ok
    assert (kept / "adapter" / "adapter_model.safetensors").read_bytes() == adapter


def test_refused_states_are_not_kept(tmp_path, bert):
    class Kept(Wire):
        def carried(self, name, order):
            if order[:1] == b"T" and name == "west":
                self.order = order
            return super().carried(name, order)

    courier, folder = wire(tmp_path, bert, Kept), tmp_path / "run"
    federation(bert, privacy=PRIVATE, rounds=2).fit(folder, courier=courier, progress=False)
    site, asked = courier.sites["west"], opened(courier.order)
    before = set(site._begun.responder._held)
    task = decode_task(asked.body)
    for number in range(5):
        factors = Factors({key: t * (1e9 + number) for key, t in task.factors.items()})
        lie = replace(task, factors=factors)
        site.answer(message(TRAIN, asked.head, encode_task(lie)))
        assert site._begun.responder._held.keys() <= before


def test_an_error_that_cannot_be_written_down_is_no_answer_either(tmp_path, bert, monkeypatch):
    courier = wire(tmp_path, bert)

    def full(*_):
        raise RecordError("no space left")

    monkeypatch.setattr("silotune.site.keeping.append_line", full)
    monkeypatch.setattr("silotune.site.site.opened", lambda _: 1 / 0)
    assert opened(courier.sites["east"].answer(b"anything")).head == {"code": "failed"}


def test_errors_without_end_fill_no_disk(tmp_path, bert, monkeypatch):
    courier = wire(tmp_path, bert)
    home = courier.own["east"].home
    home.mkdir(parents=True)
    monkeypatch.setattr("silotune.site.site.opened", lambda _: 1 / 0)
    monkeypatch.setattr("silotune.site.keeping.MOST_ERRORS", 5_000)
    for _ in range(20):
        courier.sites["east"].answer(b"anything")
    assert 0 < sum(f.stat().st_size for f in home.glob("errors*")) < 4 * 5_000
    assert "ZeroDivisionError" in lines(home / "errors.jsonl")[-1]


def test_a_model_that_is_an_object_is_known_to_no_site(bert):
    model = transformers.AutoModel.from_pretrained(bert)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    with pytest.raises(ValueError, match="model: sites know a base by the SHA-256 of its files"):
        st.Federation(**terms(bert) | {"model": model}, tokenizer=tokenizer, clients=Sites(SILOS))


def test_what_a_site_remembers_of_its_records_ends_with_the_run(tmp_path, bert):
    upper = st.methods.FFALoRA(r=2, layers_to_transform=(1,))
    kinds = []

    class Watched(Wire):
        def carried(self, name, order):
            answer = super().carried(name, order)
            begun = self.sites[name]._begun
            if begun is not None:
                kinds.append((order[:1].decode(), "_states" in vars(begun.client.train)))
            return answer

    courier = wire(tmp_path, bert, Watched, machine=Machine(prefix_cache="disk"))
    federation(bert, method=upper).fit(tmp_path / "run", courier=courier, progress=False)
    kept = [has for kind, has in kinds if kind == "T"]
    assert kept
    assert all(kept)
    assert not kinds[-1][1]
