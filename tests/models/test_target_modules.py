import re
import warnings

import peft
import pytest
import torch
import transformers
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS

from silotune.models.load import load_model
from silotune.models.target_modules import (
    DEFAULT_TARGETS,
    find_sites,
    peft_targets,
)

CLASSIFIERS = ("bert", "roberta", "gpt2", "llama", "vit")


def load(folders, name):
    task = "image-classification" if name == "vit" else "sequence-classification"
    loaded = load_model(str(folders[name]), task, labels=("a", "b"))
    return loaded.model, [head.name for head in loaded.heads]


def chosen_by_peft(model, heads, target_modules, layers=None):
    config = peft.LoraConfig(
        target_modules=target_modules,
        layers_to_transform=layers,
        modules_to_save=heads or None,
        task_type="SEQ_CLS" if heads else "CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return set(peft.get_peft_model(model, config).base_model.targeted_module_names)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("target_modules", "layers"),
    [
        (["query", "value", "q_proj", "c_attn"], None),
        (r".*\.(0|1)\..*(query|q_proj|c_attn|c_fc|fc1)", None),
        ("all-linear", None),
        (["query", "q_proj", "c_attn"], [1]),
    ],
)
def test_chooses_what_peft_chooses(folders, name, target_modules, layers):
    model, heads = load(folders, name)
    if isinstance(target_modules, list):  # ours insists that every suffix is there
        names = [n for n, _ in model.named_modules()]
        target_modules = [t for t in target_modules if any(n.endswith(f".{t}") for n in names)]
    ours = find_sites(model, target_modules, layers, heads)
    assert {site.name for site in ours} == chosen_by_peft(model, heads, target_modules, layers)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_all_linear_leaves_the_output_embedding_out(folders, name):
    model = load_model(str(folders[name]), "causal-lm").model
    names = {site.name for site in find_sites(model, "all-linear")}
    assert "lm_head" not in names
    assert names == chosen_by_peft(model, [], "all-linear")


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_default_is_that_of_peft(folders, name):
    model, heads = load(folders, name)
    ours = {site.name for site in find_sites(model, None, exclude=heads)}
    assert ours == chosen_by_peft(model, heads, None)


def as_set(targets):
    return {targets} if isinstance(targets, str) else set(targets)


def test_table_of_defaults_has_all_that_peft_has_and_agrees():
    expected = {name: as_set(targets) for name, targets in PEFT_TARGETS.items()}
    assert {n: as_set(DEFAULT_TARGETS[n]) for n in DEFAULT_TARGETS if n in expected} == expected


def test_a_default_may_be_a_regular_expression(folders):
    model, heads = load(folders, "llama")
    model.config.model_type = "gemma4"
    with pytest.raises(ValueError, match="matches no module"):
        find_sites(model, None, exclude=heads)


@pytest.mark.parametrize(
    "config",
    [
        transformers.ViTConfig,
        transformers.Dinov2Config,
        transformers.SwinConfig,
        transformers.DistilBertConfig,
        transformers.MPNetConfig,
        transformers.ModernBertConfig,
        transformers.AlbertConfig,
        transformers.Phi3Config,
    ],
)
def test_defaults_of_our_own_match_real_models(config):
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config())
    assert len(find_sites(model, None)) >= 2


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_site_has_the_shape_of_its_module(folders, name):
    model, heads = load(folders, name)
    sites = find_sites(model, "all-linear", exclude=heads)
    assert any(site.in_features != site.out_features for site in sites)
    for site in sites:
        assert site.module is model.get_submodule(site.name)
        assert site.weight().shape == (site.out_features, site.in_features)
        assert site.transposed == (name == "gpt2")
        assert site.module(torch.zeros(2, 5, site.in_features)).shape == (2, 5, site.out_features)


def test_heads_are_never_sites(folders):
    model, heads = load(folders, "roberta")
    names = [site.name for site in find_sites(model, ["dense"], exclude=heads)]
    assert names
    assert not any(name.startswith("classifier") for name in names)


@pytest.mark.parametrize(
    ("target_modules", "message"),
    [
        (["query", "valeu"], r"'valeu' matches no module; did you mean value\?"),
        ("nothing.*", r"'nothing\.\*' matches no module; linear modules end in: dense, key, query"),
        ("query", r"one string is a regular expression for whole names; write \[query\]"),
        ([], r"the list is empty; linear modules end in"),
        ("que(ry", r"'que\(ry' is not a regular expression"),
        (["attention"], r"bert.encoder.layer.0.attention is a BertAttention, not a linear layer"),
        (["LayerNorm"], r"is a LayerNorm, not a linear layer"),
    ],
)
def test_targets_that_cannot_be_adapted(folders, target_modules, message):
    model, heads = load(folders, "bert")
    with pytest.raises(ValueError, match=r"^target_modules: .*" + message):
        find_sites(model, target_modules, exclude=heads)


def test_layers_that_are_not_there(folders):
    model, heads = load(folders, "bert")
    message = "layers_to_transform: no target module is in the layers [7]; there are 0, 1"
    with pytest.raises(ValueError, match=re.escape(message)):
        find_sites(model, ["query"], [7], heads)


def test_default_that_matches_nothing(folders):
    model, _ = load(folders, "bert")
    model.config.model_type = "llama"
    with pytest.raises(ValueError, match=r"^target_modules: 'the default' matches no mod"):
        find_sites(model, None)


def test_architecture_without_a_default(folders):
    model, _ = load(folders, "bert")
    model.config.model_type = "unheard-of"
    with pytest.raises(ValueError, match=r"there is no default for 'unheard-of' models; linear"):
        find_sites(model, None)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("target_modules", "layers"), [(None, None), (None, [1]), ("all-linear", None)]
)
def test_peft_finds_exactly_these_sites_again(folders, name, target_modules, layers):
    model, heads = load(folders, name)
    sites = find_sites(model, target_modules, layers, heads)
    written = peft_targets(sites, model, heads)
    assert chosen_by_peft(model, heads, written) == {site.name for site in sites}


def test_peft_targets_are_short_where_that_is_exact(folders):
    model, heads = load(folders, "bert")
    assert peft_targets(find_sites(model, None), model, heads) == ["query", "value"]
    (site, *_) = top = find_sites(model, ["query"], [1])
    assert peft_targets(top, model, heads) == [site.name]
