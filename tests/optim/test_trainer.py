"""transformers' Trainer trains with optimisers of pairs, and resumes to the bit."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from covering import some
from silotune.optim import AltLoRA, LoRAFA, LoRAPro, LoRARITE, lora_params
from silotune.testing.tiny_models import tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

STEPS, HALF = 6, 3

MAKERS = {
    "rite": lambda m: LoRARITE(lora_params(m), lr=1e-2, weight_decay=0.01),
    "pro": lambda m: LoRAPro(lora_params(m), lr=1e-2, weight_decay=0.01),
    "pro full": lambda m: LoRAPro(lora_params(m), lr=1e-2, full_moments=True),
    "fa": lambda m: LoRAFA(lora_params(m, freeze_a=True), lr=1e-2),
    "alt": lambda m: AltLoRA(lora_params(m), lr=1e-2, square=0.99),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def records():
    g = torch.Generator().manual_seed(3)
    ids = torch.randint(4, 40, (24, 9), generator=g)
    return [{"input_ids": row, "labels": row} for row in ids]


def model_and_trainer(base, folder, make):
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        lora_dropout=0.1,
        use_rslora=True,
        target_modules="all-linear",
        rank_pattern={"q_proj": 2},
        modules_to_save=["lm_head"],
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=HALF,
        per_device_train_batch_size=4,
        warmup_steps=1,
        lr_scheduler_type="linear",
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=1,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=records(), optimizers=(make(model), None)
    )
    return model, trainer


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("make", some(MAKERS, "rite"))
def test_trainer_trains_and_resumes_to_the_bit(make, base, tmp_path):
    make = MAKERS[make]
    model, trainer = model_and_trainer(base, tmp_path / "whole", make)
    begun = trained(model)
    trainer.train()
    whole = trained(model)
    assert any("lm_head" in name for name in whole)
    for name, p in whole.items():
        assert not torch.equal(p, begun[name]), name
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]

    again, resumed = model_and_trainer(base, tmp_path / "resumed", make)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{HALF}"))
    assert resumed.state.global_step == STEPS
    for name, p in trained(again).items():
        assert torch.equal(p, whole[name]), name
