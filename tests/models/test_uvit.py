"""U-ViT against a network of the same weights in PyTorch, its sizes against closed formulas and the paper's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from sdit_jax.analysis.operations import forward, trace
from sdit_jax.errors import InputError
from sdit_jax.models import build, cast, initial_variables, preset
from sdit_jax.planner.arithmetic import tensor_axes

torch = pytest.importorskip("torch")
F = torch.nn.functional
SMALL = {"name": "uvit", "image_size": 8, "patch_size": 4, "width": 12, "depth": 4, "heads": 3, "mlp_ratio": 2.5}
B = 3
X = np.random.default_rng(0).normal(size=(B, 8, 8, 3)).astype(np.float32)
T_B, Y_B = jnp.array([0, 17, 999]), jnp.array([0, 4, 10])


def shapes_of(model):
    return jax.eval_shape(lambda: initial_variables(model, 0)["params"])


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model)))


def ordinary(model):
    """Parameters that are all at ordinary values, none at zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(np.float32), shapes_of(model))


def linear(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def norm(params, x):
    return F.layer_norm(x, x.shape[-1:], params and params["scale"], params and params["bias"], 1e-6)


def block(params, x, skip, cond, heads):
    """In PyTorch: `cond` None or the condition of adaLN."""
    if "skip" in params:
        x = linear(params["skip"], torch.cat([x, skip], -1))
    first, second = (lambda x, name=name: norm(params.get(name), x) for name in ("attention_norm", "mlp_norm"))
    if cond is not None:
        scale_1, shift_1, scale_2, shift_2 = linear(params["modulation"], cond)[:, None].chunk(4, -1)
        first, second = (lambda x: norm(None, x) * (1 + scale_1) + shift_1), (lambda x: norm(None, x) * (1 + scale_2) + shift_2)
    h = first(x)
    heads = [
        linear(params["attention"][name], h).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
    ]
    attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    x = x + linear(params["attention"]["output"], attended)
    return x + linear(params["mlp_output"], F.gelu(linear(params["mlp_hidden"], second(x))))


def by_pytorch(model, params):
    """The forward pass in float64."""
    params = jax.tree.map(lambda leaf: torch.tensor(leaf, dtype=torch.float64), params)
    x, p, half = torch.tensor(X, dtype=torch.float64).permute(0, 3, 1, 2), model.patch_size, model.depth // 2
    angles = torch.tensor(T_B.tolist())[:, None] * 10_000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    time = params["time_embed"]
    cond = linear(time["output"], F.silu(linear(time["hidden"], torch.cat([angles.cos(), angles.sin()], -1))))
    if model.num_classes:
        cond = cond + params["label_embed"]["table"][Y_B.tolist()]
    patches = F.unfold(x, p, stride=p).unflatten(1, (3, p, p)).permute(0, 4, 2, 3, 1).flatten(2)  # Channels last in a patch.
    tokens = linear(params["patch_embed"], patches)
    if model.conditioning != "token":
        tokens = tokens + cond[:, None]
    x = torch.cat([cond[:, None], tokens], 1) + params["position"]
    cond = F.silu(cond) if model.conditioning == "adaln" else None
    at = lambda tree, i: {name: at(leaf, i) if isinstance(leaf, dict) else leaf[i] for name, leaf in tree.items()}
    kept = []
    for i in range(half):
        x = block(at(params["in_blocks"], i), x, None, cond, model.heads)
        kept.append(x)
    x = block(params["mid_block"], x, None, cond, model.heads)
    for i in range(half):
        x = block(at(params["out_blocks"], i), x, kept.pop(), cond, model.heads)
    x = linear(params["head"], norm(params.get("norm"), x))[:, 1:]
    x = F.fold(x.unflatten(2, (p, p, -1)).permute(0, 4, 2, 3, 1).flatten(1, 3), (8, 8), p, stride=p)
    smooth = params["smooth"]
    return F.conv2d(x, smooth["kernel"].permute(3, 2, 0, 1), smooth["bias"], padding=1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conditioning": "every_token", "skips": False, "num_classes": 0},
        {"conditioning": "adaln", "heads": 2, "learned_variance": True},
    ],
    ids=["token", "every_token", "adaln"],
)
def test_the_network_is_that_of_pytorch(changes):
    model = build(SMALL | changes)
    params = ordinary(model)
    found = jax.jit(model.apply)({"params": params}, X, T_B, Y_B)
    expected = by_pytorch(model, params)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def macs(model):
    """The closed formula: what is linear in the tokens, and 2 L^2 C a block."""
    C, L, out = model.width, 1 + (model.image_size // model.patch_size) ** 2, model.channels * (1 + model.learned_variance)
    patch = model.patch_size**2
    blocks = (model.depth + 1) * (4 * C**2 + 2 * C * round(model.mlp_ratio * C)) + model.depth // 2 * model.skips * 2 * C**2
    time = 256 * C + C**2 + (model.depth + 1) * 4 * C**2 * (model.conditioning == "adaln")
    image = (L - 1) * (patch * model.channels * C + patch * 9 * out**2) + L * C * patch * out
    return L * blocks + time + image + (model.depth + 1) * 2 * L**2 * C


@pytest.mark.parametrize(
    "name, changes", [("uvit_small", {}), ("uvit_small", {"patch_size": 2, "skips": False}), ("uvit_s2", {})]
)
def test_multiply_accumulates_are_those_of_the_closed_formula(name, changes):
    model = build(preset(name, **changes))
    program = forward(model)
    assert program.macs == macs(model) and not program.uncertain
    L = 1 + (model.image_size // model.patch_size) ** 2
    between_tokens = [each.count for each in program.operations if each.layer == "mid_block.attention"]
    assert between_tokens == [L * L * model.width] * 2


def test_the_small_preset_is_as_large_as_sdits():
    sdit, uvit = build(preset("small")), build(preset("uvit_small"))
    assert count(uvit) == 1_443_946 == pytest.approx(count(sdit), rel=0.002)
    assert forward(uvit).macs == pytest.approx(forward(sdit).macs, rel=0.05)
    for field in ("image_size", "channels", "patch_size", "width", "depth", "num_classes", "conditioning", "final_conv_init"):
        assert getattr(uvit, field) == getattr(sdit, field), field


def test_the_published_preset_has_the_papers_44_million_parameters_and_two_linears_of_the_time():
    """Built from PyTorch's layers: 13 blocks without biases of query, key and value, 6 of them with a skip."""
    layers = [torch.nn.TransformerEncoderLayer(512, 8, 2048) for _ in range(13)]
    layers += [torch.nn.Linear(1024, 512) for _ in range(6)]
    layers += [torch.nn.Conv2d(3, 512, 2, 2), torch.nn.LayerNorm(512), torch.nn.Linear(512, 12), torch.nn.Conv2d(3, 3, 3)]
    size = lambda modules: sum(weight.numel() for module in modules for weight in module.parameters())
    paper = size(layers) - 13 * 3 * 512 + (1 + 16 * 16) * 512
    assert round(paper / 1e6) == 44
    assert count(build(preset("uvit_s2"))) == paper + size([torch.nn.Linear(256, 512), torch.nn.Linear(512, 512)])


def in_bfloat16(**changes):
    """(network, its parameters, its compiled forward pass)."""
    model = build(SMALL | {"dtype": "bfloat16", "depth": 2} | changes)
    return model, ordinary(model), jax.jit(lambda params: model.apply({"params": params}, X, T_B, Y_B))


def test_products_in_bfloat16_round_the_named_parameters():
    model, params, apply = in_bfloat16(conditioning="adaln")
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), cast(model, {"params": params})["params"])
    np.testing.assert_array_equal(apply(rounded), apply(params))


@pytest.mark.parametrize("conditioning", ["token", "adaln"])
def test_products_in_bfloat16_round_no_other_parameter(conditioning):
    """Without skips, whose products would round the whole residual stream, every other parameter's last bits matter."""
    model, params, apply = in_bfloat16(conditioning=conditioning, skips=False)
    expected, (leaves, tree) = apply(params), jax.tree.flatten(params)
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        other = [*leaves[:i], leaf.astype(jnp.bfloat16).astype(np.float32), *leaves[i + 1 :]]
        assert (apply(jax.tree.unflatten(tree, other)) == expected).all() == model.is_rounded(name), name


def test_heads_and_hidden_channels_are_split_over_devices_and_summed_once_each():
    """Tensor parallelism: within a block, only the products that leave attention and the MLP sum over devices."""
    model = build(SMALL | {"heads": 4})
    split = tensor_axes(model, AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor")))
    x, t, y = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (X, T_B, Y_B))
    operations = trace(model.apply, jax.eval_shape(lambda: initial_variables(model, 0)), x, t, y, split=split).operations
    layers = lambda chosen: {each.layer.partition("mid_block.")[2] for each in operations if chosen(each)} - {""}
    assert layers(lambda each: "tensor" in each.summed) == {"attention.output", "mlp_output"}
    split_results = {"attention.query", "attention.key", "attention.value", "attention", "mlp_hidden"}
    assert layers(lambda each: "tensor" in each.result.axes) == split_results
    assert not any("tensor" in each.result.axes for each in operations if each.layer.startswith("time_embed"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heads": 5}, "width: found 12, must be divisible by config.model.heads 5"),
        ({"heads": 0}, "heads: found 0, must be at least 1"),
        ({"mlp_ratio": 0.5}, "mlp_ratio: found 0.5, must be at least 1"),
        ({"patch_size": 3}, "image_size: found 8, must be divisible by config.model.patch_size 3"),
        ({"spiking_steps": 4}, "spiking_steps: unknown field"),
    ],
)
def test_a_wrong_field_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=f"^config.model.{message}"):
        build(SMALL | change)


def test_it_does_not_spike():
    model = build(SMALL)
    assert model.spiking_steps == 1 and model.baseline() is model and "no spikes (attention)" in model.summary
    _, sown = jax.eval_shape(lambda params: model.apply({"params": params}, X, T_B, Y_B, mutable=["spikes"]), shapes_of(model))
    assert not sown
