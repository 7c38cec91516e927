"""The gradient check must pass an honest model and refuse every way for a gradient to escape."""

import pytest
import torch
from torch import nn

from silotune.adapters import AdaptedModel, inject
from silotune.core import Role
from silotune.engine import GradientCheckError, RecordsMixError, StateKeptError, check_gradients
from toys import CLASSIFY, WIDTH, Notes, Toy, adapter, first_factors, heads, notes, sites

pytestmark = pytest.mark.usefixtures("checked")

BATCH = notes(4).batch(range(4))
EVERYTHING = set(Role)


def check(model: AdaptedModel, roles=EVERYTHING, batch=BATCH) -> None:
    check_gradients(model, CLASSIFY, batch, roles)


def build(toy: Toy) -> AdaptedModel:
    return inject(toy, sites(toy), heads(toy), adapter())


@pytest.mark.parametrize("roles", [EVERYTHING, {Role.B}, {Role.A, Role.B}, {Role.HEAD}])
def test_an_honest_model_passes_and_is_left_as_it_was(roles):
    model = build(Toy())
    model.load(first_factors(adapter()))
    before = model.extract().digest()
    check(model, roles)
    assert model.extract().digest() == before


def test_a_tensor_that_trains_outside_the_sink_is_refused():
    model = build(Toy())
    model.model.norm.weight.requires_grad_(True)
    with pytest.raises(GradientCheckError, match=r"norm\.weight: trained, but neither clipped"):
        check(model)


class Unused(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(WIDTH, WIDTH)


def test_a_site_that_the_model_does_not_use_is_refused():
    from silotune.core import Site

    toy = Unused()
    spare = Site("spare", toy.spare, WIDTH, WIDTH)
    model = inject(toy, [*sites(toy), spare], heads(toy), adapter())
    with pytest.raises(GradientCheckError, match="spare"):
        check(model)


class Tied(Toy):
    """Reads a layer's weight without calling the layer."""

    def forward(self, input_ids, attention_mask):
        out = super().forward(input_ids, attention_mask)
        out.logits = out.logits @ self.classifier.weight @ self.classifier.weight.T
        return out


def test_a_weight_that_is_read_past_its_layer_is_refused():
    with pytest.raises(GradientCheckError, match=r"classifier.*off by"):
        check(build(Tied()))


class Normalised(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Sequential(Swap(), nn.BatchNorm1d(WIDTH), Swap())


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Contrastive(Toy):
    def forward(self, input_ids, attention_mask):
        out = super().forward(input_ids, attention_mask)
        out.logits = out.logits - out.logits.mean(0)
        return out


@pytest.mark.parametrize("kind", [Normalised, Contrastive])
def test_a_model_that_mixes_examples_is_refused(kind):
    with pytest.raises(RecordsMixError, match=r"mixes the examples|be computed alone"):
        check(build(kind()))


@pytest.mark.parametrize("unit", ["client", "none"])
def test_within_a_client_records_may_mix(unit):
    check_gradients(build(Contrastive()), CLASSIFY, BATCH, EVERYTHING, unit=unit)


def test_statistics_that_are_kept_are_refused_where_a_client_is_hidden():
    check_gradients(build(Normalised()), CLASSIFY, BATCH, EVERYTHING, unit="none")
    longer = Notes(tuple(ids for ids in notes(9).ids if len(ids) > 1)).batch(range(4))
    with pytest.raises(StateKeptError, match=r"keeps something of them \(norm\.1\.running_mean"):
        check_gradients(build(Normalised()), CLASSIFY, longer, EVERYTHING, unit="client")


def test_what_modules_keep_is_put_back():
    model = build(Normalised())
    before = {name: b.clone() for name, b in model.model.named_buffers()}
    check_gradients(model, CLASSIFY, BATCH, EVERYTHING, unit="none")
    after = dict(model.model.named_buffers())
    assert all(torch.equal(b, after[name]) for name, b in before.items())


class Random(Toy):
    def forward(self, input_ids, attention_mask):
        out = super().forward(input_ids, attention_mask)
        out.logits = nn.functional.dropout(out.logits, 0.5)
        return out


def test_a_random_forward_pass_is_refused():
    with pytest.raises(GradientCheckError, match="random"):
        check(build(Random()))


class Flattened(Toy):
    """Folds tokens into the first dimension before a layer, as some mixtures of experts do."""

    def forward(self, input_ids, attention_mask):
        h = self.embedding(input_ids)
        n, t, d = h.shape
        h = h + self.down(torch.tanh(self.up(self.norm(h).reshape(n * t, d)))).view(n, t, d)
        mask = attention_mask.unsqueeze(-1)
        out = self.classifier((h * mask).sum(1) / mask.sum(1))
        return type("Output", (), {"logits": out})()


def test_a_layer_that_does_not_see_examples_is_refused():
    with pytest.raises(GradientCheckError, match="first dimension counts examples"):
        check(build(Flattened()))


class Twice(Toy):
    """Uses one layer twice: its rows must add up, and do."""

    def forward(self, input_ids, attention_mask):
        h = self.embedding(input_ids)
        for _ in range(2):
            h = h + self.down(torch.tanh(self.up(self.norm(h))))
        mask = attention_mask.unsqueeze(-1)
        return type("Output", (), {"logits": self.classifier((h * mask).sum(1) / mask.sum(1))})()


def test_a_layer_that_is_used_twice_is_covered():
    check(build(Twice()))


@pytest.mark.parametrize("reentrant", [False, True])
def test_both_forms_of_checkpointing_are_covered(reentrant):
    class Checkpointed(Toy):
        def forward(self, input_ids, attention_mask):
            h = self.embedding(input_ids)
            if reentrant:  # as enable_input_require_grads does
                h = h.requires_grad_()
            block = lambda x: x + self.down(torch.tanh(self.up(self.norm(x))))  # noqa: E731
            h = torch.utils.checkpoint.checkpoint(block, h, use_reentrant=reentrant)
            mask = attention_mask.unsqueeze(-1)
            pooled = (h * mask).sum(1) / mask.sum(1)
            return type("Output", (), {"logits": self.classifier(pooled)})()

    check(build(Checkpointed()))


def test_half_precision_bases_are_covered_within_their_precision():
    toy = Toy().to(torch.bfloat16)
    model = inject(toy, sites(toy), heads(toy), adapter())
    batch = dict(BATCH) | {"attention_mask": BATCH["attention_mask"].bfloat16()}
    check_gradients(model, CLASSIFY, batch, EVERYTHING)
