# %% [markdown]
# # Tutorial: three clinics
#
# Three clinics want a model that tells urgent notes from others. No note may leave its clinic, and
# nobody who sees what the clinics send, or gets the model, may learn whether one note was there.
#
# The notes are made up, and the model is a tiny one drawn at random, so that this page runs
# anywhere in under a minute and without a network. On a real task `model` is the name of a Hugging
# Face model or its folder.

# %%
import random
from pathlib import Path

from datasets import Dataset

import silotune as st
from silotune.testing.tiny_models import tiny_bert

URGENT = ("chest pain", "cannot breathe", "heavy bleeding", "lost consciousness")
CALM = ("repeat prescription", "sore knee", "mild rash", "travel vaccine")


def notes(clinic: str, number: int, urgent: float) -> Dataset:
    """Made-up notes; clinics differ in how many of them are urgent."""
    draw = random.Random(clinic)
    rows = []
    for _ in range(number):
        label = "yes" if draw.random() < urgent else "no"
        complaint = draw.choice(URGENT if label == "yes" else CALM)
        person = draw.choice(("woman", "man", "child"))
        rows.append({"note": f"{person}, {complaint}", "urgent": label})
    return Dataset.from_list(rows)


clinics = {
    "east": notes("east", 600, urgent=0.3),
    "north": notes("north", 800, urgent=0.5),
    "south": notes("south", 700, urgent=0.6),
}
tiny_bert(Path("model"))
clinics["east"][0]

# %% [markdown]
# ## Describe it
#
# A federation is a model, the records of each client, what is learned, a method, a privacy choice,
# and how long to train. Nothing is opened when it is made; what does not go together is refused at
# once, in words.
#
# The method is FFA-LoRA: A is frozen, B and the classifier are trained and averaged. Every clinic
# gets an epsilon of its own, at most 8 for the whole run. It declares a public number of records,
# below the real one: what decides rates and denominators must not depend on who is in the data.

# %%
federation = st.Federation(
    model="model",
    clients=clinics,
    objective=st.SequenceClassification(
        text="note", label="urgent", labels=["no", "yes"], max_length=32
    ),
    method=st.methods.FFALoRA(r=8, lora_alpha=16, target_modules=["query", "value"]),
    optimizer=st.optim.SGD(lr=1.0),
    privacy=st.ExampleDP(target_epsilon=8, target_delta=1e-4, max_grad_norm=1.0),
    rounds=8,
    local_steps=5,
    batch_size=64,
    num_examples=450,
    valid_fraction=0.2,
    seed=0,
)

# %% [markdown]
# ## Plan before you train
#
# How much noise does this budget mean, and what will be sent? Planning trains nothing and spends
# nothing.

# %%
federation.plan()

# %% [markdown]
# ## Train
#
# `fit` needs a folder, since the ledgers of what was spent must outlive the program. If it is
# stopped, every whole round is kept, and `resume=True` goes on after the last one. In a terminal or
# a notebook a bar shows how far it is.

# %%
run = federation.fit("runs/clinics")
run.metrics.to_pandas()[["round", "accuracy", "bytes_up", "aggregation_error"]]

# %% [markdown]
# Round -1 is the model before training. The aggregation error is 0: with A frozen, the mean of the
# products is the product of the means. The accuracy was measured by one machine that sees all
# records, as in research (`evaluation="simulation"`): epsilon does not cover it. With `"site"`
# every clinic scores at home.

# %%
run.plot("accuracy")

# %% [markdown]
# ## What was promised
#
# Beside the adapter lies a certificate, `privacy.json`. It lists every charge; `verify` makes every
# figure and sentence again from it, and compares with all that lies there: the ledgers of the
# clinics, metrics, adapter and federation. What that cannot show is in `limits`.

# %%
print(run.privacy)
run.privacy.verify().ok

# %% [markdown]
# ## Score it on records of your own
#
# Public ones, say, that no clinic had.

# %%
run.evaluate(notes("public", 300, urgent=0.5)).metrics

# %% [markdown]
# ## Use it without silotune
#
# The adapter is in PEFT's format; its own `README.md` has these lines for your model. With silotune
# at hand, `st.load("runs/clinics")` gives a model that predicts, whatever the method.

# %%
run.save_pretrained("adapter")

# %%
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained("model", num_labels=2)
model = PeftModel.from_pretrained(base, "adapter").eval()
tokenizer = AutoTokenizer.from_pretrained("model")
with torch.no_grad():
    texts = ["man, chest pain", "woman, travel vaccine"]
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
logits.softmax(-1)[:, 1]

# %% [markdown]
# ## The same run from a file
#
# Whoever prefers the command line writes the same federation in YAML. The records lie in a folder
# for each clinic:

# %%
for name, table in clinics.items():
    folder = Path("clinics", name)
    folder.mkdir(parents=True)
    table.to_json(folder / "train.jsonl")

# %% [markdown]
# ```yaml title="clinics.yaml"
# model: {name_or_path: model, task: sequence-classification}
# data:
#   path: clinics                     # clinics/east/train.jsonl and so on
#   columns: {text: note, label: urgent}
#   labels: ["no", "yes"]
#   max_length: 32
#   num_examples: {east: 450, north: 450, south: 450}
#   valid_fraction: 0.2
# method: {name: ffa-lora, r: 8, lora_alpha: 16, target_modules: [query, value]}
# privacy: {unit: example, target_epsilon: 8, target_delta: 1e-4, max_grad_norm: 1.0}
# train: {num_rounds: 8, local_steps: 5, batch_size: 64, learning_rate: 1.0, seed: 0}
# output_dir: runs/from-yaml
# ```
#
# ```sh
# silotune plan clinics.yaml
# silotune run clinics.yaml
# silotune privacy verify runs/from-yaml
# silotune evaluate runs/from-yaml
# silotune export runs/from-yaml --format peft --output adapter-from-yaml
# ```
#
# The folder `runs/clinics` has `report.html` as well: the page for people, with a part for a
# privacy officer.
#
# Next: [choose a mechanism](privacy.md), [a method](methods.md), or read [what goes wrong
# elsewhere](privacy-pitfalls.md).
