"""A simulation over three data sets: plan, train, look, use."""

from datasets import load_dataset

import silotune as st

notes = {
    c: load_dataset("json", data_files=f"{c}.jsonl", split="train")
    for c in ("north", "east", "south")
}

federation = st.Federation(
    model="sentence-transformers/all-MiniLM-L6-v2",  # or a PreTrainedModel and its tokenizer
    clients=notes,
    objective=st.SequenceClassification(text="note", label="urgent", labels=["no", "yes"]),
    method=st.methods.FFALoRA(r=8, lora_alpha=16, target_modules=["query", "value"]),
    optimizer=st.optim.SGD(lr=0.5),
    privacy=st.ExampleDP(target_epsilon=6, target_delta=1e-5, max_grad_norm=1.0),
    num_examples=150,  # what each client declares in public; below the real number is safe
    rounds=10,
    local_steps=20,
    batch_size=64,
    valid_fraction=0.1,
    seed=0,
)
print(federation.plan())  # sigma, epsilon by round, bytes; nothing trains

run = federation.fit("runs/notes")  # a bar in a notebook; resume=True continues it
print(run.metrics.to_pandas())
run.plot("accuracy")  # a matplotlib Figure
print(run.privacy)  # epsilon of every client
assert run.privacy.verify().ok  # computed again, and held against the ledgers

public = load_dataset("json", data_files="public.jsonl", split="train")
print(run.evaluate(public).metrics)
run.save_pretrained("adapter/")  # loads in PEFT
model = run.merged_model()

loaded = st.load("runs/notes")  # or st.load("adapter/")
print(loaded.predict(["Chest pain since this morning, please call back."]))
