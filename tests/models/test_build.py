"""A model configuration becomes a network, or its first wrong field is named."""

import pytest

from sdit_jax.errors import InputError
from sdit_jax.models import build


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "sdti"}, "name: found 'sdti', allowed are sdit"),
        ({"widht": 8}, "widht: unknown field; did you mean 'width'"),
        ({"width": "8"}, "width: found '8', must be of type int"),
        ({"width": 8.0}, "width: found 8.0, must be of type int"),
        ({"width": True}, "width: found True, must be of type int"),
        ({"width": 1}, "width: found 1, must be at least 2"),
        ({"depth": 3}, "depth: found 3, must be even"),
        ({"depth": 0}, "depth: found 0, must be at least 2"),
        ({"image_size": 9}, "image_size: found 9, must be divisible by config.model.patch_size 2"),
        ({"patch_size": 0}, "patch_size: found 0"),
        ({"channels": 0}, "channels: found 0"),
        ({"num_classes": -1}, "num_classes: found -1, must be at least 0"),
        ({"label_dropout": 1.0}, "label_dropout: found 1.0, must be below 1"),
        ({"label_dropout": -0.1}, "label_dropout: found -0.1"),
        ({"spiking_steps": 0}, "spiking_steps: found 0"),
        ({"tau": 0.5}, "tau: found 0.5, must be at least 1"),
        ({"leak": False, "learned_decay": True}, "learned_decay: found True, there is no decay with config.model.leak False"),
        ({"tau": 1, "learned_decay": True}, "tau: found 1, must be above 1 with config.model.learned_decay"),
        ({"threshold": 0.0}, "threshold: found 0.0, must be positive"),
        ({"threshold": None}, "threshold: found None, must be of type float"),
        ({"tau": float("nan")}, "tau: found nan"),
        ({"threshold": float("nan")}, "threshold: found nan"),
        ({"surrogate_slope": float("inf")}, "surrogate_slope: found inf"),
        ({"surrogate_slope": -1.0}, "surrogate_slope: found -1.0"),
        ({"reset": "Hard"}, "reset: found 'Hard', allowed are hard, soft"),
        ({"surrogate": "arctan"}, "surrogate: found 'arctan', allowed are atan"),
        ({"token_shift": "3d"}, "token_shift: found '3d', allowed are 1d, 2d"),
        ({"conditioning": "modulation"}, "conditioning: found 'modulation', allowed are token, every_token, adaln"),
        ({"neuron": "relu"}, "neuron: found 'relu', allowed are lif, identity, gelu"),
        ({"gate_init": "zero"}, "gate_init: found 'zero', allowed are random, identity"),
        ({"final_conv_init": "zero"}, "final_conv_init: found 'zero', allowed are random, identity"),
        ({"wkv": "cuda"}, "wkv: found 'cuda', allowed are auto, sequential, associative"),
        ({"skips": 1}, "skips: found 1, must be of type bool"),
        ({"remat": "yes"}, "remat: found 'yes', allowed are none, elementwise, blocks"),
        ({"dtype": "float16"}, "dtype: found 'float16', allowed are float32, bfloat16"),
    ],
)
def test_a_wrong_field_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=f"^config.model.{message}"):
        build(change)


def test_an_integer_passes_where_a_float_is_meant():
    assert build({"tau": 2, "threshold": 1}).tau == 2
