"""ImageNet at 64x64 on a TPU pod: the spike-driven network and recipe of configs/spike_driven.py:cifar10 at scale.

Patches of 4 (256 tokens), width 768, 13 blocks, T = 4, a thousand classes, products in bfloat16; 1,024 images a step, decoded
while training. Never trained: size, batch and learning rate are guesses. docs/plan.md has what the planner says of a day of it.
tensorflow-datasets prepares the data, once, in the file format array_record, which is read without TensorFlow:

    tfds build imagenet_resized/64x64 --file_format=array_record
    sdit train --config=imagenet64 --workdir=gs://BUCKET/runs/imagenet64 --config.mesh.fsdp=4
    sdit train --config=imagenet64:tiny --workdir=runs/tiny
"""

import runpy

from sdit_jax.config import cut_to_a_minute, parse_arg, shipped
from sdit_jax.models import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = runpy.run_path(str(shipped()["spike_driven"]))["get_config"]("cifar10")
    config.model = preset(
        "spike_cifar10", image_size=64, num_classes=1000, patch_size=4, width=768, depth=12, spiking_steps=4, dtype="bfloat16"
    )
    config.data.name = "tfds:imagenet_resized/64x64"
    config.data.memory_GiB = 0.0
    config.batch_size = 1024
    config.duration = "100 epochs"
    config.ema.half_life = 2_000_000.0
    config.checkpoint.every = "1 epochs"
    config.log.every = "100 steps"
    config.samples.every = "1 epochs"
    config.evaluation.every = "never"  # The package has no classifier of it; `sdit evaluate --distance=fid` has.
    if arg.tiny:
        config.model.width, config.model.depth, config.model.patch_size = 32, 2, 16
        cut_to_a_minute(config)
    return config
