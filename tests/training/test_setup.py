"""Set-up: mistakes are found before anything is written, and every loader trains the same network."""

import jax
import numpy as np
import pytest

from sdit_jax.config import MAX_SEED
from sdit_jax.errors import InputError
from sdit_jax.training.loop import train_and_evaluate
from sdit_jax.training.setup import make_setup

pytestmark = pytest.mark.filterwarnings("ignore")  # Orbax and TensorBoard warn about their own affairs.


def test_the_description_names_the_data(small, pictures):
    config = small.config(data__name=f"folder:{pictures}", data__margin=2, data__flip=True)
    setup = make_setup(config)
    assert f"folder:{pictures} train: 30 images of (10, 10, 1), in memory\n" in setup.describe()
    assert setup.loader(0)["image"].shape == (16, 8, 8, 1)
    config.data.memory_GiB = 0.0
    assert "30 images of (10, 10, 1), decoded while training\n" in make_setup(config).describe()


def test_the_abstract_state_is_that_of_the_first_step(small):
    setup = make_setup(small.config())
    state, abstract = setup.new_state(), setup.abstract_state()
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
        assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)


def test_the_largest_seed_is_a_seed(small):
    make_setup(small.config(seed=MAX_SEED)).abstract_state()


def test_a_run_may_change_its_loader_and_trains_the_same_network(small, pictures, tmp_path):
    changes = {"data__name": f"folder:{pictures}", "data__margin": 2, "data__flip": True}
    straight = train_and_evaluate(small.config(**changes), tmp_path / "straight")
    train_and_evaluate(small.config(**changes, data__memory_GiB=0.0, duration="2 steps"), tmp_path / "changed")
    changed = train_and_evaluate(small.config(**changes, data__resident="always"), tmp_path / "changed")
    for ours, theirs in zip(jax.tree.leaves(straight), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_images_in_place_of_a_file_are_refused(small, tmp_path):
    def contents(value):
        np.savez(tmp_path / "a.npz", np.full((20, 8, 8, 1), value, np.uint8), labels=np.arange(20) % 10)
        return make_setup(small.config(data__name=f"npz:{tmp_path / 'a.npz'}")).contents

    assert contents(3) == contents(3) != contents(4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data__name": "folder:{pictures}/1"}, "config.model.num_classes: found 10, folder:.* has 1"),
        ({"data__name": "folder:{pictures}", "data__split": "test"}, "config.data.split: found 'test', .* has train"),
        ({"data__name": "tfds:mnist", "data__dir": "{pictures}"}, "tfds:mnist is not prepared in .*sdit prepare mnist"),
        ({"data__name": "npz:{pictures}/0/0.png"}, ".*0.png: not a .npz file"),
        ({"data__name": "folder:{pictures}", "data__resize": "sinc"}, "config.data.resize: found 'sinc', allowed are bilinear"),
        ({"data__resident": "sometimes"}, "config.data.resident: found 'sometimes', allowed are auto"),
        (
            {"checkpoint__keep_every": "3 steps"},
            "config.checkpoint.keep_every: found '3 steps', 3 steps, must be a multiple of",
        ),
        ({"data__margin": -1}, "config.data.margin: found -1"),
        ({"data__name": "cifar10"}, "config.data.dir: empty"),
    ],
)
def test_a_mistake_in_the_data_is_one_line_and_writes_nothing(small, pictures, tmp_path, changes, message):
    changes = {name: value.format(pictures=pictures) if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(InputError, match=f"^(config.data.name: )?{message}") as error:
        train_and_evaluate(small.config(**changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
