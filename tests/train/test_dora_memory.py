"""What DoRA keeps for its backward pass, by MLX's own count."""

import mlx.core as mx

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.lora.binding import adapter_of, lent
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.recompute import Keep


def peak(model, layers, rows):
    batch = Arrays.of(collate(rows, choose_shapes([needed(rows)])))
    forward, adapter = forward_of(model, Keep.INPUT), adapter_of(layers)

    def loss(weights):
        with lent(layers, weights, {}):
            return forward(batch)

    mx.eval(adapter, batch.tokens)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(mx.value_and_grad(loss)(adapter))
    return mx.get_peak_memory() - before


def test_recomputed_outputs_are_let_go_of_layer_by_layer(make_model, make_rows):
    rows = make_rows(60, shortest=20, longest=20)
    peaks = [
        peak(*make_model(layers=10, lora=LoraConfig(lora_dropout=0.0, use_dora=dora)), rows)
        for dora in (False, True)
    ]
    assert peaks[1] < 1.4 * peaks[0], peaks
