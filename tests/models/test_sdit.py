"""The network: its switches, its initial values and its order of blocks. Its numbers are in test_release.py."""

import functools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.embed import TimeEmbed
from sdit_jax.layers.rwkv import ChannelMix, TimeMix
from sdit_jax.layers.spiking import Spiking
from sdit_jax.models import build, release
from sdit_jax.models.sdit import Block

NPZ = Path(__file__).parents[1] / "reference" / "sdit_release_tiny.npz"
SMALL = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 2, "normalized_currents": True}
B = 4
X = jnp.asarray(np.random.default_rng(0).normal(size=(B, 8, 8, 3)), jnp.float32)
T_B, Y_B = jnp.array([0, 10, 500, 999]), jnp.array([0, 3, 9, 10])


@functools.cache
def compiled(fields):
    return jax.jit(build(dict(fields)).apply, static_argnames="train")


def run(config, params, x=X, t=T_B, y=Y_B, **options):
    return compiled(tuple(config.items()))({"params": params}, x, t, y, **options)


def initial(config):
    init = jax.jit(lambda key: build(config).init(key, X, T_B, Y_B)["params"])
    return init(jax.random.key(0, impl="rbg"))  # A generator that compiles fast.


def ordinary(config):
    """Parameters that are all at ordinary values, none at zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: build(config).init(jax.random.key(0), X, T_B, Y_B)["params"])
    near_one = lambda path: path[-1].key in ("scale", "tokens")
    draw = lambda path, leaf: np.float32(near_one(path) + 0.4 * rng.normal(size=leaf.shape))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def tiny():
    """(config, params) of the release's reference: its neurons fire."""
    config, params = release.load(NPZ)
    return config.to_dict(), params


@pytest.fixture(scope="module")
def started():
    """(config, params) at initialisation, large enough to see distributions."""
    config = {"image_size": 8, "patch_size": 2, "width": 64, "depth": 6}
    return config, initial(config)


@pytest.fixture(scope="module")
def small():
    """(config, params) of the smallest network that fires."""
    return SMALL, ordinary(SMALL)


def test_examples_do_not_see_each_other(small):
    config, params = small
    whole = run(config, params)
    for i in range(B):
        alone = run(config, params, X[i : i + 1], T_B[i : i + 1], Y_B[i : i + 1])
        np.testing.assert_allclose(whole[i], alone[0], atol=1e-5)
    assert all(jnp.abs(whole[i] - whole[j]).max() > 1e-2 for i in range(B) for j in range(i))


@pytest.mark.parametrize("change", [{"t": T_B + 1}, {"y": Y_B[::-1]}])
def test_time_and_label_matter(small, change):
    config, params = small
    assert jnp.abs(run(config, params) - run(config, params, **change)).max() > 1e-3


def test_training_drops_some_labels_to_the_null_row(small):
    config, params = small
    n = 32
    x, t, y = (jnp.repeat(a[1:2], n, 0) for a in (X, T_B, Y_B))
    config = config | {"label_dropout": 0.4}
    found = run(config, params, x, t, y, train=True, rngs={"label_dropout": jax.random.key(0)})
    kept, null = run(config, params, x[:1], t[:1], y[:1])[0], run(config, params, x[:1], t[:1], jnp.array([10]))[0]
    dropped = np.array([jnp.abs(out - null).max() < 1e-4 for out in found])
    assert 3 <= dropped.sum() <= 24
    np.testing.assert_allclose(found[~dropped], jnp.broadcast_to(kept, found[~dropped].shape), atol=1e-4)
    assert jnp.abs(kept - null).max() > 1e-3
    np.testing.assert_allclose(run(config, params, x, t, y), jnp.broadcast_to(kept, found.shape), atol=1e-4)


def test_a_model_without_classes_ignores_labels():
    config = SMALL | {"num_classes": 0}
    params = ordinary(config)
    assert "label_embed" not in params
    expected = run(config, params, y=None)
    np.testing.assert_array_equal(run(config, params), expected)
    np.testing.assert_array_equal(run(config, params, train=True), expected)
    assert jnp.abs(expected - run(config, params, t=T_B + 1)).max() > 1e-3


def test_a_model_with_classes_wants_labels(small):
    with pytest.raises(ValueError, match="y_B.*10"):
        run(*small, y=None)


def test_a_condition_of_every_token_is_one_more_position_embedding(tiny):
    """Of images that share time and label, it is the same for all patches."""
    config, params = tiny
    t, y = jnp.full(B, 300), jnp.full(B, 7)
    condition = TimeEmbed(config["width"]).apply({"params": params["time_embed"]}, t[:1]) + params["label_embed"]["table"][7]
    size, channels = config["image_size"], config["channels"]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(B, size, size, channels)), jnp.float32)
    expected = run(config, params | {"position": jnp.asarray(params["position"]).at[1:].add(condition[0])}, x, t, y)
    found = run(config | {"conditioning": "every_token"}, params, x, t, y)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert jnp.abs(found - run(config, params, x, t, y)).max() > 1e-2


def test_adaln_scales_and_shifts_the_inputs_of_the_mixing_layers():
    """It starts at zero; a scale multiplies rows of their kernels; every image has its own."""
    config = SMALL | {"reconstruction": False, "conditioning": "adaln"}
    params, width = ordinary(config), SMALL["width"]
    rng, groups = np.random.default_rng(2), ("in_blocks", "mid_block", "out_blocks")

    def with_modulation(params, kernel, bias):
        fill = lambda leaf, value: jnp.broadcast_to(value, leaf.shape)
        blocks = {}
        for name in groups:
            own = params[name]["modulation"]
            own = {"kernel": fill(own["kernel"], kernel), "bias": fill(own["bias"], bias)}
            blocks[name] = params[name] | {"modulation": own}
        return params | blocks

    plain = run(SMALL | {"reconstruction": False, "conditioning": "every_token"}, params)
    np.testing.assert_allclose(run(config, with_modulation(params, 0.0, 0.0)), plain, atol=1e-5)
    started = initial(config)["mid_block"]["modulation"]
    assert not started["kernel"].any() and not started["bias"].any()

    first, second = 0.3 * rng.normal(size=(2, width)).astype(np.float32)
    bias = np.concatenate([first, 0 * first, second, 0 * second])
    scaled = dict(params)
    for name in groups:
        by_rows = lambda mix, names, scale: mix | {n: {"kernel": mix[n]["kernel"] * (1 + scale)[:, None]} for n in names}
        time_mix = by_rows(params[name]["time_mix"], ("key", "value", "receptance"), first)
        scaled[name] = params[name] | {
            "time_mix": time_mix, "channel_mix": by_rows(params[name]["channel_mix"], ("key", "receptance"), second),
        }  # fmt: skip
    found = run(config, with_modulation(params, 0.0, bias))
    np.testing.assert_allclose(found, run(config, with_modulation(scaled, 0.0, 0.0)), atol=2e-4)
    assert jnp.abs(found - plain).max() > 1e-2

    kernel = 0.3 * rng.normal(size=(width, 4 * width)).astype(np.float32)  # From time and label, image by image.
    found = run(config, with_modulation(params, kernel, bias))
    for i in range(B):
        alone = run(config, with_modulation(params, kernel, bias), X[i : i + 1], T_B[i : i + 1], Y_B[i : i + 1])
        np.testing.assert_allclose(found[i : i + 1], alone, atol=1e-4)
    assert jnp.abs(found - run(config, with_modulation(params, 0.0, bias))).max() > 1e-2


def with_skip_kernel(params, keep, fuse):
    """Output blocks that see keep * x + fuse * skip."""
    half, width = params["out_blocks"]["skip"]["bias"].shape
    kernel = jnp.concatenate([keep * jnp.eye(width), fuse * jnp.eye(width)])
    skip = {"kernel": jnp.broadcast_to(kernel, (half, 2 * width, width)), "bias": jnp.zeros((half, width))}
    return params | {"out_blocks": params["out_blocks"] | {"skip": skip}}


def test_without_skips_the_network_is_that_whose_skips_weigh_nothing(tiny):
    config, params = tiny
    plain = params | {"out_blocks": {name: leaf for name, leaf in params["out_blocks"].items() if name != "skip"}}
    expected = run(config, with_skip_kernel(params, keep=1.0, fuse=0.0))
    np.testing.assert_allclose(run(config | {"skips": False}, plain), expected, atol=1e-5)
    assert jnp.abs(run(config, params) - expected).max() > 1e-2


def test_skips_are_last_in_first_out(tiny):
    """Where output blocks see their skip alone, the last of them sees the first input block and nothing else matters."""
    config, params = tiny
    params = with_skip_kernel(params, keep=0.0, fuse=1.0)
    expected = run(config, params)

    def disturbed(group, index=None):
        pick = slice(None) if index is None else index
        return params | {group: jax.tree.map(lambda leaf: jnp.asarray(leaf).at[pick].add(0.3), params[group])}

    for unused in (disturbed("mid_block"), disturbed("in_blocks", 1), disturbed("out_blocks", 0)):
        np.testing.assert_allclose(run(config, unused), expected, atol=1e-5)
    for used in (disturbed("in_blocks", 0), disturbed("out_blocks", 1)):
        assert jnp.abs(run(config, used) - expected).max() > 1e-2


def split_gates(params):
    """Parameters with all gates at identity, and the same without a Reconstruction Module."""
    groups = ("in_blocks", "mid_block", "out_blocks")
    shut, bare = dict(params), dict(params)
    for group in groups:
        block = dict(params[group])
        module = block.pop("reconstruction")
        bare[group] = block
        shut[group] = block | {"reconstruction": module | {"over_tokens": jax.tree.map(jnp.zeros_like, module["over_tokens"])}}
    return shut, bare


def test_without_reconstruction_the_network_is_that_whose_gates_are_shut(tiny):
    """The tokens come last and everything else is causal, so that they reach the image through the gate alone."""
    config, params = tiny
    shut, bare = split_gates(params)
    expected = run(config, shut)
    np.testing.assert_allclose(run(config | {"reconstruction": False}, bare), expected, atol=1e-5)
    assert jnp.abs(run(config, params) - expected).max() > 1e-2


def test_gates_and_the_last_convolution_can_start_at_identity():
    config = SMALL | {"gate_init": "identity", "final_conv_init": "identity"}
    params = initial(config)
    shut, bare = split_gates(params)
    jax.tree.map(np.testing.assert_array_equal, params, shut)
    head = {"kernel": jnp.sin(jnp.arange(8.0 * 96)).reshape(8, 96), "bias": jnp.arange(96.0)}
    params, bare = params | {"head": head}, bare | {"head": head}
    found = run(config, params)
    np.testing.assert_allclose(found, run(config | {"reconstruction": False}, bare), atol=1e-5)
    moved = run(config, params | {"head": head | {"bias": head["bias"].at[5].add(1)}}) - found
    expected = np.zeros((8, 8, 6))
    expected[::4, ::4, 5] = 1  # The sixth channel of the first pixel of every patch, and of no neighbour.
    np.testing.assert_allclose(moved, np.broadcast_to(expected, moved.shape), atol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_a_bidirectional_network_lets_early_tokens_see_late_ones(tiny, bidirectional):
    config, params = tiny
    _, bare = split_gates(params)
    config = config | {"reconstruction": False, "bidirectional": bidirectional}
    changed = X.at[:, 6:, 6:].add(1.0)  # The last patch.
    difference = jnp.abs(run(config, bare) - run(config, bare, changed))
    assert difference[:, 6:, 6:].max() > 1e-2
    early = difference[:, :5].max()  # Rows that the last convolution does not mix with the last patch.
    assert early > 1e-3 if bidirectional else early < 1e-6


def test_the_reconstruction_module_lets_early_tokens_see_late_ones(tiny):
    difference = jnp.abs(run(*tiny) - run(*tiny, X.at[:, 6:, 6:].add(1.0)))
    assert difference[:, :5].max() > 1e-3


@pytest.fixture(scope="module")
def remembered(tiny):
    """remembered(remat): (bytes that the forward pass keeps for the backward, loss and gradients)."""
    config, params = tiny

    @functools.cache
    def run(remat):
        model = build(config | {"remat": remat})
        loss = lambda p: (model.apply({"params": p}, X, T_B, Y_B) ** 2).mean()
        kept = jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in kept), jax.jit(jax.value_and_grad(loss))(params)

    return run


@pytest.mark.parametrize("remat, least, most", [("elementwise", 0.2, 0.65), ("blocks", 0.0, 0.2)])
def test_what_is_computed_anew_saves_memory_and_changes_neither_output_nor_gradients(remembered, remat, least, most):
    (plain_bytes, plain), (kept_bytes, found) = remembered("none"), remembered(remat)
    assert least < kept_bytes / plain_bytes < most
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), found, plain)


def test_blocks_are_stacked_and_output_blocks_restart_the_count_of_layers(started):
    config, params = started
    depth, width = config["depth"], config["width"]
    half, h = depth // 2, np.arange(width)
    decay = np.stack([-5 + 8 * (h / (width - 1)) ** (0.7 + 1.3 * layer / (depth - 1)) for layer in range(half + 1)])
    mu = np.stack([(h / width) ** (1 - layer / depth) for layer in range(half + 1)])
    for group, layers in (("in_blocks", slice(half)), ("out_blocks", slice(half)), ("mid_block", half)):
        np.testing.assert_allclose(params[group]["time_mix"]["time_decay"], decay[layers], atol=1e-5)
        np.testing.assert_allclose(params[group]["channel_mix"]["mu_k"], mu[layers], atol=1e-6)


def test_every_block_starts_with_weights_of_its_own(started):
    _, params = started
    kernel = lambda group: params[group]["time_mix"]["key"]["kernel"]
    kernels = [*kernel("in_blocks"), kernel("mid_block"), *kernel("out_blocks")]
    assert len(kernels) == 7
    assert all(jnp.abs(a - b).max() > 0.1 for i, a in enumerate(kernels) for b in kernels[:i])


@pytest.mark.parametrize("depth", [4, 12])
def test_a_stack_runs_as_its_blocks_one_after_another(depth):
    """Scanned and, where it is longer than 4, not unrolled whole."""
    config = SMALL | {"depth": depth, "skips": False, "reconstruction": False, "num_classes": 0, "patch_size": 8}
    params = ordinary(config)
    x = params["patch_embed"]["bias"] + X.reshape(B, 1, -1) @ params["patch_embed"]["kernel"]
    condition = TimeEmbed(8).apply({"params": params["time_embed"]}, T_B)[:, None]
    x = jnp.concatenate([condition, x], 1) + params["position"]
    neurons = partial(Spiking, normalized_currents=True)
    fields = {"time_mix": partial(TimeMix, depth), "channel_mix": partial(ChannelMix, depth), "neurons": neurons}
    fields |= {"reconstruction": None, "dtype": "float32"}
    half = depth // 2
    stages = [("in_blocks", i) for i in range(half)] + [("mid_block", None)] + [("out_blocks", i) for i in range(half)]
    block = jax.jit(lambda p, x: Block(**fields).apply({"params": p}, x, None, None, 0)[0])
    for group, i in stages:
        x = block(params[group] if i is None else jax.tree.map(lambda leaf: leaf[i], params[group]), x)
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    image = (x[:, 1] @ params["head"]["kernel"] + params["head"]["bias"]).reshape(B, 8, 8, 6)
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = params["smooth"]["kernel"]
    expected = sum(padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    found = run(config, params)
    np.testing.assert_allclose(found, expected + params["smooth"]["bias"], rtol=1e-3, atol=1e-3)


def assert_uniform(values, bound):
    assert 0.95 * bound < float(jnp.abs(values).max()) <= bound
    assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_weights_start_as_the_paper_says(started):
    _, params = started
    assert_uniform(params["patch_embed"]["kernel"], (6 / (12 + 64)) ** 0.5)
    assert_uniform(params["out_blocks"]["skip"]["kernel"], (6 / (128 + 64)) ** 0.5)
    assert_uniform(params["in_blocks"]["reconstruction"]["over_channels"]["kernel"], (6 / (64 + 17)) ** 0.5)
    assert_uniform(params["mid_block"]["reconstruction"]["over_tokens"]["kernel"], (6 / (64 + 17)) ** 0.5)
    assert_uniform(params["in_blocks"]["channel_mix"]["key"]["kernel"], 64**-0.5)
    assert_uniform(params["in_blocks"]["channel_mix"]["value"]["kernel"], 256**-0.5)
    assert_uniform(params["smooth"]["kernel"], 54**-0.5)
    assert 0 < float(jnp.abs(params["smooth"]["bias"]).max()) <= 54**-0.5
    assert float(params["time_embed"]["hidden"]["kernel"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(params["label_embed"]["table"].std()) == pytest.approx(0.02, rel=0.1)
    zeros = [params["position"], params["head"], params["patch_embed"]["bias"], params["out_blocks"]["skip"]["bias"]]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(zeros))
    assert (params["in_blocks"]["reconstruction"]["tokens"] == 1).all()


def test_every_neuron_of_the_release_is_silent_at_first_and_the_output_is_the_last_bias(started):
    config, params = started
    apply = jax.jit(lambda params: build(config).apply({"params": params}, X, T_B, Y_B, mutable=["spikes"]))
    output, sown = apply(params)
    rates = np.concatenate([np.ravel(rate) for rate in jax.tree.leaves(sown)])
    assert len(rates) == 2 * 7 and (rates == 0).all()
    assert (output == params["smooth"]["bias"]).all()


def test_positions_are_added_to_the_condition_token_and_every_patch(small):
    config, params = small
    expected = run(config, params)
    assert params["position"].shape == (5, 8)
    for place in range(5):
        other = params | {"position": jnp.asarray(params["position"]).at[place].add(jnp.linspace(-2, 2, 8))}
        assert jnp.abs(run(config, other) - expected).max() > 1e-3
