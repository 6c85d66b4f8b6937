"""Random overrides of any field of any network: set up, or refused in a line that names a field."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sdit_jax
from sdit_jax import config, models
from sdit_jax.errors import InputError
from sdit_jax.training.setup import make_setup

NETWORKS = [name for name in models.families() if models.find(name).module.__module__.startswith("sdit_jax")]
TEXTS = (
    "",
    "never",
    "1e3 images",
    "5%",
    "x",
    "0",
    "digits",
    "folder:",
    "npz:a",
    "uniform",
    "cosine",
    "linear",
    "muon",
    "noise",
    "ema",
)
VALUES = st.one_of(
    st.integers(-(10**6), 10**6), st.sampled_from((0, 1, 2, 3, 4, 8, 16, 64)), st.floats(), st.floats(0, 4), st.booleans(),
    st.sampled_from(TEXTS), st.text(max_size=8), st.none(), st.lists(st.integers(), max_size=2),
)  # fmt: skip
# What a run on paper would compute, or too large a data set for a test: not what is tested here.
SIZES = ("model.width", "model.depth", "model.image_size", "model.spiking_steps", "batch_size", "diffusion.timesteps")


def fields(network):
    made = config.flattened(sdit_jax.configure("digits:tiny", {"evaluation.every": "1 steps"}))
    others = {name: value for name, value in made.items() if not name.startswith("model.")}
    sizes = {"image_size": 8, "patch_size": 4, "channels": 1, "width": 16, "depth": 2, "heads": 4}
    own = models.defaults(network) | {name: size for name, size in sizes.items() if name in models.defaults(network)}
    return others | {f"model.{name}": value for name, value in own.items()}


FIELDS = {network: fields(network) for network in NETWORKS}


@st.composite
def overrides(draw):
    network = draw(st.sampled_from(NETWORKS))
    names = draw(st.lists(st.sampled_from(sorted(FIELDS[network])), min_size=1, max_size=3, unique=True))
    changes = {name: draw(VALUES) for name in names}
    large = [name for name in SIZES if isinstance(changes.get(name), int) and changes[name] > 64]
    return FIELDS[network] | changes | dict.fromkeys(large, 64), names


@pytest.mark.filterwarnings("ignore")
@given(overrides())
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_override_is_set_up_or_refused_with_its_field(changed):
    flat, names = changed
    try:
        made = config.nested(flat)
        config.validate(made)
        make_setup(made)
        message = ""
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    named = any(name.rsplit(".", 1)[-1] in message for name in names)
    assert not message or named or "config." in message, message  # A field that contradicts the changed one may be named.
