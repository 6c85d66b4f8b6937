"""WKV, in all its implementations, against the quadratic definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.ops import WKVState, wkv
from sdit_jax.ops.wkv import IMPLEMENTATIONS, initial_state, linear, triton

NAMES = [name for name in IMPLEMENTATIONS if name not in ("auto", "pallas")]
B, C = 2, 3
# Jax 0.12 says this wherever a Pallas kernel is compiled for a GPU.
pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")


def direct(w, u, k, v, mean=None, log_mass=None, bidirectional=False):
    """PAPER section 4 as written: softmax over all tokens i, log weight k_i - (|t-i|-1) w, or u + k_t for i = t.

    The past is one more token of value `mean` and log weight `log_mass` - t w. Returns y and the state after the last token.
    """
    L = k.shape[1]
    gap = jnp.arange(L)[:, None] - jnp.arange(L)
    log_weight = k[:, None] - (jnp.abs(gap)[..., None] - 1) * w
    log_weight = jnp.where((gap == 0)[..., None], u + k[:, None], log_weight)
    if not bidirectional:
        log_weight = jnp.where((gap >= 0)[..., None], log_weight, -jnp.inf)
    last, values = k - jnp.arange(L)[::-1, None] * w, v
    if mean is not None:
        past = log_mass[:, None] - jnp.arange(L + 1)[:, None] * w
        log_weight = jnp.concatenate([past[:, :-1, None], log_weight], 2)
        last, values = jnp.concatenate([past[:, -1:], last], 1), jnp.concatenate([mean[:, None], v], 1)
    y = jnp.einsum("btic,bic->btc", jax.nn.softmax(log_weight, 2), values)
    if bidirectional:
        return (y,)
    return y, (jax.nn.softmax(last, 1) * values).sum(1), jax.nn.logsumexp(last, 1)


def ours(implementation, w, u, k, v, *state, bidirectional=False):
    start = WKVState(*state) if state else None
    y, last = wkv(w, u, k, v, state=start, bidirectional=bidirectional, implementation=implementation)
    return (y,) if last is None else (y, *last)


def inputs(L, with_state, seed=0, C=C):
    rng = np.random.default_rng(seed)
    arrays = [np.exp(rng.normal(-1, 1, C)), rng.normal(size=C), *rng.normal(size=(2, B, L, C))]
    arrays += list(rng.normal(size=(2, B, C))) if with_state else []
    return [a.astype(np.float32) for a in arrays]


def pulled(function, arrays, cotangents):
    """Outputs of a function, then gradients of all its arrays: every output has a cotangent."""

    @jax.jit
    def both(arrays, cotangents):
        outputs, pull = jax.vjp(function, *arrays)
        return *outputs, *pull(tuple(cotangents[: len(outputs)]))

    return both(arrays, cotangents)


def pulled_in_float64(arrays, cotangents, **options):
    with jax.enable_x64(True):
        wide = lambda xs: [jnp.asarray(np.asarray(x), jnp.float64) for x in xs]
        return [np.asarray(x) for x in pulled(lambda *a: direct(*a, **options), wide(arrays), wide(cotangents))]


def cotangents_for(L, seed=1, C=C):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((B, L, C), (B, C), (B, C))]


def assert_close(found, expected, tolerance):
    """All finite, and every array as a whole within a relative error."""
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.isfinite(a).all(), f"array {i}"
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + 1e-30, f"array {i}"


LONG = pytest.mark.slow  # Interpreted, kernels take seconds to compile.


@pytest.mark.parametrize(
    "L, with_state",
    [(1, False), (1, True), (7, True), (64, True), *(pytest.param(*case, marks=LONG) for case in ((64, False), (257, True)))],
)
def test_implementations_agree_with_the_definition_and_each_other(L, with_state):
    """Outputs, both parts of the state, and the gradients of w, u, k, v and the initial state."""
    arrays, cotangents = inputs(L, with_state), cotangents_for(L)
    results = {name: pulled(lambda *a, n=name: ours(n, *a), arrays, cotangents) for name in NAMES}
    expected = pulled_in_float64(arrays, cotangents)
    for name in NAMES:
        assert_close(results[name], expected, 1e-5)
        assert_close(results[name], results["sequential"], 1e-5)


@pytest.mark.parametrize("L", [1, 7, pytest.param(64, marks=LONG)])
@pytest.mark.parametrize("name", NAMES)
def test_bidirectional_equals_the_definition(name, L):
    arrays, cotangents = inputs(L, with_state=False), cotangents_for(L)
    found = pulled(lambda *a: ours(name, *a, bidirectional=True), arrays, cotangents)
    assert_close(found, pulled_in_float64(arrays, cotangents, bidirectional=True), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_two_passes_joined_by_the_state_equal_one(name):
    L, cut = 23, 9

    def in_two(w, u, k, v, *state):
        y1, *state = ours(name, w, u, k[:, :cut], v[:, :cut], *state)
        y2, *state = ours(name, w, u, k[:, cut:], v[:, cut:], *state)
        return jnp.concatenate([y1, y2], 1), *state

    arrays, cotangents = inputs(L, with_state=True), cotangents_for(L)
    assert_close(pulled(in_two, arrays, cotangents), pulled(lambda *a: ours(name, *a), arrays, cotangents), 1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_huge_keys_are_safe_and_right(name, bidirectional):
    arrays, cotangents = inputs(33, with_state=not bidirectional), cotangents_for(33)
    arrays[2] = np.random.default_rng(3).choice(np.float32([-1e4, 1e4, 0]), arrays[2].shape)
    found = pulled(lambda *a: ours(name, *a, bidirectional=bidirectional), arrays, cotangents)
    expected = pulled_in_float64(arrays, cotangents, bidirectional=bidirectional)
    assert_close(found, expected, 2e-3)  # Float32 keeps the log of a mass of exp(1e4) to 1e-3.


@pytest.mark.parametrize("decay", [[3.0, 0.3, 1e-3], [20.0, 0.7, 150.0]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_linear_recurrences_are_exact_up_to_the_range_that_they_admit(bidirectional, decay):
    """Keys as far apart as `fits` allows, in every order: rises, falls and leaps, with fast and slow decay."""
    arrays, cotangents = inputs(64, with_state=not bidirectional), cotangents_for(64)
    w, u, k = arrays[:3]
    w[:], u[:] = decay, [2.0, -2.0, 0.0]
    ramp, leaps = np.linspace(0, 1, 64), np.random.default_rng(4).integers(0, 2, 64)
    reach = linear.RANGE - 2.1
    k[0], k[1] = reach * np.stack([ramp, 1 - ramp, leaps], 1), reach * np.stack([leaps, ramp, 1 - ramp], 1)
    start = WKVState(*arrays[4:]) if arrays[4:] else initial_state(B, C)
    assert linear.fits(u, jnp.asarray(k), start)[0]
    found = pulled(lambda *a: ours("linear", *a, bidirectional=bidirectional), arrays, cotangents)
    expected = pulled_in_float64(arrays, cotangents, bidirectional=bidirectional)
    # Keys near 58 are known to 2e-6 in float32: how far their last bit moves the exact answer bounds what any form can do.
    k[:] = np.nextafter(k, np.random.default_rng(5).choice(np.float32([-np.inf, np.inf]), k.shape))
    moved = pulled_in_float64(arrays, cotangents, bidirectional=bidirectional)
    off = lambda a, b: np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
    for a, b, c in zip(found, moved, expected, strict=True):
        assert off(a, c) <= max(5e-6, 4 * off(b, c))


def test_keys_beyond_that_range_take_the_safe_road():
    arrays, cotangents = inputs(16, with_state=False), cotangents_for(16)
    arrays[2][0, 3, 1] = 90.0
    assert not linear.fits(arrays[1], jnp.asarray(arrays[2]), initial_state(B, C))[0]
    assert not linear.fits(arrays[1], jnp.asarray(arrays[2]) * jnp.nan, initial_state(B, C))[0]
    found = pulled(lambda *a: ours("linear", *a), arrays, cotangents)
    assert_close(found, pulled(lambda *a: ours("sequential", *a), arrays, cotangents), 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rounding_does_not_add_up_over_a_long_sequence(name):
    L = 4096
    rng = np.random.default_rng(0)
    w, k, v = np.float32([1e-4, 1e-3, 1e-2]), rng.normal(20, 1, (1, L, C)).astype(np.float32), rng.normal(size=(1, L, C))
    _, mean, log_mass = jax.jit(lambda *a: ours(name, *a))(w, np.zeros(C, np.float32), k, v.astype(np.float32))
    weight = k.astype(np.float64) - np.arange(L)[::-1, None] * w.astype(np.float64)
    np.testing.assert_allclose(log_mass, np.log(np.exp(weight).sum(1)), rtol=2e-7)  # The last place of a float32.
    np.testing.assert_allclose(mean, (np.exp(weight) * v).sum(1) / np.exp(weight).sum(1), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_token_without_a_past_is_its_value(name):
    w, u, k, v = inputs(1, with_state=False)
    y, mean, log_mass = jax.jit(lambda *a: ours(name, *a))(w, u, k, v)
    np.testing.assert_array_equal(y, v)
    np.testing.assert_array_equal(mean, v[:, 0])
    np.testing.assert_array_equal(log_mass, k[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_computed_in_float32(name):
    arrays = [jnp.asarray(a, jnp.bfloat16) for a in inputs(17, with_state=False)]
    wide = [a.astype(jnp.float32) for a in arrays]
    dtypes = [jnp.bfloat16, jnp.float32, jnp.float32]  # y, the state.
    cotangents = [jnp.asarray(c, jnp.bfloat16).astype(dtype) for c, dtype in zip(cotangents_for(17), dtypes, strict=True)]
    y, *state_and_gradients = pulled(lambda *a: ours(name, *a), arrays, cotangents)
    expected_y, *expected = pulled(lambda *a: ours(name, *a), wide, [c.astype(jnp.float32) for c in cotangents])
    assert [a.dtype for a in (y, *state_and_gradients)] == dtypes + 4 * [jnp.bfloat16]
    np.testing.assert_array_equal(y, expected_y.astype(jnp.bfloat16))
    assert_close(state_and_gradients[:2], expected[:2], 1e-6)
    assert_close(state_and_gradients[2:], expected[2:], 3e-3)  # The gradients themselves are rounded to bfloat16.


@pytest.mark.parametrize(
    "L, C, bidirectional", [(triton.CHUNK + 1, triton.BLOCK + 3, False), (triton.CHUNK, triton.BLOCK, True)]
)
def test_the_kernel_reads_bfloat16_and_fills_no_more_than_there_is(L, C, bidirectional):
    """Last chunks and blocks of channels that are whole and that are not."""
    arrays, cotangents = inputs(L, not bidirectional, C=C), cotangents_for(L, C=C)
    narrow = lambda xs: [jnp.asarray(x, jnp.bfloat16 if np.ndim(x) == 3 else jnp.float32) for x in xs]
    arrays, cotangents = narrow(arrays), narrow(cotangents)
    found = pulled(lambda *a: ours("triton", *a, bidirectional=bidirectional), arrays, cotangents)
    expected = pulled_in_float64(arrays, cotangents, bidirectional=bidirectional)
    assert [a.dtype for a in found if a.ndim == 3] == 3 * [jnp.bfloat16]  # y, dk, dv.
    for a, b in zip(found, expected, strict=True):
        assert_close([a], [b], 3e-3 if a.dtype == jnp.bfloat16 else 1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("L, C", [(21, 40), (16, 64)])
def test_the_kernel_is_made_for_a_gpu_and_moves_what_it_says(L, C, bidirectional):
    """Without a GPU: down to the code that its compiler is given."""
    shape = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
    k = shape(B, L, C, dtype=jnp.bfloat16)

    def both(w, u, k, v, dy):
        y, pull = jax.vjp(lambda *a: ours("triton", *a, bidirectional=bidirectional)[0], w, u, k, v)
        return y, *pull(dy)

    device = jax.sharding.AbstractDevice("NVIDIA H100", None, "gpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)):
        lowered = jax.jit(both).trace(shape(C), shape(C), k, k, k).lower(lowering_platforms=("cuda",))
    calls = [line for line in lowered.as_text().splitlines() if "triton" in line and "custom_call" in line]
    whole, narrow = f"tensor<{B}x{L}x{C}x", f"tensor<{B}x{L}x{C}xbf16>"
    forward, backward = [(3, 3)], [(5, 5)]  # All of k, v, y; k, v, dy, dk, dv.
    if bidirectional:  # First k, v without y; dk and dv are yet to be summed.
        forward, backward = [(2, 2), (3, 3)], 2 * [(5, 3)]
    assert [(line.count(whole), line.count(narrow)) for line in calls] == forward + backward


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gradient_keeps_no_more_than_that_of_the_reference_and_linear_in_length(bidirectional):
    def kept(name, L):
        arrays = inputs(L, with_state=False)
        pull = jax.eval_shape(lambda *a: jax.vjp(lambda *b: ours(name, *b, bidirectional=bidirectional), *a)[1], *arrays)
        leaves = jax.tree.leaves(pull)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    size = kept("sequential", 64)
    for name in NAMES:
        assert kept(name, 64) <= size
        assert kept(name, 128) <= 2 * kept(name, 64)
    assert size < (17 if bidirectional else 8) * 4 * B * 64 * C  # Fewer than 8 arrays of (B, L, C), 17 in two directions.


def test_auto_is_one_of_the_implementations():
    arrays = inputs(7, with_state=False)
    assert_close(ours("auto", *arrays), ours("sequential", *arrays), 1e-5)


@pytest.mark.parametrize(
    "change, options, message",
    [
        ({}, {"implementation": "cuda"}, "cuda.*sequential"),
        ({"w": np.ones(4, np.float32)}, {}, r"w \(4,\)"),
        ({"u": np.ones((1, 3), np.float32)}, {}, r"u \(1, 3\)"),
        ({"v": np.ones((B, 6, C), np.float32)}, {}, r"v \(2, 6, 3\)"),
        ({"k": np.ones((B, 0, C), np.float32), "v": np.ones((B, 0, C), np.float32)}, {}, "L >= 1"),
        ({}, {"bidirectional": True, "state": WKVState(jnp.zeros((B, C)), jnp.zeros((B, C)))}, "state"),
    ],
)
def test_wrong_arguments_are_refused(change, options, message):
    arrays = dict(zip("wukv", inputs(7, with_state=False), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        wkv(*arrays.values(), **options)
