"""A rule of your own: how the server combines what the clients send."""

from dataclasses import dataclass

import silotune as st


@dataclass(frozen=True)
class HalfStep(st.Aggregator):  # by default it combines means of A and of B, tensor by tensor
    step: float = 0.5

    def combine(self, previous, mean):
        return st.Combined(factors=previous.factors.lerp(mean.first, self.step))


method = st.methods.FedIT(r=8).with_(aggregator=HalfStep())

federation = st.Federation(
    model="sentence-transformers/all-MiniLM-L6-v2",
    clients={"north": "north.jsonl", "east": "east.jsonl"},
    objective=st.SequenceClassification(text="note", label="urgent", labels=["no", "yes"]),
    method=method,
    privacy=st.NoDP(),
    rounds=10,
    local_steps=20,
    batch_size=64,
)
run = federation.fit("runs/half-steps")
print(run)
