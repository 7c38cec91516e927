"""What is saved is loaded by PEFT itself: before the first round, and after the last."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    ModernBertConfig,
    ModernBertModel,
)

import silotune as st
from federation.objects import LABELS, federation, tables
from silotune.adapters import peft_version
from silotune.core import Factors
from silotune.federation import adapter_check
from silotune.federation.adapter_check import check_learned, refuse_unloadable
from silotune.federation.trained_models import ModelState, TrainedModels, save_adapter
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.terms import build, open_model
from silotune.testing import tiny_models
from silotune.testing.tiny_models import tiny_gpt2

pytestmark = pytest.mark.usefixtures("checked")

CHECKED = f"PEFT {peft_version()} loads it, and computes the same"
CAUSAL = st.CausalLM(text="text", max_length=24)


def modernbert(folder: Path) -> Path:
    """Its checkpoint is of the bare encoder, so that both heads and ``head.norm`` begin anew."""
    config = ModernBertConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        attn_implementation="eager",
        global_attn_every_n_layers=1,
    )
    return tiny_models._save_with_tokenizer(ModernBertModel(config), folder, 0)


def mamba(folder: Path) -> Path:
    config = MambaConfig(
        vocab_size=260,
        hidden_size=32,
        state_size=4,
        num_hidden_layers=2,
        time_step_rank=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return tiny_models._save_with_tokenizer(MambaForCausalLM(config), folder, 0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT reads what transformers renamed
def test_modules_are_saved_whole(tmp_path):
    base = modernbert(tmp_path / "base")
    method = st.methods.FFALoRA(r=2, target_modules=("Wqkv",))
    federation(base, rounds=1, method=method).fit(tmp_path / "run")
    assert read_facts(RunFolder(tmp_path / "run")).adapter_check == CHECKED
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    with torch.no_grad():
        plain.head.norm.weight.fill_(3.0)  # what a loader drew; the folder has all of the module
    theirs = PeftModel.from_pretrained(plain, tmp_path / "run" / "adapter").eval()
    loaded = st.load(tmp_path / "run")
    records = [r["text"] for r in tables()["east"][:4]]
    inputs = loaded.tokenizer(records, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**inputs).logits.softmax(dim=-1)
    found = torch.tensor([list(p.probabilities.values()) for p in loaded.predict(records)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_part_of_a_module_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "beside_heads", lambda *_: {})
    given = federation(modernbert(tmp_path / "base"), method=st.methods.HeadOnly())
    with pytest.raises(ValueError, match=r"cannot use what this run would save.*head\.norm"):
        refuse_unloadable(built(given), given.terms)


def test_what_peft_refuses_is_refused_before_anything_is_written(tmp_path):
    base = mamba(tmp_path / "base")
    method = st.methods.FedIT(r=2, target_modules=("in_proj", "x_proj", "out_proj"))
    with pytest.raises(ValueError, match=r"leave out out_proj: \[in_proj, x_proj\]") as refused:
        federation(base, objective=CAUSAL, method=method, rounds=1).fit(tmp_path / "run")
    assert "incompatible with Mamba" in str(refused.value)
    assert not (tmp_path / "run").exists()


def built(given, labels=LABELS):
    return open_model(given.terms, labels, given.machine, given.given)


METHODS = [
    st.methods.FedIT(r=2, lora_alpha=0.1, use_rslora=True),
    st.methods.FedFTG(r=2),
    st.methods.HeadOnly(),
    st.methods.ResLoRA(r=2, shortcut="block", target_modules="all-linear"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_peft_computes_what_we_do(bert, method, dtype):
    given = federation(bert, method=method, dtype=dtype, optimizer=st.optim.AdamW(lr=0.01))
    model = built(given)
    before, draws = model.loaded.model, torch.random.get_rng_state()
    modules = dict(before.named_modules())
    assert refuse_unloadable(model, given.terms) == CHECKED
    assert dict(before.named_modules()) == modules
    assert torch.equal(torch.random.get_rng_state(), draws)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_language_model_agrees(tmp_path, dtype):
    method = st.methods.FedIT(r=2, target_modules="all-linear")
    given = federation(tiny_gpt2(tmp_path), objective=CAUSAL, method=method, dtype=dtype)
    assert refuse_unloadable(built(given, ()), given.terms) == CHECKED


def test_each_silos_own_model_with_what_was_folded(bert):
    given = federation(bert, method=st.methods.FedExLoRA(r=2))
    model = built(given)
    moved = adapter_check._moved(model)
    site = model.sites[1].name
    folded = {site: torch.ones(32, 32) * 0.01}
    own = {"east": ModelState(factors=moved), "west": ModelState(factors=moved, folded=folded)}
    said = check_learned(model, given.terms, TrainedModels(own=own))
    assert said == CHECKED


@pytest.mark.parametrize(
    ("dtype", "left_out"), [("float32", "1.attention.self.value"), ("bfloat16", "dense")]
)
def test_what_computes_something_else_is_refused(bert, monkeypatch, dtype, left_out):
    method = st.methods.FedIT(r=2, target_modules="all-linear")
    given = federation(bert, method=method, dtype=dtype)
    model = built(given)

    def one_is_left_out(model, numbers, place):
        factors = numbers.factors
        rest = {key: t for key, t in factors.items() if not key.site.endswith(left_out)}
        save_adapter(model, replace(numbers, factors=Factors(rest)), place)

    monkeypatch.setattr(adapter_check, "save_adapter", one_is_left_out)
    with pytest.raises(ValueError, match="it loads, but computes something else"):
        refuse_unloadable(model, given.terms)
    learned = TrainedModels(shared=ModelState(factors=adapter_check._moved(model)))
    assert "cannot use it: it loads, but" in check_learned(model, given.terms, learned)


def test_without_peft_nobody_says_that_it_was_checked(bert, monkeypatch):
    given = federation(bert)
    model = built(given)
    monkeypatch.setattr(adapter_check, "peft_version", lambda: "")
    learned = TrainedModels(shared=ModelState(factors=model.first))
    assert refuse_unloadable(model, given.terms) == "not checked: peft is not installed"
    assert check_learned(model, given.terms, learned) == "not checked: peft is not installed"


def test_what_peft_has_no_format_for_is_said(bert):
    given = federation(bert, method=st.methods.MiLoRA(r=2))
    assert "silotune's own format" in refuse_unloadable(built(given), given.terms)
