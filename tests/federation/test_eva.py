"""A start made of public texts: what it holds, what runs make of it, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

import silotune as st
from federation.objects import federation
from silotune.core import Role
from silotune.core.files import read_json
from silotune.methods import built_in
from silotune.terms import Machine
from silotune.terms.build import build_model, read_model
from silotune.testing.tiny_models import tiny_bert, tiny_llama

TEXTS = [f"the {a} cat saw {b} dogs and ran home" for a in ("old", "big", "sad") for b in "abcdefg"]
PAIRS = {"r": 3, "lora_alpha": 7.0, "target_modules": ("query", "output.dense")}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def start(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eva") / "start"
    found = federation(bert, method=st.methods.FFALoRA(**PAIRS)).eva(TEXTS, folder)
    return folder, found


def rows_read(terms, site: str) -> torch.Tensor:
    """What a module of the base reads of every text, by itself: (positions, in), float64."""
    loaded = read_model(terms, ("cat", "dog"))
    seen = []
    module = loaded.model.get_submodule(site)
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, -2)))
    with torch.no_grad():
        for text in TEXTS:
            read = loaded.tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
            loaded.model.eval()(**read)
    return torch.cat(seen).double()


def test_a_spans_the_singular_vectors_of_what_the_base_reads(bert, start):
    folder, found = start
    terms = federation(bert, method=st.methods.FFALoRA(**PAIRS)).terms
    tensors = load_file(folder / "adapter_model.safetensors")
    assert found.explained.keys() == {n.split(".lora_")[0].split("model.", 2)[-1] for n in tensors}
    for site in found.explained:
        rows = rows_read(terms, site)
        _, s, v = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        a = next(t for n, t in tensors.items() if f"{site}.lora_A" in n).double()
        b = next(t for n, t in tensors.items() if f"{site}.lora_B" in n)
        torch.testing.assert_close(
            (a @ v[:3].T).abs().diagonal(), torch.ones(3).double(), atol=1e-4, rtol=0
        )
        share = float(s[:3].square().sum() / s.square().sum())
        assert found.explained[site] == pytest.approx(share, rel=1e-4)
        assert not b.any()
    assert not any("classifier" in name for name in tensors)


def test_it_says_what_it_was_made_of_and_no_text(start):
    folder, found = start
    told = read_json(folder / "eva.json")
    assert (told["texts"], told["sha256"]) == (len(TEXTS), found.sha256)
    assert not any("sad cat" in file.read_text(errors="replace") for file in folder.iterdir())


def test_a_private_run_of_one_factor_begins_with_it_and_keeps_a(bert, start, tmp_path):
    folder, _ = start
    method = st.methods.FFALoRA(**PAIRS, init_from=str(folder))
    privacy = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3, insecure_seeded_noise=True)
    given = {"method": method, "privacy": privacy, "num_examples": 15, "rounds": 1}
    federation(bert, **given).fit(tmp_path / "run")
    before = load_file(folder / "adapter_model.safetensors")
    after = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    for name, tensor in before.items():
        same = torch.equal(after[name], tensor)
        assert same == ("lora_A" in name)
    assert "init_from" in json.dumps(read_json(tmp_path / "run" / "privacy.json"))


@pytest.mark.parametrize("name", ["fedit", "lora-fair", "flora"])
def test_other_methods_of_pairs_begin_with_it(bert, start, name):
    terms = federation(bert, method=built_in()[name](**PAIRS, init_from=str(start[0]))).terms
    first = build_model(terms, read_model(terms, ("cat", "dog")), Machine()).first
    tensors = load_file(start[0] / "adapter_model.safetensors")
    for key, tensor in first.only({Role.A}).items():
        assert any(f"{key.site}.lora_A" in n and torch.equal(t, tensor) for n, t in tensors.items())


def test_a_language_model_reads_them_too(tmp_path):
    llama = tiny_llama(tmp_path / "llama")
    texts = st.CausalLM(text="text")
    method = st.methods.FedIT(r=2, target_modules=("q_proj", "down_proj"))
    built = federation(llama, objective=texts, method=method)
    found = built.eva(TEXTS, tmp_path / "start")
    assert all(0 < share <= 1 for share in found.explained.values())


@pytest.mark.parametrize(
    ("changes", "texts", "told"),
    [
        ({}, [], "texts: there are none"),
        ({}, ["a cat", "  "], "texts: the one in place 1 is empty"),
        (
            {"method": st.methods.FFALoRA(r=8)},
            ["cat"],
            r"texts: .* varies in \d+ directions, fewer than r = 8; give more texts",
        ),
        ({"method": st.methods.HeadOnly()}, TEXTS, "method: it trains no pair"),
        ({"method": st.methods.ResLoRA()}, TEXTS, "init_from: shortcuts"),
    ],
)
def test_what_cannot_begin_so_is_refused_and_leaves_nothing(bert, tmp_path, changes, texts, told):
    given = federation(bert, **{"method": st.methods.FFALoRA(**PAIRS), **changes})
    with pytest.raises(ValueError, match=told):
        given.eva(texts, tmp_path / "start")
    assert not list(tmp_path.iterdir())
