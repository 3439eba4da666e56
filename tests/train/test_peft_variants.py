"""DoRA, LoRA+, rsLoRA and PiSSA step by step against PEFT, with torch.optim.AdamW."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM

from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.generation import attach
from mlx_yoda.lora.binding import adapter_of, install
from mlx_yoda.lora.inject import inject
from mlx_yoda.lora.pissa import as_saved
from mlx_yoda.model.load import load
from mlx_yoda.train.checkpoint import Identity, save_weights
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.step import State, Sums, make_steps

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

STEPS = 12
ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
VARIANTS = {
    "DoRA": ({"use_dora": True}, {}),
    "LoRA+": ({}, {"loraplus_lr_ratio": 8.0, "weight_decay": 0.01}),
    "DoRA with LoRA+": ({"use_dora": True}, {"loraplus_lr_ratio": 4.0}),
    "rsLoRA": ({"use_rslora": True}, {}),
    "PiSSA": ({"init_lora_weights": "pissa"}, {}),
    "rank-stabilised PiSSA": ({"init_lora_weights": "pissa", "use_rslora": True}, {}),
}


@pytest.fixture
def setup(request, base_folder, make_rows, tmp_path):
    """Both sides with the same initial adapter, and the plan of the run."""
    lora, train = VARIANTS[request.param]
    ours_lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=ALL, **lora)
    config = TrainConfig(
        max_steps=STEPS, learning_rate=2e-3, per_device_train_batch_size=3, max_grad_norm=0, **train
    )
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    torch.manual_seed(0)
    peft = PeftLoraConfig(r=4, lora_alpha=8, target_modules=ALL, task_type="CAUSAL_LM", **lora)
    theirs = get_peft_model(base, peft)
    model = load(base_folder).model
    if "init_lora_weights" in lora:
        layers = inject(model, ours_lora, mx.random.key(0))
        start_from(layers, theirs)
    else:
        theirs.save_pretrained(tmp_path / "start")
        layers = attach(model, load_adapter(tmp_path / "start"))
    return ours_lora, config, model, layers, theirs, make_plan(make_rows(30), config)


def start_from(layers, theirs):
    """Take PEFT's signs of the singular vectors, after seeing that all else is the same."""
    weights = dict(theirs.named_parameters())
    for path, layer in layers.items():
        a, b = (
            mx.array(weights[f"base_model.model.{path}.lora_{x}.default.weight"].detach().numpy())
            for x in "AB"
        )
        r = a.shape[0]
        assert mx.allclose(layer.lora_B[:, :r] @ layer.lora_A[:r], b @ a, rtol=1e-3, atol=1e-4)
        layer.lora_A = mx.concatenate([a, a])
        layer.lora_B = mx.concatenate([b, -b], axis=1)


def our_run(model, layers, config, plan):
    steps = make_steps(config, layers, forward_of(model), compiled=False)
    state, losses = State.fresh(adapter_of(layers)), []
    for step, batches in plan.steps():
        sums = Sums.zero(state.adapter)
        for batch in batches:
            sums = steps.accumulate(sums, state.adapter, Arrays.of(batch), mx.random.key(0))
        rate = mx.array(config.learning_rate)
        *new, _ = steps.update(sums, state.adapter, state.moments, rate, mx.array(step + 1.0))
        state = State(step + 1, *new)
        losses.append((sums.loss / sums.tokens).item())
    return losses, state.adapter


def their_run(model, config, plan, in_torch):
    optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=config.learning_rate,
        loraplus_lr_ratio=config.loraplus_lr_ratio,
        loraplus_weight_decay=config.weight_decay,
    )
    losses = []
    for _, batches in plan.steps():
        (batch,) = batches
        loss = model(**in_torch([plan.rows[i] for i in batch.indices])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("setup", VARIANTS, indirect=True)
def test_the_curve_and_what_is_saved_are_pefts(setup, in_torch, base_folder, tmp_path):
    lora, config, model, layers, theirs, plan = setup
    losses, adapter = our_run(model, layers, config, plan)
    wanted = their_run(theirs, config, plan, in_torch)
    np.testing.assert_allclose(losses, wanted, atol=1e-4)
    assert losses[-1] < losses[0]

    install(layers, adapter)
    ids = np.array([[5, 17, 40, 3, 99, 8, 61, 23]])
    ours = np.array(model(mx.array(ids)))
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(ids)).logits.numpy()
    assert np.abs(ours - expected).max() < 2e-3  # twelve steps of AdamW apart

    save_weights(tmp_path, adapter, Identity(as_saved(lora), str(base_folder), None, {}, "phi3"))
    fresh = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(fresh, tmp_path).eval()  # on the original base
    with torch.no_grad():
        assert np.abs(loaded(torch.tensor(ids)).logits.numpy() - ours).max() < 1e-4
