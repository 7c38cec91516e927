"""LoRA-RITE on a PEFT model, in transformers' own Trainer."""

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

import silotune as st

BASE = "HuggingFaceTB/SmolLM2-135M"
tokenizer = AutoTokenizer.from_pretrained(BASE)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
data = load_dataset("json", data_files="north.jsonl", split="train").map(
    lambda record: tokenizer(record["note"], truncation=True, max_length=64),
    remove_columns=["note", "urgent"],
)
collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
args = TrainingArguments("runs/peft", max_steps=100, report_to=[])

model = get_peft_model(
    AutoModelForCausalLM.from_pretrained(BASE),
    LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
)
optimizer = st.optim.LoRARITE(st.optim.lora_params(model), lr=1e-3, weight_decay=0.01)
# or: st.optim.LoRAPro(st.optim.lora_params(model), lr=2e-3, damping=1e-8)
# the scale is read from the model
trainer = Trainer(
    model=model,
    args=args,
    train_dataset=data,
    data_collator=collate,
    optimizers=(optimizer, None),
)
trainer.train()
model.save_pretrained("adapter/")
