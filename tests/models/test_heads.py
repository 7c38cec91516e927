import pytest
import torch
import transformers

from silotune.core import Key, Role
from silotune.models.heads import checkpoint_head, prototype_head, random_head
from silotune.models.load import load_model, quiet

TEXT = "sequence-classification"


def load(folder, labels=("a", "b", "c"), pooling="model"):
    return load_model(str(folder), TEXT, labels=labels, pooling=pooling)


def put(loaded, factors):
    for key, tensor in factors.items():
        loaded.model.get_submodule(key.site).get_parameter(key.name).copy_(tensor)


def test_random_head_comes_from_seed_and_name_alone(folders):
    heads = load(folders["roberta"]).heads
    torch.manual_seed(0)
    one = random_head(heads, 7)
    torch.manual_seed(1)
    again = random_head(heads[::-1], 7)
    assert one.digest() == again.digest()
    assert one.digest() != random_head(heads, 8).digest()
    assert all(key.role is Role.HEAD for key in one)
    assert all(tensor.dtype == torch.float32 for tensor in one.values())


def test_random_head_has_the_stated_range(folders):
    heads = load(folders["roberta"]).heads
    head = random_head(heads, 7)
    weight = head[Key("classifier.dense", Role.HEAD, "weight")]
    bound = 32**-0.5
    assert weight.shape == (32, 32)
    assert 0.9 * bound < weight.max() <= bound
    assert -bound <= weight.min() < -0.9 * bound
    assert abs(weight.mean()) < 0.1 * bound
    assert not head[Key("classifier.out_proj", Role.HEAD, "bias")].any()


def test_random_head_is_the_same_on_every_machine(folders):
    """Published numbers: a change here changes every result that a seed stands for."""
    head = random_head(load(folders["bert"]).heads, 0)
    digest = "763e2ef2ee04070d00c8ec098a44d208183f0311bf58812100cf1306a60f752f"
    assert head.digest() == digest


def test_head_without_a_bias_has_no_bias(folders):
    assert list(random_head(load(folders["llama"]).heads, 0)) == [Key("score", Role.HEAD, "weight")]


def test_head_of_a_bfloat16_base_is_float32(folders):
    loaded = load_model(str(folders["bert"]), TEXT, labels=("a",), dtype="bfloat16")
    assert all(t.dtype == torch.float32 for t in random_head(loaded.heads, 0).values())


def test_checkpoint_head_is_that_of_the_checkpoint(folders, tmp_path):
    config = transformers.AutoConfig.from_pretrained(folders["bert"], num_labels=3)
    model = transformers.BertForSequenceClassification(config)
    with quiet():
        model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folders["bert"] / name).read_bytes())
    head = checkpoint_head(load(tmp_path))
    assert torch.equal(head[Key("classifier", Role.HEAD, "weight")], model.classifier.weight)
    assert torch.equal(head[Key("classifier", Role.HEAD, "bias")], model.classifier.bias)
    with pytest.raises(ValueError, match=r"^head_init: .* this shape for classifier"):
        checkpoint_head(load(tmp_path, labels=("a", "b")))


def test_checkpoint_head_must_be_there(folders):
    with pytest.raises(ValueError, match=r"^head_init: .*classifier.dense, classifier.out"):
        checkpoint_head(load(folders["roberta"]))


def test_prototypes_are_cosines_with_the_descriptions(folders):
    descriptions = ["about cats", "about the weather today", "x"]
    loaded = load(folders["bert"], pooling="mean")
    head = prototype_head(loaded, descriptions, scale=20.0)
    weight = head[Key("classifier", Role.HEAD, "weight")]
    assert torch.allclose(weight.norm(dim=1), torch.full((3,), 20.0))
    put(loaded, head)
    for i, text in enumerate(descriptions):  # one at a time: no padding
        logits = loaded.model(**loaded.tokenizer(text, return_tensors="pt")).logits[0]
        assert logits.argmax() == i
        assert logits[i].item() == pytest.approx(20.0, abs=1e-4)


def test_of_several_labels_each_begins_where_the_descriptions_of_others_are(folders):
    """A text is given a label if it is nearer to it than the others' descriptions are."""
    descriptions = ["about cats", "about the weather today", "x"]
    loaded = load(folders["bert"], pooling="mean")
    head = prototype_head(loaded, descriptions, scale=7.0, several=True)
    compared = prototype_head(loaded, descriptions, scale=7.0)
    weight, bias = (Key("classifier", Role.HEAD, name) for name in ("weight", "bias"))
    assert torch.equal(head[weight], compared[weight])
    assert not compared[bias].any()
    put(loaded, head)
    texts = [loaded.tokenizer(text, return_tensors="pt") for text in descriptions]
    logits = torch.stack([loaded.model(**text).logits[0] for text in texts]).double()
    others = ~torch.eye(3, dtype=torch.bool)
    for label in range(3):
        assert logits[:, label][others[label]].mean().abs() < 1e-5
        assert logits[label, label] > logits[:, label][others[label]].max()


def test_of_one_label_that_may_be_missing_there_are_no_others(folders):
    loaded = load(folders["bert"], labels=("a",), pooling="mean")
    head = prototype_head(loaded, ["about cats"], several=True)
    assert not head[Key("classifier", Role.HEAD, "bias")].any()


def test_prototypes_need_mean_pooling_and_one_description_a_label(folders):
    with pytest.raises(ValueError, match=r"^head_init: label-prototypes needs pooling"):
        prototype_head(load(folders["bert"]), ["x", "y", "z"])
    with pytest.raises(ValueError, match=r"^labels: 2 descriptions for 3 labels"):
        prototype_head(load(folders["bert"], pooling="mean"), ["x", "y"])
