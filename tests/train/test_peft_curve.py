"""The same curve as Transformers + PEFT + torch.optim.AdamW, step by step."""

import json

import mlx.core as mx
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import Phi3ForCausalLM, get_linear_schedule_with_warmup

from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.adapters.peft import save_adapter
from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.load import load, resolve
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.schedule import learning_rate
from mlx_yoda.train.step import State, Sums, make_steps

STEPS = 50
LORA = LoraConfig(lora_dropout=0.0)
TRAIN = TrainConfig(
    max_steps=STEPS, learning_rate=3e-3, per_device_train_batch_size=3, weight_decay=0.01
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    demo = resolve("demo")
    config = json.loads((demo / "config.json").read_text())
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96}
    folder = tmp_path_factory.mktemp("base") / "phi3"
    config |= sizes | {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1}
    write_random_phi3(folder, config, tokenizer=demo)
    return folder


def ours(base, plan, adapter_dir):
    loaded = load(base)
    layers = inject(loaded.model, LORA, mx.random.key(0))
    tensors = {path: (layer.lora_A, layer.lora_B) for path, layer in layers.items()}
    save_adapter(adapter_dir, tensors, LORA, base_model_name_or_path=str(base))
    steps = make_steps(TRAIN, layers, forward_of(loaded.model), compiled=False)
    state, losses = State.fresh(adapter_of(layers)), []
    for step, batches in plan.steps():
        sums = Sums.zero(state.adapter)
        for batch in batches:
            sums = steps.accumulate(sums, state.adapter, Arrays.of(batch), mx.random.key(0))
        rate = mx.array(learning_rate(TRAIN, step, STEPS))
        *new, _ = steps.update(sums, state.adapter, state.moments, rate, mx.array(step + 1.0))
        state = State(step + 1, *new)
        losses.append((sums.loss / sums.tokens).item())
    return losses, state.adapter


def theirs(base, plan, adapter_dir, in_torch):
    model = Phi3ForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, adapter_dir, is_trainable=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=TRAIN.learning_rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    losses = []
    for _, batches in plan.steps():
        for batch in batches:
            loss = model(**in_torch([plan.rows[i] for i in batch.indices])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, TRAIN.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    weights = {name: p.detach().numpy() for name, p in model.named_parameters() if p.requires_grad}
    return losses, weights


@pytest.mark.slow
def test_fifty_steps_are_those_of_peft(base, make_rows, in_torch, tmp_path):
    plan = make_plan(make_rows(40), TRAIN)
    our_losses, adapter = ours(base, plan, tmp_path)
    their_losses, weights = theirs(base, plan, tmp_path, in_torch)
    assert len(our_losses) == STEPS
    np.testing.assert_allclose(our_losses, their_losses, atol=1e-4)
    assert our_losses[-1] < 0.9 * our_losses[0]
    for path, pair in adapter.items():
        for name, array in pair.items():
            expected = weights[f"base_model.model.{path}.{name}.default.weight"]
            distance = np.linalg.norm(np.array(array) - expected) / np.linalg.norm(expected)
            assert distance < 1e-3, (path, name)
