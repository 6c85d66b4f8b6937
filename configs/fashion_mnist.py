"""Fashion-MNIST by the release's exact recipe, that of MNIST. Published: FID 5.49, protocol unknown. Never run to its end here.

sdit train --config=configs/fashion_mnist.py --workdir=runs/fashion --config.data.dir=DATA/fashion-mnist
sdit train --config=configs/fashion_mnist.py:tiny --workdir=runs/tiny --config.data.dir=DATA/fashion-mnist
"""

from sdit_jax.config import cut_to_a_minute, default_config, parse_arg
from sdit_jax.models import preset


def get_config(arg=None):
    arg = parse_arg(arg, tiny=False)
    config = default_config(preset("sdit_tiny" if arg.tiny else "sdit_mnist"))
    config.data.name = "fashion_mnist"
    if arg.tiny:
        cut_to_a_minute(config)
    return config
