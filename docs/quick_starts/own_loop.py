"""Only the private engine, in a loop of your own."""

import torch
from datasets import load_dataset
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

import silotune as st

BASE = "sentence-transformers/all-MiniLM-L6-v2"
tokenizer = AutoTokenizer.from_pretrained(BASE)
train = load_dataset("json", data_files="north.jsonl", split="train")


def collate(records):
    inputs = tokenizer([r["note"] for r in records], padding=True, return_tensors="pt")
    labels = torch.tensor([r["urgent"] == "yes" for r in records]).long()
    return {"inputs": dict(inputs), "labels": labels}


base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2)
model = st.adapt(
    base,
    st.LoRA(r=8, lora_alpha=16, target_modules=["query", "value"]),
    train=("B", "head"),
)  # or st.adopt(peft_model): the same layers on PEFT's own parameters
optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-3)

private = st.PrivacyEngine(
    target_epsilon=6, target_delta=1e-5, max_grad_norm=1.0
).make_private(  # runs the gradient check; calibrates sigma
    model=model,
    optimizer=optimizer,
    dataset=train,
    collate_fn=collate,
    num_examples=200,  # what you declare in public; below the real number is safe
    batch_size=128,
    steps=500,
    micro_batch_size=32,
)
schedule = get_linear_schedule_with_warmup(private.optimizer, 50, 500)

for batch in private.loader:  # Poisson; may be empty, and still takes a noised step
    for part in batch:
        logits = model(**part["inputs"]).logits
        losses = cross_entropy(logits, part["labels"], reduction="none")
        private.backward(losses)  # one loss a record
    private.optimizer.step()  # clip, noise, step
    schedule.step()
print(private.spent())  # epsilon, delta, steps
model.save_pretrained("adapter/")
