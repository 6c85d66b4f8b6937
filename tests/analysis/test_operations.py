"""Counts of operations against closed forms, XLA's own count, and another walk over the program's dots and convolutions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from sdit_jax.analysis import operations
from sdit_jax.analysis.dataflow import BATCH, TENSOR, Origin
from sdit_jax.models import build, initial_variables, preset
from sdit_jax.models.sdit import PRESETS
from sdit_jax.ops import firing_rate, lif, wkv

SMALL = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 4, "normalized_currents": True}


def shapes(*sizes):
    return [jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes]


def applied(module, *sizes):
    """The program of a module's forward pass on inputs of these sizes."""
    inputs = shapes(*sizes)
    variables = jax.eval_shape(lambda *inputs: module.init(jax.random.key(0), *inputs), *inputs)
    return operations.trace(module.apply, variables, *inputs)


def counts(program):
    return {operation.layer: operation.macs for operation in program.operations}


def by_xla(function, *sizes):
    return jax.jit(function).lower(*shapes(*sizes)).compile().cost_analysis()["flops"]


@pytest.mark.parametrize(
    "config", [*PRESETS, SMALL | {"remat": "blocks"}, SMALL | {"skips": False, "bidirectional": True, "token_shift": "2d"}]
)
def test_products_and_wkv_of_every_preset_of_sdit(config, program_macs):
    model = build(preset(config) if isinstance(config, str) else config)
    x, t, y = jnp.zeros((1, model.image_size, model.image_size, model.channels)), jnp.zeros(1), jnp.zeros(1, int)
    traced = jax.make_jaxpr(lambda v: model.apply(v, x, t, y))(jax.eval_shape(lambda: initial_variables(model, 0)))
    found = operations.forward(model)
    averages = [operation.macs for operation in found.operations if operation.kind == "wkv"]
    tokens = ((model.image_size // model.patch_size) ** 2 + 1) * (2 if model.reconstruction else 1)
    assert averages == [(5 if model.bidirectional else 3) * tokens * model.width] * (model.depth + 1)
    assert found.flops == 2 * program_macs(traced.jaxpr) and found.macs == found.flops / 2 + sum(averages)
    assert not found.uncertain


@pytest.mark.parametrize(
    "settings",
    [{}, {"strides": 2}, {"kernel_dilation": 2}, {"feature_group_count": 2}, {"strides": (2, 1), "kernel_dilation": 2}],
)
def test_convolutions_without_padding_as_xla_counts_them(settings):
    module, size = nn.Conv(6, (3, 3), padding="VALID", use_bias=False, **settings), (2, 9, 11, 4)
    kernel = (3, 3, 4 // settings.get("feature_group_count", 1), 6)
    function = lambda kernel, x: module.apply({"params": {"kernel": kernel}}, x)
    assert applied(module, size).flops == by_xla(function, kernel, size)


def test_padding_counts_and_strides_divide():
    assert applied(nn.Conv(6, (3, 3)), (1, 8, 8, 4)).macs == 8 * 8 * 9 * 4 * 6
    assert applied(nn.Conv(6, (3, 3), strides=2), (1, 8, 8, 4)).macs == 4 * 4 * 9 * 4 * 6
    assert applied(nn.Conv(8, (5,), feature_group_count=4), (1, 8, 4)).macs == 8 * 5 * 8


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (2, 2), (5, 3), (3, 1)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_transposed_convolution_multiplies_each_input_with_each_tap(kernel, stride, padding):
    found = applied(nn.ConvTranspose(5, (kernel, kernel), (stride, stride), padding=padding), (2, 6, 6, 3)).macs
    inside = 2 * 6 * 6 * kernel**2 * 3 * 5
    if padding == "SAME":
        assert found == inside
    else:  # Padding counts: the outputs of one dimension times the taps that meet an input or padding.
        outputs = (6 - 1) * stride + max(kernel, stride)
        taps = sum(sum((place + tap - (kernel - 1)) % stride == 0 for tap in range(kernel)) for place in range(outputs))
        assert found == 2 * taps**2 * 3 * 5 >= inside


def test_gradients_of_convolutions_count_as_the_convolutions_do():
    module, size = nn.Conv(6, (4, 4), strides=2, use_bias=False), (2, 8, 8, 4)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), *shapes(size))
    loss = lambda variables, x: jnp.square(module.apply(variables, x)).sum()
    found = operations.trace(jax.grad(loss, argnums=(0, 1)), variables, *shapes(size)).operations
    assert [operation.count for operation in found] == [2 * 4 * 4 * 16 * 4 * 6] * 3
    assert [operation.phase for operation in found] == ["forward", "backward", "backward"]
    assert [operation.gives_gradient for operation in found].count(True) == 1


def test_attention_has_the_products_of_queries_keys_and_values():
    B, L, C, heads = 2, 7, 12, 3
    module = nn.MultiHeadDotProductAttention(heads, use_bias=False)
    program = applied(module, (B, L, C))
    matrices = [operation.macs for operation in program.operations if operation.weights is not None]
    pairs = [operation for operation in program.operations if operation.weights is None]
    assert matrices == [B * L * C * C] * 4
    assert [operation.macs for operation in pairs] == [B * L * L * C] * 2
    assert all(array.origin == Origin.DATA for operation in pairs for array in operation.operands)
    assert {operation.layer for operation in program.operations} >= {"query", "key", "value", "out"}
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), *shapes((B, L, C)))
    leaves, tree = jax.tree.flatten(variables)
    dots = lambda x, *leaves: module.apply(jax.tree.unflatten(tree, leaves), x)
    assert program.flops <= by_xla(dots, (B, L, C), *[leaf.shape for leaf in leaves]) <= 1.25 * program.flops  # And softmax.


class Stack(nn.Module):
    """Blocks with stacked parameters, each with a trunk that runs at T spiking steps."""

    blocks: int = 3
    T: int = 4
    remat: bool = False

    @nn.compact
    def __call__(self, x_BC):
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        scan = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.blocks)
        return scan(self.T, name="blocks")(x_BC, None)[0]


class Block(nn.Module):
    T: int

    def setup(self):
        self.expand = nn.Dense(8, use_bias=False)

    @nn.compact
    def __call__(self, x_BC, _):
        kernel = self.param("kernel", nn.initializers.normal(), (8, 8))
        step = lambda v_BC, _: (nn.tanh(v_BC) @ kernel, None)
        return x_BC + jax.lax.scan(step, self.widened(x_BC), None, self.T)[0][:, : x_BC.shape[-1]], None

    def widened(self, x_BC):
        return self.expand(nn.tanh(x_BC))


@pytest.mark.parametrize("remat", [False, True])
def test_stacked_blocks_are_layers_and_spiking_steps_are_runs(remat):
    found = applied(Stack(remat=remat), (2, 5)).operations
    expected = [name for i in range(3) for name in (f"blocks.{i}.expand", f"blocks.{i}")]
    assert [operation.layer for operation in found] == expected
    assert [operation.runs for operation in found] == [1, 4] * 3
    assert [operation.macs for operation in found] == [2 * 5 * 8, 4 * 2 * 8 * 8] * 3
    assert {operation.operands[1].view for operation in found} == {"blocks/expand/kernel", "blocks/kernel"}


@pytest.mark.parametrize("remat", [False, True])
def test_a_gradient_has_three_times_the_products_and_those_that_it_recomputes(remat, program_macs):
    module = Stack(remat=remat)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), *shapes((2, 5)))
    gradient = jax.value_and_grad(lambda variables, x: jnp.square(module.apply(variables, x)).sum(), argnums=(0, 1))
    program, forward = operations.trace(gradient, variables, *shapes((2, 5))), counts(applied(module, (2, 5)))
    for layer, expected in forward.items():
        found = [operation for operation in program.operations if operation.layer == layer]
        in_phase = {phase: sum(each.macs for each in found if each.phase == phase) for phase in ("forward", "recompute")}
        assert in_phase == {"forward": expected, "recompute": remat * expected}
        assert [each.macs for each in found if each.phase == "backward"] == [expected] * 2
        assert [each.gives_gradient for each in found].count(True) == 1
    assert program.macs == program_macs(jax.make_jaxpr(gradient)(variables, *shapes((2, 5))).jaxpr)


def test_a_cond_counts_as_its_largest_branch_and_an_unknown_loop_once():
    def branches(kernel, x):
        return jax.lax.cond(x.sum() > 0, lambda: x @ kernel, lambda: x @ kernel @ kernel @ kernel)

    def loop(kernel, x):
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ kernel, x)

    trace = lambda function: operations.trace(function, *shapes((4, 4), (2, 4)))
    assert trace(branches).macs == 3 * 2 * 4 * 4 and trace(branches).uncertain == []
    assert trace(loop).macs == 2 * 4 * 4 and trace(loop).uncertain == ["network"]
    fixed = lambda kernel, x: jax.lax.fori_loop(0, 5, lambda _, x: x @ kernel, x)
    assert trace(fixed).macs == 5 * 2 * 4 * 4 and trace(fixed).uncertain == []


def test_what_is_not_used_is_not_counted():
    def function(kernel, x):
        unused = x @ kernel
        return (x @ kernel @ kernel, unused)[0]

    assert operations.trace(function, *shapes((4, 4), (2, 4))).macs == 2 * 2 * 4 * 4


def test_weights_come_from_parameters_alone_and_products_of_them_are_common():
    def function(variables, x):
        kernel, tokens = variables["kernel"], variables["tokens"]
        normalized = kernel / jnp.linalg.norm(kernel)
        return x @ kernel.T.astype(jnp.bfloat16), x @ normalized, (tokens + 1) @ kernel, x.T @ x, x @ (normalized * x.sum())

    variables = dict(zip(("kernel", "tokens"), shapes((4, 4), (3, 4)), strict=True))
    found = operations.trace(function, variables, *shapes((2, 4))).operations
    assert [operation.weights for operation in found] == [1, 1, 1, None, None]
    assert [operation.is_common for operation in found] == [False, False, True, False, False]
    views = [operation.operands[1].view for operation in found]
    assert views == ["kernel", None, "kernel", None, None] and found[0].operands[1].dtype == jnp.bfloat16


def test_a_split_axis_is_followed_through_a_layer_and_its_gradient():
    """Of a feed-forward layer with heads: its second product, and the gradient of its input, are sums over the split axis."""

    def loss(variables, x_BLC):
        h = jax.nn.gelu(x_BLC @ variables["into"]).reshape(*x_BLC.shape[:2], 2, 8).swapaxes(1, 2)
        return jnp.square(h.swapaxes(1, 2).reshape(*x_BLC.shape[:2], 16) @ variables["out"]).sum()

    variables = dict(zip(("into", "out"), shapes((6, 16), (16, 6)), strict=True))
    axes = {"into": (None, TENSOR), "out": (TENSOR, None)}
    program = operations.trace(
        jax.grad(loss, argnums=(0, 1)), variables, *shapes((3, 5, 6)), split=lambda name, shape: axes[name]
    )
    found = [(operation.summed, set(operation.result.axes) - {None}) for operation in program.operations]
    nothing, forward, backward = set(), found[:2], found[2:]
    assert forward == [(nothing, {BATCH, TENSOR}), ({TENSOR}, {BATCH})]
    of_out, of_h, of_into, of_x = ({BATCH}, {TENSOR}), (nothing, {BATCH, TENSOR}), ({BATCH}, {TENSOR}), ({TENSOR}, {BATCH})
    assert backward == [of_out, of_h, of_into, of_x]
    assert [operation.gives_gradient for operation in program.operations] == [False, False, True, False, True, False]
    assert [array.axes for array in program.results] == [*axes.values(), (BATCH, None, None)]


def test_neurons_and_wkv_are_counted_in_loops_and_gradients():
    B, T, L, C = 2, 4, 5, 6

    def function(w_C, x_BLC):
        spikes = lif(jnp.broadcast_to(x_BLC, (T, *x_BLC.shape)))[0]
        step = lambda total, x: (total + wkv(w_C, w_C, x, x)[0] + firing_rate(x, 7), None)
        return jax.lax.scan(step, 0 * x_BLC, spikes)[0].sum()

    program = operations.trace(jax.value_and_grad(function), *shapes((C,), (B, L, C)))
    numbers = B * L * C
    assert sum(operation.updates for operation in program.operations) == T * numbers + T * 7 * numbers
    assert program.macs == T * 3 * numbers and program.flops == 0


def test_what_parts_of_a_mesh_compute_by_hand_counts_for_each_of_them():
    mesh, rows = AbstractMesh((4, 2), ("data", "tensor")), PartitionSpec("data")
    product = lambda x, w: x @ w
    split = jax.shard_map(product, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows, axis_names={"data"})
    program = operations.walk(jax.make_jaxpr(split)(*shapes((8, 3), (3, 5))))
    assert program.flops == 2 * 8 * 3 * 5 and not program.uncertain
