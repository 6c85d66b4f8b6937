"""The PyTorch reference that speed is compared with computes what the release does."""

from pathlib import Path

import numpy as np
import pytest

from sdit_jax.diffusion.schedule import linear
from sdit_jax.models import release

torch = pytest.importorskip("torch")
pytest.importorskip("spikingjelly")
NPZ = Path(__file__).parents[1] / "reference" / "sdit_release_tiny.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(NPZ) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def network(reference):
    from sdit_jax.benchmarks import pytorch

    state = {name.removeprefix("param/"): value for name, value in reference.items() if name.startswith("param/")}
    model = pytorch.build(release.sizes({name: value.numpy() for name, value in state.items()}))
    model.load_state_dict(state)
    return model


@pytest.mark.filterwarnings("ignore")
def test_output_loss_and_gradients_are_the_releases(network, reference):
    from sdit_jax.benchmarks.pytorch import diffusion_loss

    x_0, x_t, noise, t, y = (reference[name] for name in ("x0", "xt", "noise", "t", "y"))
    output = network(x_t, t.long(), y.long())
    torch.testing.assert_close(output, reference["out"], rtol=1e-4, atol=1e-5)
    loss = diffusion_loss(linear(1000), output, x_0, x_t, t.long(), noise)
    assert float(loss) == pytest.approx(float(reference["loss"].mean()), rel=1e-5)
    loss.backward()
    for name, parameter in network.named_parameters():
        expected = reference[f"grad/{name}"]
        assert (parameter.grad - expected).norm() <= 1e-4 * expected.norm() + 1e-12, name
