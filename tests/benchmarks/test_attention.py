"""Counts of RWKV and attention by the number of tokens."""

import numpy as np
import pytest

from sdit_jax.benchmarks.attention import counts, networks

TOKENS = (4, 16, 64)
FIELDS = {"width": 16, "depth": 4}


@pytest.mark.parametrize("name, square", [("sdit", 0), ("uvit", 2 * 16 * 5)])
def test_work_grows_with_the_tokens_and_that_of_attention_with_their_square(name, square):
    """Five blocks of width 16: a polynomial of L through three points has the coefficient 2 C a block, or none, of L^2."""
    rows = [counts(networks(tokens, **FIELDS)[name]) for tokens in TOKENS]
    L = [1 + tokens for tokens in TOKENS]
    np.testing.assert_allclose(np.polyfit(L, [row["macs"] for row in rows], 2)[0], square, atol=1e-6)
    coefficients = np.polyfit(L, [row["macs_between_tokens"] for row in rows], 2)
    np.testing.assert_allclose(coefficients[[0, 2]], [square, 0], atol=1e-3)
    assert (coefficients[1] > 1) == (not square)


def test_neurons_are_all_that_the_two_recurrent_networks_differ_in():
    configs = networks(TOKENS[0], **FIELDS)
    assert counts(configs["sdit"]) == counts(configs["rwkv"])


def test_tokens_make_a_square_image():
    with pytest.raises(ValueError, match="tokens: found 50, must be a square"):
        networks(50)
