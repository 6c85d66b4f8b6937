"""What a network is to the rest of the package, and what a file of `models/` exports for `config.model.name` to find it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from sdit_jax.errors import unknown_field
from sdit_jax.layers.fields import check
from sdit_jax.sharding import Layout

# The collections that layers of neurons sow: their firing rates and, where these are collected, their spikes; no others are.
SOWN = ("spikes", "raster")


class Network(Protocol):
    """A flax module that denoises: `apply(variables, x_BHWC, t_B, y_B, train=False)` gives BHWC, or BHW(2C) with a variance.

    `variables` holds "params" and, where the network has them, running statistics ("batch_stats"). With train=True it may use
    the random streams "label_dropout" and "dropout". Its neurons are `layers.spiking.Spiking`, which sow their firing rates.
    """

    image_size: int
    channels: int
    num_classes: int  # 0: unconditional. The label num_classes is "no label".
    label_dropout: float  # 0: never trained without labels, so that it cannot be guided.
    width: int  # Channels inside; hidden matrices are those whose fan-in grows with it.
    spiking_steps: int  # 1 where nothing spikes.
    dtype: str  # Of the operands of matrix products: "float32" or "bfloat16".
    remat: str  # What the backward pass recomputes; "none" keeps everything.

    @property
    def blocks(self) -> int:
        """Residual blocks, which run one after the other."""
        ...

    @property
    def summary(self) -> str:
        """The network in a few words for a log."""
        ...

    @property
    def layout(self) -> Layout:
        """How its parameters lie on a mesh."""
        ...

    def is_rounded(self, path: str) -> bool:
        """Whether products round this parameter ("in_blocks/time_mix/key/kernel") to `dtype`."""
        ...

    def baseline(self) -> "Network":
        """The non-spiking baseline: the same matrices, without neurons."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any: ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def clone(self, **changes: Any) -> Self: ...


@dataclasses.dataclass(frozen=True)
class Family:
    """What a file of `models/` exports as FAMILY.

    The fields of `module`, a flax module that is a Network, are the fields of `config.model`, with their defaults and with the
    checks of `layers.fields`. `check(fields)` raises InputError for values that contradict each other.
    `presets` are named configurations: changes of the defaults.
    """

    module: Callable[..., Any]
    check: Callable[[Mapping[str, Any]], None] = lambda fields: None
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def fields(self) -> dict[str, dataclasses.Field]:
        """The fields of the configuration by name; flax's own are left out."""
        every = dataclasses.fields(self.module)  # pyright: ignore[reportArgumentType]
        return {field.name: field for field in every if field.name not in ("parent", "name")}

    def build(self, values: Mapping[str, Any]) -> Network:
        """The network of a configuration; missing fields take their defaults.

        Raises InputError that names the field for an unknown field, a wrong type, or a value out of range.
        """
        fields = self.fields
        for name, value in values.items():
            if name not in fields:
                raise unknown_field(f"config.model.{name}", fields)
            check(f"config.model.{name}", value, fields[name])
        complete = {name: field.default for name, field in fields.items()} | dict(values)
        self.check(complete)
        return self.module(**complete)
