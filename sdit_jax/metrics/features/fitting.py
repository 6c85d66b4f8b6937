"""Training of the classifiers that are feature extractors."""

import logging
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sdit_jax.data.in_memory import host_batch
from sdit_jax.data.order import Order
from sdit_jax.data.sources import Images
from sdit_jax.metrics.features.classifier import Classifier, Trained

BATCH_SIZE, LEARNING_RATE = 128, 4e-3
log = logging.getLogger(__name__)


def fit_classifier(
    train: Images, test: Images, *, widths: tuple[int, ...], epochs: int, flip: bool, shift: int, seed: int = 0
) -> Trained:
    """A classifier after `epochs` of cross-entropy with AdamW and a one-cycle learning rate, and its accuracy on both splits.

    Images are shifted by up to `shift` pixels, padded with black, and, with `flip`, mirrored at random.
    """
    _, size, _, channels = train.images.shape
    padded = Images(np.pad(train.images, ((0, 0), (shift, shift), (shift, shift), (0, 0))), train.labels, train.num_classes)
    order = Order(len(train), batch_size=BATCH_SIZE, seed=seed, flip=flip, margin=2 * shift)
    steps = epochs * len(train) // BATCH_SIZE
    model = Classifier(train.num_classes, widths)
    tx = optax.adamw(optax.cosine_onecycle_schedule(steps, LEARNING_RATE, pct_start=0.2), weight_decay=0.05)

    def loss(params, stats, batch):
        (_, logits), updated = model.apply(
            {"params": params, "batch_stats": stats}, batch["image"], train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), updated["batch_stats"]

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, stats, optimizer, batch):
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, batch)
        updates, optimizer = tx.update(grads, optimizer, params)
        return optax.apply_updates(params, updates), stats, optimizer, value

    variables = jax.jit(model.init)(jax.random.key(seed), train.images[:1])
    params, stats = variables["params"], variables["batch_stats"]
    optimizer = tx.init(params)
    for i in range(steps):
        params, stats, optimizer, value = step(params, stats, optimizer, host_batch(padded, order, i))
        if (i + 1) % 100 == 0 or i + 1 == steps:
            log.info("step %d of %d, epoch %.1f, loss %.4f", i + 1, steps, (i + 1) * BATCH_SIZE / len(train), value)
    variables = {"params": params, "batch_stats": stats}
    facts = {
        "epochs": epochs, "flip": flip, "shift": shift, "seed": seed, "train_images": len(train), "test_images": len(test),
        "train_accuracy": accuracy(model, variables, train), "test_accuracy": accuracy(model, variables, test),
    }  # fmt: skip
    return Trained(model, jax.device_get(variables), size, channels, facts, "")


def accuracy(model: Classifier, variables, data: Images) -> float:
    """The fraction of images whose largest logit is that of their label."""

    @jax.jit
    def read(images):
        found: Any = model.apply(variables, images)
        return jnp.argmax(found[1], -1)

    starts = range(0, len(data), 500)
    right = [np.asarray(read(data.images[i : i + 500])) == data.labels[i : i + 500] for i in starts]
    return float(np.concatenate(right).mean())
