"""The metrics of NeuroBench 2.3, under its names, for a network in JAX (Yik et al. 2025, arXiv 2304.04640).

    Footprint             bytes of the parameters and of running statistics
    ConnectionSparsity    zeros among the weights of layers with weights, without biases
    ActivationSparsity    neurons that do not spike, over layers, spiking steps and images; 0 without neurons
    SynapticOperations    per image, in layers with weights, without biases: Effective_ACs are products of a spike and a weight
                          that is not 0, Effective_MACs those of other numbers and weights that are not 0, Dense all of both;
                          products with the padding of a convolution are excluded
    MembraneUpdates       per image: neurons times spiking steps

A layer counts as spiking if its whole input is -1, 0 and 1 at each step. Here that is what `analysis.observe` calls spikes: a
product on counts of T steps counts as the T products of spikes that it stands for. Products of two activations and WKV are
excluded, as NeuroBench excludes what is not a Linear, convolutional or recurrent layer. NeuroBench leaves out a membrane update
that ends at the value before; it is counted here.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sdit_jax.analysis.observe import Observation, neurons, spiking_operand


def neurobench(observation: Observation, variables: Mapping[str, Any]) -> dict[str, Any]:
    """NeuroBench's results for one forward pass of the network that was observed with these variables."""
    fired = list(neurons(observation))
    updates = sum(layer.updates for layer in fired)
    silent = sum(layer.updates * (1 - layer.rate) for layer in fired)
    return {
        "Footprint": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables)),
        "ConnectionSparsity": _connection_sparsity(observation),
        "ActivationSparsity": silent / updates if updates else 0.0,
        "SynapticOperations": _synaptic_operations(observation),
        "MembraneUpdates": updates,
    }


def _connection_sparsity(observation):
    found = [each.operands[each.weights].view for each in observation.one.equations if each.is_product and _has_weights(each)]
    weights = [np.asarray(observation.parameters[path]) for path in dict.fromkeys(found) if path in observation.parameters]
    return float(sum((each == 0).sum() for each in weights) / max(1, sum(each.size for each in weights)))


def _synaptic_operations(observation):
    macs = acs = dense = 0.0
    for operation, equation, index in observation.one.by_layer:
        if not (operation.is_product and _has_weights(operation)):
            continue
        seen: Any = observation.seen[equation]
        firing = spiking_operand(operation, seen, index)
        steps = operation.operands[firing[0]].steps or 1 if firing else 1
        share = lambda values, index=index: float(values[index].mean())
        dense += operation.macs * steps * share(seen.inside)
        acs += operation.macs * steps * share(seen.together) if firing else 0
        macs += 0 if firing else operation.macs * share(seen.effective)
    return {"Effective_MACs": macs, "Effective_ACs": acs, "Dense": dense}


def _has_weights(operation):
    return operation.weights is not None
