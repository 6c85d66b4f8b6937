"""A prediction in a few lines for a person, and a weak-scaling table in Markdown."""

from collections.abc import Sequence

from sdit_jax.costs.prediction import ACHIEVED, Prediction


def describe(prediction: Prediction) -> str:
    """What is planned, what it costs, and how long a step takes."""
    it, chip, memory = prediction, prediction.chip, prediction.memory
    mesh = " x ".join(f"{axis} {size:,}" for axis, size in it.sizes.items())
    held = {
        "parameters": memory.parameters, "average": memory.ema, "optimizer": memory.optimizer,
        "gradients": memory.gradients, "kept for the backward pass": memory.kept, "transient": memory.transient,
    }  # fmt: skip
    lines = [
        f"{it.parameters:,} parameters, products in {it.dtype}; {it.devices:,} {chip.name} as {mesh}, {it.slices:,} slices",
        f"batch {it.batch_size:,}: {it.images:,} images a device, in {it.microbatches} parts",
        "",
        f"FLOPs    {si(it.flops)} in a step; a device computes {si(it.device.flops)}, and moves {si(it.device.bytes)}B",
        f"memory   {', '.join(f'{name} {size / 1e9:.3g}' for name, size in held.items() if size)}",
        f"         together {memory.total / 1e9:.3g} of {chip.memory / 1e9:.3g} GB: " + ("fits" if it.fits else "does not fit"),
        f"compute  {milliseconds(it.compute_s)} at {ACHIEVED['compute']:.0%} of {si(chip.flops_per_s(it.dtype))}FLOP/s",
        f"         {milliseconds(it.memory_s)} at {ACHIEVED['memory']:.0%} of {chip.bandwidth / 1e9:,.0f} GB/s",
    ]
    for each in (each for each in it.collectives if it.sizes[each.axis] > 1):
        lines.append(
            f"{each.axis:8} {milliseconds(it.collective_s(each))} {each.kind} of {each.what}, "
            f"{si(each.sent(it.sizes[each.axis]))}B sent"
        )
    (least, most), (low, high) = it.bounds_s, it.efficiency
    start = it.sizes["fsdp"] * it.sizes["tensor"]
    return "\n".join(
        [
            *lines,
            "",
            f"step     {milliseconds(least)} if all of that overlaps, {milliseconds(most)} if nothing does: "
            f"{it.batch_size / most:,.0f} to {it.batch_size / least:,.0f} images/s",
            f"         {low:.1%} to {high:.1%} of the images/s that as many chips had, if each did what one of {start} does",
        ]
    )


def table(rows: Sequence[Prediction]) -> str:
    """Weak scaling: one row for each number of devices."""
    head = (
        "devices | mesh | slices | batch | FLOPs | compute | memory traffic | collectives | sent by a device | step | images/s"
    )
    lines = [f"| {head} | efficiency |", "|---" * (head.count("|") + 2) + "|"]
    for it in rows:
        (least, most), (low, high) = it.bounds_s, it.efficiency
        sent = sum(each.sent(it.sizes[each.axis]) for each in it.collectives)
        cells = [
            f"{it.devices:,}", " x ".join(map(str, it.sizes.values())), f"{it.slices:,}", f"{it.batch_size:,}", si(it.flops),
            milliseconds(it.compute_s), milliseconds(it.memory_s), milliseconds(it.collectives_s), f"{si(sent)}B",
            f"{milliseconds(least)} - {milliseconds(most)}", f"{it.batch_size / most:,.0f} - {it.batch_size / least:,.0f}",
            f"{low:.1%} - {high:.1%}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def si(number: float) -> str:
    """Three digits and a prefix: 1.23 T."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "


def milliseconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"
