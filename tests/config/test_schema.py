import pytest
from pydantic import ValidationError

from silotune.config import Config
from silotune.config.schema import ENVIRONMENT, LEAVES, SECTIONS

DEFAULTS = {  # the keys and defaults that were agreed; None stands for null
    "model.head": "trained",
    "model.head_init": "auto",
    "model.head_scale": 1.0,
    "model.head_bias": "trained",
    "model.pooling": "model",
    "model.dtype": "float32",
    "model.quantization": "none",
    "model.products": "float32",
    "model.gradient_checkpointing": "none",
    "data.path": None,
    "data.name": None,
    "data.delimiter": None,
    "data.sheet": None,
    "data.encoding": None,
    "data.splits.train": None,
    "data.splits.valid": None,
    "data.splits.test": None,
    "data.columns.text": None,
    "data.columns.text_pair": None,
    "data.columns.label": None,
    "data.columns.words": None,
    "data.columns.tags": None,
    "data.columns.spans": None,
    "data.columns.source": None,
    "data.columns.target": None,
    "data.columns.prompt": None,
    "data.columns.input": None,
    "data.columns.completion": None,
    "data.columns.messages": None,
    "data.columns.image": None,
    "data.labels": None,
    "targets.threshold": None,
    "targets.class_weights": None,
    "targets.label_smoothing": None,
    "targets.target_mean": None,
    "targets.target_scale": None,
    "targets.score_range": None,
    "targets.cosine_range": None,
    "targets.loss": None,
    "targets.huber_delta": None,
    "targets.source_prefix": None,
    "targets.max_target_length": None,
    "data.label_map": {},
    "data.silos.by": None,
    "data.silos.num": None,
    "data.silos.split": "iid",
    "data.silos.alpha": 0.5,
    "data.num_examples": None,
    "data.num_held_out": None,
    "data.person": None,
    "data.max_length": 128,
    "data.valid_fraction": 0.1,
    "data.limit": None,
    "method.name": "ffa-lora",
    "method.aggregation": None,
    "method.r": 8,
    "method.lora_alpha": 8,
    "method.lora_dropout": 0.0,
    "method.target_modules": None,
    "method.target_parameters": None,
    "method.layers_to_transform": None,
    "method.use_rslora": False,
    "method.init_lora_weights": "kaiming",
    "method.ranks": None,
    "method.init_from": None,
    "method.low_pass": None,
    "method.refactor_every": None,
    "method.randomised": None,
    "method.residual_rank": None,
    "method.balanced": None,
    "method.rank_scale": None,
    "method.objective": None,
    "method.fair_lambda": None,
    "method.fair_norm": None,
    "method.fair_ridge": None,
    "method.initialization": None,
    "method.initial_a": None,
    "method.galore_gap": None,
    "method.galore_scale": None,
    "method.weight_decay_of": None,
    "method.rotation_lambda": None,
    "method.oversampling": None,
    "method.norm_weights": None,
    "method.granularity": None,
    "method.gate_positions": None,
    "method.gate_input": None,
    "method.freeze_a": None,
    "method.fold_every": None,
    "method.penalty": None,
    "method.booster_weight": None,
    "method.booster_layers": None,
    "method.booster_seed": None,
    "method.shortcut": None,
    "method.lora_plus_ratio": None,
    "method.full_moments": None,
    "method.experts_per_prompt": None,
    "method.masked_experts": None,
    "method.balance_weight": None,
    "method.damping": None,
    "method.escape": None,
    "method.clip_unmagnified_grad": None,
    "method.cutoff": None,
    "method.experts": None,
    "method.pre_num": None,
    "privacy.unit": "example",
    "privacy.target_epsilon": None,
    "privacy.noise_multiplier": None,
    "privacy.target_delta": 1e-5,
    "privacy.max_grad_norm": 1.0,
    "privacy.relation": "add-remove",
    "privacy.sampling": "poisson",
    "privacy.max_batch_size": None,
    "privacy.noise": None,
    "privacy.bands": None,
    "privacy.max_update_norm": 1.0,
    "privacy.client_sampling_rate": 1.0,
    "privacy.adaptive_clipping": False,
    "privacy.target_quantile": 0.5,
    "privacy.count_noise": None,
    "privacy.metric_noise": None,
    "privacy.insecure_seeded_noise": False,
    "privacy.reserve_rounds": 1,
    "privacy.lifetime.max_epsilon": None,
    "privacy.lifetime.max_delta": 1e-5,
    "privacy.lifetime.folder": None,
    "privacy.lifetime.record": True,
    "train.num_rounds": 20,
    "train.local_steps": None,
    "train.num_local_epochs": None,
    "train.batch_size": 128,
    "train.per_device_train_batch_size": 32,
    "train.per_device_eval_batch_size": 64,
    "train.eval_every": 1,
    "train.optimizer": None,
    "train.learning_rate": None,
    "train.momentum": 0.0,
    "train.weight_decay": 0.0,
    "train.local_state": "fresh",
    "train.adam_beta1": 0.9,
    "train.adam_beta2": 0.999,
    "train.adam_eps": None,
    "train.normalize_steps": False,
    "train.tail_average": 0.0,
    "train.clients_per_round": None,
    "train.client_sampling_rate": None,
    "train.proximal_mu": 0.0,
    "train.server_optimizer": "none",
    "train.server_learning_rate": None,
    "train.server_momentum": None,
    "train.largest_update": 1e4,
    "train.upload_dtype": "float32",
    "train.lr_scheduler_type": "constant",
    "train.warmup_steps": 0,
    "train.warmup_ratio": 0.0,
    "train.lr_scheduler_span": "run",
    "train.seed": 0,
    "train.weighting": "num_examples",
    "train.min_clients": None,
    "train.round_deadline": 3600,
    "train.wait_after_quorum": None,
    "train.device": "auto",
    "train.threads": None,
    "train.prefix_cache": "auto",
    "federation.sites": (),
    "federation.kit": None,
    "federation.folder": None,
    "federation.offer_deadline": 7 * 24 * 3600,
    "evaluation": "simulation",
    "baselines": (),
    "runtime": "in-process",
    "workers": 2,
    "crowd": 1,
    "defaults": "usual",
    "output_dir": "runs/run",
    "report_to": (),
}
REQUIRED = {"model.name_or_path", "model.task"}


def test_keys_and_defaults():
    assert {k: f.get_default() for k, f in LEAVES.items() if k not in REQUIRED} == DEFAULTS
    assert {k for k, f in LEAVES.items() if f.is_required()} == REQUIRED


def test_every_key_is_described_in_sentences():
    told = {key: leaf.description or "" for key, leaf in LEAVES.items()}
    assert {k: text for k, text in told.items() if not is_sentence(text)} == {}


def is_sentence(text: str) -> bool:
    return text.endswith(".") and text[0].isupper()


@pytest.mark.parametrize("text", ["", ".", "no capital.", "No full stop"])
def test_what_is_no_sentence_would_be_seen(text):
    assert not is_sentence(text)


def test_every_section_is_described():
    assert len(SECTIONS) > 3, "the sections are seen"
    assert [key for key, section in SECTIONS.items() if not section.__doc__] == []


def test_environment_names_keys():
    assert set(LEAVES) >= ENVIRONMENT


def small(**sections):
    return {
        "model": {"name_or_path": "m", "task": "sequence-classification"},
        "data": {"path": "hub/name", "columns": {"text": "t", "label": "l"}},
        "privacy": {"unit": "none"},
        **sections,
    }


def test_frozen():
    config = Config.model_validate(small())
    with pytest.raises(ValidationError, match="frozen"):
        config.train.seed = 1


def test_construction_checks_the_rules():
    with pytest.raises(ValidationError, match=r"privacy\.target_epsilon: needed"):
        Config.model_validate(small(privacy={"unit": "example"}))


def test_construction_refuses_unknown_keys():
    with pytest.raises(ValidationError):
        Config.model_validate(small(train={"sead": 1}))


def test_lists_become_tuples():
    config = Config.model_validate(small(method={"target_modules": ["q", "v"]}))
    assert config.method.given("target_modules") == ("q", "v")
