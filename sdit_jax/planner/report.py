"""A prediction or a compiled step in a few lines for a person, and a weak-scaling table in Markdown."""

from collections.abc import Sequence

from sdit_jax.planner.compiled import CompiledStep
from sdit_jax.planner.prediction import ACHIEVED, Prediction
from sdit_jax.report.numbers import si


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
        f"batch {it.batch_size:,}: {it.images:,} images per device, in {it.microbatches} parts",
        "",
        f"FLOPs    {si(it.flops)} per step; {si(it.device.flops)} per device, which moves {si(it.device.bytes, 'B')}",
        f"memory   {', '.join(f'{name} {size / 1e9:.3g}' for name, size in held.items() if size)}",
        f"         together {memory.total / 1e9:.3g} of {chip.memory / 1e9:.3g} GB: " + ("fits" if it.fits else "does not fit"),
        f"compute  {si(it.compute_s, 's')} at {ACHIEVED['compute']:.0%} of {si(chip.flops_per_s(it.dtype), 'FLOP/s')}",
        f"         {si(it.memory_s, 's')} at {ACHIEVED['memory']:.0%} of {chip.bandwidth / 1e9:,.0f} GB/s",
    ]
    for each in (each for each in it.collectives if it.sizes[each.axis] > 1):
        sent = si(each.sent(it.sizes[each.axis]), "B")
        lines.append(f"{each.axis:8} {si(it.collective_s(each), 's')} {each.kind} of {each.what}, {sent} sent")
    (least, most), (low, high) = it.bounds_s, it.efficiency
    speed = f"{it.batch_size / most:,.0f} to {it.batch_size / least:,.0f} images/s"
    lines += ["", f"step     {si(least, 's')} if all of that overlaps, {si(most, 's')} if nothing does: {speed}"]
    return "\n".join([*lines, f"         weak-scaling efficiency {low:.1%} to {high:.1%}"])


def describe_compiled(it: CompiledStep, topology: str) -> str:
    """Memory, work, padding and communication of a compiled step, and the bound of its time."""
    mesh = " x ".join(f"{axis} {size:,}" for axis, size in it.sizes.items())
    held = {"arguments": it.arguments, "results": it.results, "temporaries": it.temporaries, "code": it.code}
    moved = ", ".join(f"{name} {si(size, 'B')}" for name, size in list(it.origins.items())[:4])
    lines = [
        f"{topology}, {it.slices} slices, as {mesh}; batch {it.batch_size:,}; libtpu {it.libtpu}",
        "",
        f"memory   {', '.join(f'{name} {size / 1e9:.3g}' for name, size in held.items() if size)}",
        f"         together {it.memory / 1e9:.3g} of {it.chip.memory / 1e9:.3g} GB: fits",
        f"padding  {it.state.share:.0%} of the arguments' bytes, {it.traffic.share:.0%} of the traffic's",
        f"compute  {si(it.compute_s, 's')}: products of {si(it.flops)} FLOP at {si(it.chip.bfloat16, 'FLOP/s')}",
        f"traffic  {si(it.memory_s, 's')}: {si(it.traffic.padded, 'B')} at {it.chip.bandwidth / 1e9:,.0f} GB/s; {moved}",
    ]
    for each in it.communications:
        how = "overlaps" if each.overlaps else "synchronous"
        lines.append(f"{each.axes:8} {si(it.seconds(each), 's')}: {each.calls} {each.kind}, {si(each.sent, 'B')} sent, {how}")
    lines += ["", f"step     at least {si(it.bound_s, 's')} at the chip's stated rates"]
    lines.append(f"         {si(it.estimated_s, 's')} without communication and copies, as the compiler estimates")
    if it.kernels:
        lines.append(f"         not in the estimate: {it.kernels} runs of kernels")
    if it.loops:
        lines.append(f"         counted once, as their length is not known: {', '.join(it.loops)}")
    return "\n".join(lines)


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
            si(it.compute_s, "s"), si(it.memory_s, "s"), si(it.collectives_s, "s"), si(sent, "B"),
            f"{si(least, 's')} - {si(most, 's')}", f"{it.batch_size / most:,.0f} - {it.batch_size / least:,.0f}",
            f"{low:.1%} - {high:.1%}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
