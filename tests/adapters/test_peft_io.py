"""What we write loads in PEFT with the same function, and what PEFT writes loads here."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from covering import every_combination
from silotune.adapters import Dense, LoRA, PeftLayout, initial_factors, inject, load_peft, save_peft
from silotune.core import Factors, Key, Role, Site, generator
from silotune.linalg import LowRank
from silotune.models.heads import random_head
from silotune.models.load import load_model
from silotune.models.pooling import MeanPooledClassifier
from silotune.models.target_modules import find_sites, peft_targets
from silotune.objectives import CausalLM
from silotune.testing import tiny_models
from toys import CLASSIFY

LABELS = ["no", "yes", "maybe"]
CASES = {
    "bert": (tiny_models.tiny_bert, "sequence-classification", "model", "SEQ_CLS", False),
    "bert-mean": (tiny_models.tiny_bert, "sequence-classification", "mean", None, False),
    "roberta": (tiny_models.tiny_roberta, "sequence-classification", "model", "SEQ_CLS", True),
    "gpt2": (tiny_models.tiny_gpt2, "causal-lm", "model", "CAUSAL_LM", False),
    "gpt2-cls": (tiny_models.tiny_gpt2, "sequence-classification", "model", "SEQ_CLS", False),
    "llama": (tiny_models.tiny_llama, "causal-lm", "model", "CAUSAL_LM", True),
    "vit": (tiny_models.tiny_vit, "image-classification", "model", None, False),
}


def base_model(folder, task, pooling):
    if pooling == "mean":
        return MeanPooledClassifier(AutoModel.from_pretrained(folder), len(LABELS))
    auto = {
        "sequence-classification": AutoModelForSequenceClassification,
        "image-classification": AutoModelForImageClassification,
        "causal-lm": AutoModelForCausalLM,
    }[task]
    labels = {} if task == "causal-lm" else {"num_labels": len(LABELS)}
    return auto.from_pretrained(folder, ignore_mismatched_sizes=True, **labels)


def build(folder, task, pooling, lora, head_scale=1.0):
    labels = () if task == "causal-lm" else tuple(LABELS)
    loaded = load_model(str(folder), task, labels=labels, pooling=pooling)
    names = [site.name for site in loaded.heads]
    sites = find_sites(loaded.model, None, None, names)
    targets = peft_targets(sites, loaded.model, names)
    factors = initial_factors(sites, lora, 0).updated(random_head(loaded.heads, 0))
    factors = Factors(
        {k: t + 0.1 * torch.randn(t.shape, generator=generator(str(k))) for k, t in factors.items()}
    )
    adapted = inject(loaded.model, sites if lora else (), loaded.heads, lora, head_scale)
    adapted.load(factors if lora else factors.only({"head"}))
    prefix = loaded.model.base_model_prefix
    saved = {n if n.startswith(prefix) else n.split(".")[0] for n in names}
    return loaded, adapted, sites, targets, sorted(saved)


def logits(model, loaded, task):
    objective = CausalLM(text="text") if task == "causal-lm" else CLASSIFY
    batch = objective.synthetic(loaded.inputs, (5, 8, 4, 7), 0)
    with torch.no_grad():
        return model(**{k: v for k, v in batch.items() if k != "labels"}).logits


@pytest.mark.filterwarnings("ignore")
@every_combination(case=sorted(CASES), rslora=[False, True])
def test_peft_computes_what_we_compute(tmp_path, case, rslora):
    make, task, pooling, task_type, _ = CASES[case]
    folder = make(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0, rslora=rslora)
    loaded, adapted, sites, targets, saved = build(folder, task, pooling, lora, head_scale=0.5)
    layout = PeftLayout(
        base_model=str(folder),
        task_type=task_type,
        target_modules=targets,
        modules_to_save=saved,
        head_scale=0.5,
    )
    save_peft(tmp_path / "adapter", adapted.extract(), lora, sites, layout)
    expected = logits(adapted.model, loaded, task)
    base = base_model(folder, task, pooling)
    if task == "sequence-classification":
        base.config.pad_token_id = loaded.model.config.pad_token_id  # GPT-2 has none of its own
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(theirs.eval(), loaded, task), expected, atol=2e-6, rtol=1e-5)
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    factors, folded = load_peft(tmp_path / "adapter", shapes, lora, 0.5)
    assert factors.digest() == adapted.extract().digest()
    assert folded == {}


@pytest.mark.filterwarnings("ignore")
def test_what_peft_wrote_loads_here(tmp_path):
    folder = tiny_models.tiny_bert(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["query", "value"], task_type="SEQ_CLS")
    theirs = get_peft_model(base_model(folder, "sequence-classification", "model"), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    loaded, adapted, *_ = build(folder, "sequence-classification", "model", lora)
    adapted.load(*read_back(tmp_path / "adapter", adapted, lora))
    expected = logits(theirs.eval(), loaded, "sequence-classification")
    ours = logits(adapted.model, loaded, "sequence-classification")
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_head_alone_is_an_adapter_too(tmp_path):
    folder = tiny_models.tiny_bert(tmp_path / "base")
    loaded, adapted, sites, _, saved = build(folder, "sequence-classification", "model", None)
    layout = PeftLayout(
        base_model=str(folder),
        task_type="SEQ_CLS",
        target_modules=[sites[0].name],
        modules_to_save=saved,
        head_scale=1.0,
    )
    save_peft(tmp_path / "adapter", adapted.extract(), None, sites[:1], layout)
    base = base_model(folder, "sequence-classification", "model")
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    expected = logits(adapted.model, loaded, "sequence-classification")
    torch.testing.assert_close(
        logits(theirs.eval(), loaded, "sequence-classification"), expected, atol=2e-6, rtol=1e-5
    )
    factors, folded = read_back(tmp_path / "adapter", adapted, None)
    assert factors.digest() == adapted.extract().digest()
    assert folded == {}


def test_an_adapter_of_another_model_is_refused(tmp_path):
    folder = tiny_models.tiny_bert(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0)
    _, adapted, sites, targets, saved = build(folder, "sequence-classification", "model", lora)
    layout = PeftLayout(
        base_model="x",
        task_type=None,
        target_modules=targets,
        modules_to_save=saved,
        head_scale=1.0,
    )
    save_peft(tmp_path / "adapter", adapted.extract(), lora, sites, layout)
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    key = next(iter(shapes))
    with pytest.raises(ValueError, match="shape"):
        load_peft(tmp_path / "adapter", shapes | {key: (1, 1)}, lora, 1.0)
    with pytest.raises(ValueError, match="tensors differ"):
        load_peft(
            tmp_path / "adapter", {k: s for k, s in shapes.items() if k.site != key.site}, lora, 1.0
        )
    with pytest.raises(ValueError, match=r"adapter_model.safetensors cannot be read"):
        load_peft(tmp_path / "nowhere", shapes, lora, 1.0)
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter_config.json cannot be read"):
        load_peft(tmp_path / "adapter", shapes, lora, 1.0)


def read_back(place, adapted, adapter, head_scale=1.0):
    shapes = {key: tuple(t.shape) for key, t in adapted.tensors.items()}
    return load_peft(place, shapes, adapter, head_scale)


def a_fold(site, rank):
    """Something that earlier rounds added to the base."""
    g = generator("fold", site.name)
    left = 0.2 * torch.randn(site.out_features, rank, generator=g)
    return LowRank(left, 0.2 * torch.randn(rank, site.in_features, generator=g))


def whole(matrix):
    return matrix.dense() if isinstance(matrix, LowRank) else matrix


def written(place):
    config = json.loads((place / "adapter_config.json").read_text())
    return config, load((place / "adapter_model.safetensors").read_bytes())


def ranks(place):
    """Of the pairs in an adapter folder, by site."""
    _, tensors = written(place)
    prefix, end = "base_model.model.", ".lora_A.weight"
    return {n[len(prefix) : -len(end)]: t.shape[0] for n, t in tensors.items() if n.endswith(end)}


class Written:
    """A model with folds, its adapter folder, and what it computes."""

    def __init__(self, tmp_path, case, lora, fold):
        make, task, pooling, task_type, _ = CASES[case]
        self.folder, self.task, self.pooling = make(tmp_path / "base"), task, pooling
        self.place, self.lora = tmp_path / "adapter", lora
        self.loaded, self.adapted, self.sites, targets, saved = build(
            self.folder, task, pooling, lora, head_scale=0.5
        )
        self.factors = self.adapted.extract()
        self.folded = {s.name: fold(s) for s in self.sites[::2]}  # the other sites have none
        self.layout = PeftLayout(
            base_model=str(self.folder),
            task_type=task_type,
            target_modules=targets,
            modules_to_save=saved,
            head_scale=0.5,
        )

    def save(self):
        save_peft(self.place, self.factors, self.lora, self.sites, self.layout, self.folded)
        return self

    def ours(self, factors=None, folded=None):
        self.adapted.load(factors or self.factors, self.folded if folded is None else folded)
        return logits(self.adapted.model.eval(), self.loaded, self.task)

    def peft(self):
        base = base_model(self.folder, self.task, self.pooling)
        if self.task == "sequence-classification":
            base.config.pad_token_id = self.loaded.model.config.pad_token_id
        return logits(PeftModel.from_pretrained(base, self.place).eval(), self.loaded, self.task)

    def check(self):
        """PEFT computes what we compute, and so do we with what is read back."""
        expected = self.ours()
        assert not torch.allclose(self.ours(folded={}), expected, atol=1e-3)  # the folds matter
        torch.testing.assert_close(self.peft(), expected, atol=5e-6, rtol=2e-5)
        again = self.ours(*read_back(self.place, self.adapted, self.lora, 0.5))
        torch.testing.assert_close(again, expected, atol=5e-6, rtol=2e-5)


@pytest.mark.filterwarnings("ignore")
@every_combination(case=sorted(CASES), rslora=[False, True])
def test_what_was_folded_goes_into_the_pairs(tmp_path, case, rslora):
    model = Written(tmp_path, case, LoRA(rank=3, alpha=5.0, rslora=rslora), lambda s: a_fold(s, 4))
    model.save().check()
    found = ranks(model.place)
    assert {site: found[site] for site in model.folded} == dict.fromkeys(model.folded, 7)
    assert sorted({found[s.name] for s in model.sites if s.name not in model.folded}) == [3]
    factors, folded = read_back(model.place, model.adapted, model.lora, 0.5)
    assert folded.keys() == model.folded.keys()
    for site, matrix in folded.items():
        assert not factors.pair(site).left.any()
        expected = whole(model.folded[site]) + model.factors.pair(site).dense()
        torch.testing.assert_close(whole(matrix), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["bert", "gpt2", "llama"])
def test_a_fold_that_turned_dense_goes_into_a_pair_as_well(tmp_path, case):
    lora = LoRA(rank=3, alpha=5.0)
    model = Written(tmp_path, case, lora, lambda s: whole(a_fold(s, min(s.weight().shape))))
    model.save().check()
    found = ranks(model.place)
    smaller = {s.name: min(s.in_features, s.out_features) for s in model.sites}
    assert {s: found[s] for s in model.folded} == {s: smaller[s] for s in model.folded}
    _, folded = read_back(model.place, model.adapted, lora, 0.5)
    assert all(isinstance(matrix, torch.Tensor) for matrix in folded.values())


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (6, 6)])
def test_a_matrix_beside_an_identity_comes_back_to_the_bit(tmp_path, shape):
    site = Site("layer", torch.nn.Linear(shape[1], shape[0]), shape[1], shape[0])
    layout = PeftLayout(
        base_model="x", task_type=None, target_modules=["layer"], modules_to_save=[], head_scale=1.0
    )
    matrix = torch.randn(shape, generator=generator("whole", shape))
    key = Key("layer", Role.D)
    save_peft(tmp_path, Factors({key: matrix}), Dense(), [site], layout)
    config, tensors = written(tmp_path)
    assert config["r"] == config["lora_alpha"] == 6
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    factors, folded = load_peft(tmp_path, {key: shape}, Dense(), 1.0)
    assert torch.equal(factors[key], matrix)
    assert folded == {}


@pytest.mark.filterwarnings("ignore")
def test_a_pair_that_does_nothing_takes_no_room_beside_a_fold(tmp_path):
    lora = LoRA(rank=3, alpha=5.0)
    model = Written(tmp_path, "bert", lora, lambda s: a_fold(s, 4))
    fresh = {k: torch.zeros_like(t) for k, t in model.factors.items() if k.role is Role.B}
    model.factors = model.factors.updated(fresh)
    model.save().check()
    found = ranks(model.place)
    assert {found[site] for site in model.folded} == {4}
    _, folded = read_back(model.place, model.adapted, lora, 0.5)
    assert all(torch.equal(whole(folded[s]), whole(m)) for s, m in model.folded.items())


@pytest.mark.filterwarnings("ignore")
def test_terms_that_are_not_needed_are_left_out(tmp_path):
    lora = LoRA(rank=3, alpha=5.0)

    def doubled(site):
        fold = a_fold(site, 4)
        return fold + fold * 0.5  # eight terms, of which four would do

    model = Written(tmp_path, "bert", lora, doubled)
    model.save().check()
    found = ranks(model.place)
    assert {found[site] for site in model.folded} == {7}


@pytest.mark.filterwarnings("ignore")
def test_one_rank_for_all_needs_no_patterns(tmp_path):
    lora = LoRA(rank=3, alpha=5.0)
    model = Written(tmp_path, "bert", lora, lambda s: a_fold(s, 4))
    model.folded = {s.name: a_fold(s, 4) for s in model.sites}
    model.save().check()
    config, _ = written(model.place)
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (7, {}, {})
    assert config["lora_alpha"] == pytest.approx(7 * 5 / 3)


@pytest.mark.filterwarnings("ignore")
def test_a_fold_beside_a_base_in_half_precision_is_not_rounded(tmp_path):
    lora = LoRA(rank=3, alpha=5.0)
    model = Written(tmp_path, "bert", lora, lambda s: a_fold(s, 4))
    model.adapted.model.to(torch.bfloat16)
    for layer in model.adapted.layers.values():
        layer.A.data, layer.B.data = layer.A.float(), layer.B.float()
    model.save()
    _, tensors = written(model.place)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    _, folded = read_back(model.place, model.adapted, lora, 0.5)
    for site, matrix in folded.items():
        expected = whole(model.folded[site]) + model.factors.pair(site).dense()
        torch.testing.assert_close(whole(matrix), expected)
    base = base_model(model.folder, model.task, model.pooling).to(torch.bfloat16)
    theirs = logits(PeftModel.from_pretrained(base, model.place).eval(), model.loaded, model.task)
    torch.testing.assert_close(theirs, model.ours(), atol=3e-2, rtol=3e-2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_wrote_with_other_ranks_and_scales_loads_here(tmp_path, rslora):
    folder = tiny_models.tiny_bert(tmp_path / "base")
    lora = LoRA(rank=3, alpha=5.0)
    config = LoraConfig(
        r=3,
        lora_alpha=7,  # another scale than ours
        use_rslora=rslora,
        target_modules=["query", "value"],
        task_type="SEQ_CLS",
        rank_pattern={"layer.0.attention.self.query": 5},
        alpha_pattern={"value": 2, r"layer\.\d.attention.self.query": 11},
    )
    theirs = get_peft_model(base_model(folder, "sequence-classification", "model"), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "adapter")
    loaded, adapted, *_ = build(folder, "sequence-classification", "model", lora)
    factors, folded = read_back(tmp_path / "adapter", adapted, lora)
    assert list(folded) == ["bert.encoder.layer.0.attention.self.query"]
    adapted.load(factors, folded)
    expected = logits(theirs.eval(), loaded, "sequence-classification")
    ours = logits(adapted.model, loaded, "sequence-classification")
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)
