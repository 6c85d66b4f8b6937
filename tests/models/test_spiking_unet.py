"""The spiking U-Net against one of the same weights in PyTorch, float64, with spikingjelly's neurons stepped one by one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.analysis.energy import measure_energy
from sdit_jax.analysis.operations import forward
from sdit_jax.errors import InputError
from sdit_jax.layers.spiking import firing_rates
from sdit_jax.models import build, initial_variables, preset, spiking_unet
from sdit_jax.models.spiking_unet import PRESETS

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # Of spikingjelly.
SMALL = {
    "name": "spiking_unet", "image_size": 8, "width": 4, "multipliers": "1,3", "groups": 2, "embedding": 6, "spiking_steps": 3,
}  # fmt: skip
B, LEVELS, GROUPS = 2, 2, 2
MARGIN = 1e-4  # Rounding in float32, a few 1e-6, flips no spike.
X = np.random.default_rng(0).normal(size=(B, 8, 8, 1)).astype(np.float32)
T_B, Y_B = jnp.array([3, 700]), jnp.array([4, 10])
IN_ORDER = ("down_0_0", "down_1_0", "mid", "up_1_0", "up_0_0")  # Of the blocks.
NEURONS = {f"{block}.neurons_{i}" for block in IN_ORDER for i in (1, 2)} | {
    "downsample_1.neurons", "upsample_1.neurons", "head_neurons",
}  # fmt: skip


def shapes_of(model):
    return jax.eval_shape(lambda: initial_variables(model, 0)["params"])


def ordinary(model):
    """Parameters that are all at ordinary values, none at zero; no membrane comes within MARGIN of its threshold."""
    rng = np.random.default_rng(50)
    near_one = lambda path: path[-1].key == "scale"
    draw = lambda path, leaf: np.float32(near_one(path) + 0.5 * rng.normal(size=leaf.shape))
    return jax.tree_util.tree_map_with_path(draw, shapes_of(model))


class Peer:
    """The network in PyTorch: `step` runs once through all layers, and the neurons keep their membranes."""

    def __init__(self, params, threshold=1.0, soft=False, detach=False):
        torch, _ = pytest.importorskip("torch"), pytest.importorskip("spikingjelly")
        from spikingjelly.activation_based import neuron, surrogate

        self.torch, self.F, self.threshold = torch, torch.nn.functional, threshold
        self.params = jax.tree.map(lambda leaf: torch.tensor(np.float64(leaf), requires_grad=True), params)
        settings = {"v_threshold": threshold, "v_reset": None if soft else 0.0, "detach_reset": detach}
        self.new = lambda: neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(2.0), **settings)
        self.neurons, self.spikes = {}, {}

    def fire(self, name, x):
        node = self.neurons.setdefault(name, self.new())
        h = node.v + (x.detach() - node.v) / node.tau
        assert abs(h - self.threshold).min() > MARGIN
        s = node(x)
        self.spikes.setdefault(name, []).append(s.detach().mean().item())
        return s

    def conv(self, params, x, stride=1):
        kernel = params["kernel"].permute(3, 2, 0, 1).contiguous()
        if stride == 2:  # Even sides: "SAME" has its one zero behind.
            return self.F.conv2d(self.F.pad(x, (0, 1, 0, 1)), kernel, params.get("bias"), 2)
        return self.F.conv2d(x, kernel, params.get("bias"), padding="same")

    def norm(self, params, x):
        return self.threshold * self.F.group_norm(x, GROUPS, params["scale"], params["bias"], 1e-6)

    def normed(self, params, name, x, stride=1):
        return self.norm(params[f"{name}_norm"], self.conv(params[name], x, stride))

    def block(self, name, x):
        params = self.params[name]
        s = self.fire(f"{name}.neurons_1", x)
        current = self.normed(params, "conv_1", s) + self.shifts[IN_ORDER.index(name)]
        x = self.normed(params, "shortcut", s) if "shortcut" in params else x
        return x + self.normed(params, "conv_2", self.fire(f"{name}.neurons_2", current))

    def condition(self, t_B, y_B):
        torch, linear = self.torch, lambda params, x: x @ params["kernel"] + params["bias"]
        angles = torch.tensor(np.array(t_B, np.float64))[:, None] * torch.tensor(10_000 ** (-np.arange(128) / 128))
        embed = self.params["time_embed"]
        hidden = self.F.silu(linear(embed["hidden"], torch.cat([angles.cos(), angles.sin()], -1)))
        embedding = linear(embed["output"], hidden) + self.params["label_embed"]["table"][np.array(y_B)]
        shifts = linear(self.params["shifts"], self.F.silu(embedding))[:, :, None, None]
        self.shifts = shifts.split([self.params[name]["conv_1"]["kernel"].shape[-1] for name in IN_ORDER], 1)

    def step(self, x):
        x = self.normed(self.params, "stem", x)
        first = x = self.block("down_0_0", x)
        x = self.normed(self.params["downsample_1"], "conv", self.fire("downsample_1.neurons", x), stride=2)
        second = x = self.block("down_1_0", x)
        x = self.block("up_1_0", self.torch.cat([self.block("mid", x), second], 1))
        x = self.normed(self.params["upsample_1"], "conv", self.fire("upsample_1.neurons", x))
        x = self.F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.block("up_0_0", self.torch.cat([x, first], 1))
        return self.conv(self.params["head"], self.fire("head_neurons", self.norm(self.params["head_norm"], x)))

    def __call__(self, steps):
        self.condition(T_B, Y_B)
        x = self.torch.tensor(np.float64(X)).permute(0, 3, 1, 2)
        return (sum(self.step(x) for _ in range(steps)) / steps).permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    "fields, peer",
    [
        ({"remat": "blocks"}, {}),  # In a loop over the steps, which are unrolled otherwise.
        (
            {"reset": "soft", "detach_reset": True, "threshold": 0.5, "spiking_steps": 2},
            {"soft": True, "detach": True, "threshold": 0.5},
        ),
    ],
)
def test_the_network_is_that_of_pytorch_stepped_by_hand(fields, peer):
    """Images, the firing rate of every layer, and the gradient of every parameter, through all steps."""
    model = build(SMALL | fields)
    params, steps = ordinary(model), model.spiking_steps
    weights = np.random.default_rng(2).normal(size=X.shape)

    @jax.jit
    def ours(params):
        def loss(params):
            image, sown = model.apply({"params": params}, X, T_B, Y_B, mutable=["spikes"])
            return (image * weights).sum(), (image, firing_rates(sown["spikes"]))

        return jax.grad(loss, has_aux=True)(params)

    grads, (image, rates) = ours(params)
    theirs = Peer(params, **peer)
    expected = theirs(steps)
    np.testing.assert_allclose(image, expected.detach(), atol=1e-4)
    assert set(theirs.spikes) == NEURONS and all(len(spikes) == steps for spikes in theirs.spikes.values())
    assert rates == {f"firing_rate/{name}": pytest.approx(np.mean(s), abs=1e-6) for name, s in theirs.spikes.items()}
    assert min(rates.values()) > 0.01 and max(rates.values()) < 0.95

    # Steps that each start at rest would all give what a single one does.
    first = Peer(params, **peer)(1).detach()
    single = jax.jit(build(SMALL | fields | {"spiking_steps": 1}).apply)({"params": params}, X, T_B, Y_B)
    np.testing.assert_allclose(single, first, atol=1e-4)
    assert np.abs(image - single).max() > 0.1

    (expected * theirs.torch.tensor(weights)).sum().backward()
    flat, their_flat = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (grads, theirs.params))
    for path, grad in flat.items():
        wanted = their_flat[path].grad.numpy()
        np.testing.assert_allclose(grad, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max(), err_msg=str(path))
        assert np.abs(wanted).max() > 0


def test_every_convolution_but_the_first_multiplies_spikes_at_each_step():
    """Operations by a closed formula, once for what is the same at every step; energy by what the convolutions see."""
    model = build(SMALL)
    params = ordinary(model)
    conv = lambda pixels, before, after, taps=9: pixels * taps * before * after
    per_step = {
        "down_0_0": 2 * conv(64, 4, 4), "downsample_1": conv(16, 4, 12), "down_1_0": 2 * conv(16, 12, 12),
        "mid": 2 * conv(16, 12, 12), "up_1_0": conv(16, 24, 12) + conv(16, 24, 12, 1) + conv(16, 12, 12),
        "upsample_1": conv(16, 12, 4), "up_0_0": conv(64, 8, 4) + conv(64, 8, 4, 1) + conv(64, 4, 4), "head": conv(64, 4, 1),
    }  # fmt: skip
    once = {"time_embed": 256 * 6 + 6 * 6, "shifts": 6 * (4 + 12 + 12 + 12 + 4), "stem": conv(64, 1, 4)}
    energy = measure_energy(model, {"params": params}, jnp.asarray(X), T_B, Y_B)
    found = {}
    for layer in energy.layers:
        name = layer.name.split(".")[0]
        found[name] = found.get(name, 0) + layer.macs
    assert found == once | {name: 3 * macs for name, macs in per_step.items()}
    assert {name.split(".")[0] for name in energy.spike_driven} == set(per_step)
    assert not any(layer.binary for layer in energy.layers if layer.name.split(".")[0] in once)
    assert energy.neuron_updates == 3 * (64 * 4 * 3 + 16 * 12 * 4 + 16 * (24 + 12 + 12) + 64 * (8 + 4 + 4))
    assert energy.baseline_macs == sum(once.values()) + sum(per_step.values())


def test_its_baseline_has_gelu_in_place_of_neurons_and_the_same_matrices():
    model = build(SMALL)
    params, baseline = ordinary(model), model.baseline()
    assert jax.tree.map(jnp.shape, shapes_of(baseline)) == jax.tree.map(jnp.shape, params)
    image, sown = jax.jit(lambda params: baseline.apply({"params": params}, X, T_B, Y_B, mutable=["spikes"]))(params)
    assert jax.tree.leaves(sown) == []
    theirs = Peer(params)
    theirs.fire = lambda name, x: theirs.F.gelu(x, approximate="tanh")
    np.testing.assert_allclose(image, theirs(1).detach(), atol=1e-4)


@pytest.mark.parametrize(
    "name, parameters, rival", [("unet_small", 1_468_865, {}), ("unet_ablation", 901_057, {"patch_size": 7, "width": 128})]
)
def test_presets_have_about_the_parameters_of_sdits(name, parameters, rival):
    """And those of the table, with its operations."""
    count = lambda model: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model)))
    model = build(preset(name))
    assert count(model) == parameters == pytest.approx(count(build(preset("small", **rival))), rel=0.05)
    (row,) = (line for line in spiking_unet.__doc__.splitlines() if f"`{name}`" in line)
    assert f"| {parameters:,} | {forward(model).macs / 1e6:.1f} M |" in row
    assert name in PRESETS


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"image_size": 30}, "config.model.image_size: found 30, must be divisible by 4: .* has 3 levels"),
        ({"multipliers": "1,x"}, "config.model.multipliers: found '1,x', must be positive integers such as '1,2,8'"),
        ({"multipliers": "1,0"}, "config.model.multipliers: found '1,0', must be positive"),
        ({"multipliers": ""}, "config.model.multipliers: found '', must be positive"),
        ({"groups": 3}, "config.model.groups: found 3, must divide the channels of every level: 16, 32, 128"),
        ({"label_dropout": 1.0}, "config.model.label_dropout: found 1.0, must be below 1"),
        ({"learned_decay": True, "leak": False}, "config.model.learned_decay: found True, there is no decay"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        build({"name": "spiking_unet"} | fields)


def test_labels_are_required_or_there_are_none():
    model = build(SMALL)
    with pytest.raises(ValueError, match="y_B: this model has labels; pass 10 for none"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), X, T_B))
    shapes = shapes_of(build(SMALL | {"num_classes": 0, "learned_variance": True, "blocks_per_level": 2}))
    assert "label_embed" not in shapes and shapes["head"]["kernel"].shape[-1] == 2
    assert {"down_1_1", "up_0_1"} <= set(shapes) and shapes["up_0_1"]["conv_1"]["kernel"].shape[-2] == 8
