"""NeuroBench's metrics against the package itself, on a copy of a small spiking network in PyTorch."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdit_jax.analysis.neurobench import neurobench
from sdit_jax.analysis.observe import observe
from sdit_jax.ops import firing_rate, lif

B, T, SIDE = 5, 4, 6
IF = {"tau": math.inf, "decay_input": False, "v_reset": None}


class Network(nn.Module):
    """A convolution of pixels, neurons, a convolution of spikes at each step, neurons, and a matrix."""

    spiking_steps: int = T
    image_size: int = SIDE
    channels: int = 2
    num_classes: int = 0

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        current = nn.Conv(3, (3, 3), name="enter")(x_BHWC)
        spikes, _ = lif(jnp.stack([current] * T), **IF)
        spikes, _ = lif(nn.Conv(4, (3, 3), strides=2, padding=1, name="middle")(spikes), **IF)
        return nn.Dense(3, name="leave")(spikes.reshape(T, len(x_BHWC), -1)).mean(0)

    def baseline(self):
        return self


class OnCounts(Network):
    """The same with products on counts, so that the second layer of neurons receives a constant current."""

    @nn.compact
    def __call__(self, x_BHWC, t_B, y_B):
        rate = firing_rate(nn.Conv(3, (3, 3), name="enter")(x_BHWC), T, **IF)
        rate = firing_rate(nn.Conv(4, (3, 3), strides=2, padding=1, name="middle")(rate), T, **IF)
        return nn.Dense(3, name="leave")(rate.reshape(len(x_BHWC), -1))


@pytest.fixture(scope="module")
def example():
    """(images, parameters of which some are 0)."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0.3, 1, (B, SIDE, SIDE, 2)) * (rng.random((B, SIDE, SIDE, 2)) < 0.8), jnp.float32)
    shapes = jax.eval_shape(Network().init, jax.random.key(0), x, jnp.zeros(B), None)["params"]
    scales = {"enter": 0.07, "middle": 0.15, "leave": 0.5}  # Currents too great for one spike a step differ in snntorch.

    def draw(path, leaf):
        kernel = rng.normal(0, scales[path[0].key], leaf.shape) * (rng.random(leaf.shape) < 0.7)
        return np.float32(kernel if path[-1].key == "kernel" else 0.25)  # Of biases, so that neurons fire.

    return x, jax.tree_util.tree_map_with_path(lambda path, leaf: np.broadcast_to(draw(path, leaf), leaf.shape), shapes)


@pytest.fixture(scope="module")
def found(example):
    """Our results, of the network on spikes and on counts."""
    x, params = example
    variables = {"params": params}
    return [neurobench(observe(model, variables, x, jnp.zeros(B), None), variables) for model in (Network(), OnCounts())]


def copied(params):
    """(the network in PyTorch with snntorch's neurons, the bytes of these neurons)."""
    import snntorch
    import torch

    def tensor(name, axes):
        layer = params[name]
        return torch.tensor(np.ascontiguousarray(layer["kernel"].transpose(axes))), torch.tensor(layer["bias"])

    class Copy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            neuron = {"beta": 1.0, "reset_mechanism": "subtract", "reset_delay": False, "init_hidden": True}
            self.enter, self.middle = torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.leave = torch.nn.Linear(4 * (SIDE // 2) ** 2, 3)
            self.first, self.second = snntorch.Leaky(**neuron), snntorch.Leaky(**neuron)
            for name, axes in (("enter", (3, 2, 0, 1)), ("middle", (3, 2, 0, 1)), ("leave", (1, 0))):
                weight, bias = tensor(name, axes)
                getattr(self, name).weight.data, getattr(self, name).bias.data = weight, bias

        def forward(self, x_BCHW):
            self.first.reset_mem()
            self.second.reset_mem()
            current, total = self.enter(x_BCHW), 0
            for _ in range(T):
                spikes = self.second(self.middle(self.first(current)))
                total = total + self.leave(spikes.permute(0, 2, 3, 1).flatten(1))
            return total / T

    network = Copy()
    neurons = [*network.first.parameters(), *network.first.buffers(), *network.second.parameters(), *network.second.buffers()]
    return network, sum(each.numel() * each.element_size() for each in neurons)


@pytest.mark.filterwarnings("ignore")
def test_the_metrics_are_neurobenchs_own(example, found):
    reason = "compares with NeuroBench itself: pip install --no-deps neurobench==2.3.0 snntorch==1.0.0, and torch"
    for package in ("torch", "snntorch", "neurobench"):
        pytest.importorskip(package, reason=reason)
    import snntorch
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
    from neurobench.models import TorchModel

    x, params = example
    network, bytes_of_neurons = copied(params)
    model = TorchModel(network)
    model.add_activation_module(snntorch.SpikingNeuron)
    images = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.zeros(B)), batch_size=B)
    metrics = [[Footprint, ConnectionSparsity], [ActivationSparsity, SynapticOperations, MembraneUpdates]]
    with torch.no_grad():
        theirs = Benchmark(model, data, [], [], metrics).run(quiet=True)
        output = network(images)
    np.testing.assert_allclose(Network().apply({"params": params}, x, jnp.zeros(B), None), output, atol=1e-5)

    ours = found[0]
    assert set(ours) == set(theirs)
    assert ours["Footprint"] == theirs["Footprint"] - bytes_of_neurons
    assert (
        ours["ConnectionSparsity"] == pytest.approx(theirs["ConnectionSparsity"], abs=5e-5) and ours["ConnectionSparsity"] > 0.2
    )
    assert ours["ActivationSparsity"] == pytest.approx(theirs["ActivationSparsity"], rel=1e-6)
    assert 0.1 < ours["ActivationSparsity"] < 0.9
    assert ours["SynapticOperations"] == pytest.approx(theirs["SynapticOperations"], rel=1e-6)
    assert min(ours["SynapticOperations"].values()) > 0
    assert ours["MembraneUpdates"] == theirs["MembraneUpdates"] == T * (SIDE**2 * 3 + (SIDE // 2) ** 2 * 4)


def test_a_product_on_counts_has_the_operations_of_its_spikes(example, found):
    """Behind a constant current the first spikes are the same; operations are summed by hand over pairs that are not 0."""
    on_spikes, on_counts = found
    for name in ("Footprint", "ConnectionSparsity", "MembraneUpdates"):
        assert on_counts[name] == on_spikes[name]
    ours, theirs = on_counts["SynapticOperations"], on_spikes["SynapticOperations"]
    assert ours["Dense"] == pytest.approx(theirs["Dense"]) and ours["Effective_MACs"] == pytest.approx(theirs["Effective_MACs"])
    x, params = example
    by_hand = 0.0
    rate = firing_rate(nn.Conv(3, (3, 3)).apply({"params": params["enter"]}, x), T, **IF)
    for image in np.pad(np.asarray(rate), ((0, 0), (1, 1), (1, 1), (0, 0))):
        for i in range(0, SIDE, 2):
            for j in range(0, SIDE, 2):
                by_hand += np.einsum("ijc,ijcn->", T * image[i : i + 3, j : j + 3], params["middle"]["kernel"] != 0)
    current = nn.Conv(4, (3, 3), strides=2, padding=1).apply({"params": params["middle"]}, rate)
    counts = T * np.asarray(firing_rate(current, T, **IF)).reshape(B, -1)
    by_hand += np.einsum("bi,in->", counts, params["leave"]["kernel"] != 0)
    assert ours["Effective_ACs"] == pytest.approx(by_hand / B, rel=1e-5)
