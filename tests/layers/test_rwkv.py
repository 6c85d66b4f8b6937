"""The two mixes against float64, and the initial values of PAPER section 5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.layers.rwkv import ChannelMix, TimeMix, token_shift

B, L, D = 2, 6, 8
X = jnp.asarray(np.random.default_rng(0).normal(size=(B, L, D)), jnp.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def shifted(x):
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], 1)


def wkv_by_definition(w, u, k, v, bidirectional):
    y, tokens = np.zeros_like(v), range(v.shape[1])
    for t in tokens:
        others = [i for i in tokens if i != t and (bidirectional or i < t)]
        weights = [np.exp(k[:, i] - (abs(t - i) - 1) * w) for i in others] + [np.exp(u + k[:, t])]
        y[:, t] = sum(a * v[:, i] for a, i in zip(weights, [*others, t], strict=True)) / sum(weights)
    return y


def drawn(variables, seed=0):
    """Parameters of these shapes, none at a special value."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), variables)


def started(module, x, layer):
    return jax.jit(lambda key: module.init(key, x, layer)["params"])(jax.random.key(0, impl="rbg"))


def test_every_token_is_shifted_to_its_successor():
    np.testing.assert_array_equal(token_shift(X), shifted(np.asarray(X)))


def neighbours(x, side):
    """Token by token: [one apart, side^2 in raster order], as often as the sequence is long."""
    found = np.zeros_like(x)
    quarters = np.array_split(np.arange(x.shape[-1]), 4)
    for start in range(0, x.shape[1], 1 + side**2):
        for row in range(side):
            for column in range(side):
                around = [(row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)]
                for channels, (i, j) in zip(quarters, around, strict=True):
                    if i in range(side) and j in range(side):
                        here, there = start + 1 + row * side + column, start + 1 + i * side + j
                        found[:, here, channels] = x[:, there, channels]
    return found


@pytest.mark.parametrize("side, grids, C", [(3, 1, 8), (3, 2, 8), (2, 2, 7), (1, 2, 8), (4, 1, 2)])
def test_on_the_image_every_token_takes_its_four_neighbours(side, grids, C):
    x = np.random.default_rng(0).normal(size=(2, grids * (1 + side**2), C)).astype(np.float32)
    np.testing.assert_array_equal(token_shift(jnp.asarray(x), side), neighbours(x, side))


@pytest.mark.parametrize("implementation", ["sequential", "associative"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_time_mix_equals_its_definition_in_float64(bidirectional, implementation):
    module = TimeMix(4, bidirectional, implementation)
    variables = drawn(jax.eval_shape(module.init, jax.random.key(0), X, 1))
    p, x = float64(variables["params"]), np.asarray(X, np.float64)
    mix = lambda mu: mu * x + (1 - mu) * shifted(x)
    k, v = mix(p["mu_k"]) @ p["key"]["kernel"], mix(p["mu_v"]) @ p["value"]["kernel"]
    r = mix(p["mu_r"]) @ p["receptance"]["kernel"]
    y = wkv_by_definition(np.exp(p["time_decay"]), p["time_first"], k, v, bidirectional)
    expected = (sigmoid(r) * y) @ p["output"]["kernel"]
    np.testing.assert_allclose(jax.jit(module.apply)(variables, X, 1), expected, atol=1e-5)


def test_mixes_on_the_image_equal_their_definitions_in_float64():
    x = np.random.default_rng(0).normal(size=(B, L - 1, D))  # A token of its own, and 2 x 2.
    around = neighbours(x, 2)
    time, channel = TimeMix(4, side=2), ChannelMix(4, side=2)
    for module in (time, channel):
        variables = drawn(jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(x, jnp.float32), 1))
        p = float64(variables["params"])
        mix = lambda mu: mu * x + (1 - mu) * around
        if module is time:
            k, v = mix(p["mu_k"]) @ p["key"]["kernel"], mix(p["mu_v"]) @ p["value"]["kernel"]
            y = wkv_by_definition(np.exp(p["time_decay"]), p["time_first"], k, v, False)
            expected = (sigmoid(mix(p["mu_r"]) @ p["receptance"]["kernel"]) * y) @ p["output"]["kernel"]
        else:
            inner = np.maximum(mix(p["mu_k"]) @ p["key"]["kernel"], 0) ** 2
            expected = sigmoid(mix(p["mu_r"]) @ p["receptance"]["kernel"]) * (inner @ p["value"]["kernel"])
        np.testing.assert_allclose(module.apply(variables, jnp.asarray(x, jnp.float32), 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bidirectional, side", [(False, 0), (True, 0), (False, 2)])
def test_a_tail_that_is_the_same_for_all_gives_the_joined_sequence_for_less(bidirectional, side):
    module, x, N = TimeMix(4, bidirectional, side=side), X[:, :5], 5 if side else 7
    tail = jnp.asarray(np.random.default_rng(1).normal(size=(N, D)), jnp.float32)
    variables = drawn(jax.eval_shape(module.init, jax.random.key(0), x, 1))
    joined = lambda v, x, tail: module.apply(v, jnp.concatenate([x, jnp.broadcast_to(tail, (B, N, D))], 1), 1)
    apart = lambda v, x, tail: module.apply(v, x, 1, tail)
    run = lambda f: jax.jit(jax.value_and_grad(lambda *args: jnp.sin(f(*args)).sum(), (0, 1, 2)))
    expected, found = (run(f)(variables, x, tail) for f in (joined, apart))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    flops = lambda f: jax.jit(f).lower(variables, x, tail).compile().cost_analysis()["flops"]
    once = N if side else N - 1  # Of keys, values, receptances; in raster order the first one depends on the image.
    assert flops(joined) - flops(apart) > 0.9 * 2 * 3 * (B - 1) * once * D**2


@pytest.mark.parametrize("module", [TimeMix(4, dtype="bfloat16"), ChannelMix(4, dtype="bfloat16")], ids=["time", "channel"])
def test_products_in_bfloat16_stay_near_those_in_float32_and_currents_are_not_rounded(module):
    variables = drawn(jax.eval_shape(module.init, jax.random.key(0), X, 1))
    found, exact = module.apply(variables, X, 1), module.clone(dtype="float32").apply(variables, X, 1)
    off = float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
    assert found.dtype == jnp.float32 and 1e-4 < off < 2e-2
    assert (found != found.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9


def test_channel_mix_equals_its_definition_in_float64():
    module = ChannelMix(4)
    variables = drawn(jax.eval_shape(module.init, jax.random.key(0), X, 1))
    p, x = float64(variables["params"]), np.asarray(X, np.float64)
    mix = lambda mu: mu * x + (1 - mu) * shifted(x)
    inner = np.maximum(mix(p["mu_k"]) @ p["key"]["kernel"], 0) ** 2
    expected = sigmoid(mix(p["mu_r"]) @ p["receptance"]["kernel"]) * (inner @ p["value"]["kernel"])
    assert inner.shape[-1] == 4 * D
    np.testing.assert_allclose(jax.jit(module.apply)(variables, X, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth, layer", [(4, 0), (4, 1), (4, 2), (8, 3), (8, 4), (2, 1)])
def test_decay_bonus_and_mixing_start_at_the_values_of_the_paper(depth, layer):
    time, channel = (started(module(depth), X, layer) for module in (TimeMix, ChannelMix))
    a, b = layer / (depth - 1), 1 - layer / depth
    for h in range(D):
        place = h / D
        expected = {
            "time_decay": -5 + 8 * (h / (D - 1)) ** (0.7 + 1.3 * a),
            "time_first": np.log(0.3) + 0.5 * ((h + 1) % 3 - 1),
            "mu_k": place**b,
            "mu_v": place**b + 0.3 * a,
            "mu_r": place ** (b / 2),
        }
        for name, value in expected.items():
            assert float(time[name][h]) == pytest.approx(value, abs=1e-5), name
        assert float(channel["mu_k"][h]) == float(channel["mu_r"][h]) == pytest.approx(place**b, abs=1e-6)


@pytest.mark.parametrize("module", [TimeMix(4), ChannelMix(4)], ids=["time", "channel"])
def test_linears_start_uniform_within_one_over_the_root_of_their_inputs(module):
    params = started(module, jnp.zeros((1, 2, 64)), 0)
    linears = {name: leaf for name, leaf in params.items() if isinstance(leaf, dict)}
    assert len(linears) in (3, 4)
    for name, linear in linears.items():
        assert set(linear) == {"kernel"}, name
        bound = linear["kernel"].shape[0] ** -0.5
        largest = float(jnp.abs(linear["kernel"]).max())
        assert 0.99 * bound < largest <= bound, name
        assert float(linear["kernel"].std()) == pytest.approx(bound / 3**0.5, rel=0.03), name
