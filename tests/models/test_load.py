import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from transformers.utils import logging as transformers_logging

from silotune.core.inputs import ImageInput, TextInput
from silotune.models import checkpoint, hub, load, prepare
from silotune.models.load import load_model
from silotune.testing.tiny_models import tiny_bert

LABELS = ("no", "yes", "perhaps")
TEXT = "sequence-classification"
ARCHITECTURES = ("bert", "roberta", "gpt2", "llama", "vit")


def classifier(folders, name, **options):
    task = "image-classification" if name == "vit" else TEXT
    return load_model(str(folders[name]), task, labels=LABELS, **options)


def batch_of(loaded, n=3):
    g = torch.Generator().manual_seed(5)
    if isinstance(loaded.inputs, ImageInput):
        return {"pixel_values": torch.randn(n, *loaded.inputs.shape, generator=g)}
    ids = torch.randint(10, 200, (n, 6), generator=g)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def saved(model_class, config, folders, folder: Path) -> str:
    """A checkpoint of another architecture, with the byte tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder.mkdir(exist_ok=True)
        shutil.copy(folders["bert"] / name, folder)
    with load.quiet():
        model_class(config).save_pretrained(folder)
    return str(folder)


def changed(source: Path, folder: Path, **fields) -> str:
    """A copy of a model whose configuration says something else."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return str(folder)


SMALL = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("bert", ["classifier"]),
        ("roberta", ["classifier.dense", "classifier.out_proj"]),
        ("gpt2", ["score"]),
        ("llama", ["score"]),
        ("vit", ["classifier"]),
    ],
)
def test_heads_are_the_linear_maps_outside_the_base_model(folders, name, heads):
    loaded = classifier(folders, name)
    assert [site.name for site in loaded.heads] == heads
    assert loaded.absent == frozenset(heads)
    last = loaded.heads[-1]
    assert last.out_features == 3
    assert last.module is loaded.model.get_submodule(last.name)
    assert loaded.model.config.id2label == {0: "no", 1: "yes", 2: "perhaps"}


def test_heads_of_distilbert(folders, tmp_path):
    config = transformers.DistilBertConfig(
        vocab_size=260, dim=32, hidden_dim=48, n_layers=1, n_heads=2
    )
    folder = saved(transformers.DistilBertModel, config, folders, tmp_path / "m")
    loaded = load_model(folder, TEXT, labels=LABELS)
    assert [site.name for site in loaded.heads] == ["pre_classifier", "classifier"]


def test_absent_pooler_is_a_head(folders, tmp_path):
    config = transformers.BertConfig(**SMALL, intermediate_size=48)
    folder = saved(transformers.BertForMaskedLM, config, folders, tmp_path / "m")
    loaded = load_model(folder, TEXT, labels=LABELS)
    assert [site.name for site in loaded.heads] == ["bert.pooler.dense", "classifier"]
    mean = load_model(folder, TEXT, labels=LABELS, pooling="mean")
    assert [site.name for site in mean.heads] == ["classifier"]


def test_absent_normalisation_begins_as_the_identity(folders, tmp_path):
    config = transformers.ModernBertConfig(
        **SMALL,
        intermediate_size=48,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
    folder = saved(transformers.ModernBertModel, config, folders, tmp_path / "m")
    loaded = load_model(folder, TEXT, labels=LABELS)
    assert [site.name for site in loaded.heads] == ["head.dense", "classifier"]
    assert torch.equal(loaded.model.head.norm.weight, torch.ones(32))
    assert loaded.notices == ("head.norm is not in the checkpoint; it begins as the identity",)


def test_head_of_the_checkpoint_is_kept_unless_its_shape_differs(folders, tmp_path):
    config = transformers.BertConfig(**SMALL, intermediate_size=48, num_labels=3)
    folder = saved(transformers.BertForSequenceClassification, config, folders, tmp_path / "m")
    three = load_model(folder, TEXT, labels=LABELS)
    assert three.absent == frozenset()
    assert three.model.classifier.weight.abs().sum() > 0
    two = load_model(folder, TEXT, labels=("a", "b"))
    assert two.absent == {"classifier"}
    assert two.model.classifier.weight.abs().sum() == 0
    assert two.digest == three.digest


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_depends_on_the_global_generator(folders, name):
    torch.manual_seed(1)
    one = classifier(folders, name)
    torch.manual_seed(2)
    two = classifier(folders, name)
    assert one.digest == two.digest
    pairs = zip(one.model.state_dict().items(), two.model.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(s, t) for (a, s), (b, t) in pairs)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [*((n, "model") for n in ARCHITECTURES), ("bert", "mean"), ("gpt2", "mean")],
)
def test_forward_is_deterministic_in_training_mode_too(folders, name, pooling):
    loaded = classifier(folders, name, pooling=pooling)
    for head in loaded.heads:
        torch.nn.init.normal_(head.module.weight, generator=torch.Generator().manual_seed(0))
    batch = batch_of(loaded)
    evaluated = loaded.model(**batch).logits
    loaded.model.train()
    assert torch.equal(loaded.model(**batch).logits, evaluated)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_dropout_that_is_a_mere_number_is_off(folders, tmp_path):
    folder = changed(folders["llama"], tmp_path / "m", attention_dropout=0.5)
    model = load_model(folder, "causal-lm").model.train()
    ids = torch.arange(10, 20).unsqueeze(0)
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_dropout_that_is_a_module_is_off():
    model = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Dropout2d(0.3))
    prepare.dropout(model)
    assert torch.equal(model(torch.ones(1, 9, 3, 3)), torch.ones(1, 9, 3, 3))


def test_digest_is_of_the_base_only(folders, tmp_path):
    loaded = classifier(folders, "bert")
    other = load_model(str(tiny_bert(tmp_path / "other", seed=1)), TEXT, labels=LABELS)
    assert other.digest != loaded.digest
    assert load_model(str(folders["bert"]), TEXT, labels=("a", "b")).digest == loaded.digest
    assert classifier(folders, "bert", dtype="bfloat16").digest != loaded.digest


def test_bfloat16_base(folders):
    loaded = classifier(folders, "bert", dtype="bfloat16", pooling="mean")
    assert loaded.model.encoder.dtype == torch.bfloat16
    assert loaded.model(**batch_of(loaded)).logits.dtype == torch.float32


def test_language_model_has_no_head_and_pads_with_its_end_token(folders):
    loaded = load_model(str(folders["gpt2"]), "causal-lm")
    assert loaded.heads == ()
    assert loaded.tokenizer.pad_token == "</s>"
    assert loaded.tokenizer.padding_side == "right"
    assert loaded.model.config.pad_token_id == 2
    assert loaded.notices == ("the tokenizer has no padding token; its end token </s> pads",)


def test_inputs_say_what_the_model_reads(folders):
    assert classifier(folders, "vit").inputs == ImageInput(shape=(3, 16, 16), num_labels=3)
    assert classifier(folders, "bert").inputs == TextInput(
        vocabulary=260, special=frozenset({0, 1, 2, 3}), pad=0, num_labels=3
    )


@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
@pytest.mark.parametrize(
    ("name", "pooling"), [("bert", "model"), ("llama", "mean"), ("vit", "model")]
)
def test_gradient_checkpointing_changes_no_gradient(folders, name, pooling, mode):
    """In float64: a forward pass that is done again may use another kernel."""
    gradients = []
    for setting in ("none", mode):
        loaded = classifier(folders, name, pooling=pooling, gradient_checkpointing=setting)
        torch.nn.init.ones_(loaded.heads[-1].module.weight[0].detach())
        weight = next(m for m in loaded.model.modules() if isinstance(m, torch.nn.Linear)).weight
        weight.requires_grad_(True)
        loaded.model.double().train()
        batch = {k: t.double() if t.is_floating_point() else t for k, t in batch_of(loaded).items()}
        loaded.model(**batch).logits.square().sum().backward()
        gradients.append(weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-13)


def test_gradient_checkpointing_that_a_model_cannot_do(folders, tmp_path):
    config = transformers.MPNetConfig(**SMALL, intermediate_size=48)
    folder = saved(transformers.MPNetModel, config, folders, tmp_path / "m")
    with pytest.raises(ValueError, match=r"^gradient_checkpointing: .* set it to none"):
        load_model(folder, TEXT, labels=LABELS, gradient_checkpointing="reentrant")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": TEXT}, r"^labels: sequence-classification needs labels"),
        ({"task": "causal-lm", "labels": LABELS}, r"^labels: causal-lm needs no labels"),
        ({"task": "image-classification", "labels": LABELS}, r"'bert' model cannot do task"),
        (
            {"task": "image-classification", "labels": LABELS, "pooling": "mean"},
            r"^pooling: mean is for sequence-classification",
        ),
        ({"task": "causal-lm"}, r"no weights that fit cls.predictions"),
    ],
)
def test_model_that_does_not_fit_the_task(folders, options, message):
    with pytest.raises(ValueError, match=message):
        load_model(str(folders["bert"]), **options)


def test_encoder_is_no_language_model(folders):
    with pytest.raises(ValueError, match=r"^task: RobertaForCausalLM looks at the tokens"):
        load_model(str(folders["roberta"]), "causal-lm")


def test_encoder_decoder_is_refused(folders, tmp_path):
    config = transformers.T5Config(vocab_size=260, d_model=32, d_kv=8, d_ff=48, num_layers=1)
    folder = saved(transformers.T5Model, config, folders, tmp_path / "m")
    with pytest.raises(
        ValueError,
        match=r"used: t5 is an encoder and a decoder, .* an encoder \(bert, .*decoder \(llama",
    ):
        load_model(folder, TEXT, labels=LABELS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 3}, r"no weights that fit bert.encoder.layer.2"),
        ({"vocab_size": 100}, r"no weights that fit bert.embeddings.word_embeddings"),
        ({"model_type": "zorp"}, r"cannot be used: .*zorp"),
        ({"hidden_size": "wide"}, r"cannot be used: .*hidden_size"),
    ],
)
def test_checkpoint_that_does_not_fit_its_configuration(folders, tmp_path, fields, message):
    folder = changed(folders["bert"], tmp_path / "m", **fields)
    with pytest.raises(ValueError, match=r"^model: .*" + message):
        load_model(folder, TEXT, labels=LABELS)


@pytest.mark.parametrize("mode", ["model.safetensors", "config.json"])
def test_folder_that_lacks_a_file(folders, tmp_path, mode):
    folder = changed(folders["bert"], tmp_path / "m")
    (Path(folder) / mode).unlink()
    with pytest.raises(ValueError, match=rf"^model: .*{mode}"):
        load_model(folder, TEXT, labels=LABELS)


def test_folder_with_torn_weights(folders, tmp_path):
    folder = changed(folders["bert"], tmp_path / "m")
    weights = Path(folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"^model: .* cannot be used"):
        load_model(folder, TEXT, labels=LABELS)


def test_folder_without_a_tokenizer(folders, tmp_path):
    folder = changed(folders["bert"], tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (Path(folder) / name).unlink()
    with pytest.raises(ValueError, match=r"^model: the model has no tokenizer"):
        load_model(folder, TEXT, labels=LABELS)


def test_absent_folder():
    with pytest.raises(ValueError, match=r"^model: there is no folder ./nowhere"):
        load_model("./nowhere", TEXT, labels=LABELS)


def test_hub_model_without_a_network(monkeypatch, tmp_path):
    asked = []

    def refuse(self, name, timeout):
        asked.append((name, timeout))
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub.HfApi, "model_info", refuse)
    with pytest.raises(ValueError, match=r"^model: 'nobody/nothing' .*no route to host"):
        load_model("nobody/nothing", TEXT, labels=LABELS)
    assert asked == [("nobody/nothing", 5)]


def test_hub_is_asked_only_for_what_is_not_here(folders, monkeypatch):
    steps, read = [], checkpoint._read

    def read_nothing_at_first(location, request):
        steps.append("here" if location.local else "hub")
        if location.local:
            raise OSError("not cached")
        return read(hub.locate(str(folders["bert"])), request)

    monkeypatch.setattr(checkpoint, "_read", read_nothing_at_first)
    monkeypatch.setattr(checkpoint, "require_hub", lambda name: steps.append(f"is {name} there"))
    assert load_model("some/model", TEXT, labels=LABELS).heads
    assert steps == ["here", "is some/model there", "hub"]


def test_loading_restores_what_it_silenced(folders):
    logger = logging.getLogger("transformers")
    before = logger.level, transformers_logging.is_progress_bar_enabled()
    classifier(folders, "bert")
    assert (logger.level, transformers_logging.is_progress_bar_enabled()) == before


def test_loading_is_silent(folders, capfd):
    classifier(folders, "bert")
    classifier(folders, "vit")
    assert capfd.readouterr() == ("", "")
