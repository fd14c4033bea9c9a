"""What `sparsetune plan` shows of a plan's cost, as lines of text."""

from __future__ import annotations

from .analytic import analytic_memory
from .beside import cache_room
from .boardspec import BoardSpec
from .budget import (
    LayerTime,
    Partition,
    StepTime,
    all_weights,
    flash_use,
    kept_use,
    partition,
    state_use,
    step_time,
    trained_weights,
)
from .graph import Graph, Operator, input_channels, output_channels
from .image import Layout, parse_image
from .memory import RamUse
from .peak import Tenant, find_peak, short_name
from .plan import WHOLE, LayerPlan, UpdatePlan
from .room import files_room
from .share import convolution_weights, updated_share
from .tinyprop import parse_tinyprop

ROLE = 38  # characters of what an operator does


def describe_layers(
    graph: Graph, plan: UpdatePlan, layout: Layout, spec: BoardSpec
) -> list[str]:
    """A line for each operator of the model: frozen or trained, and the time it takes."""
    parts = partition(graph, plan, layout.program)
    time = step_time(layout.program, graph, spec.clock) if spec.clock else None
    place = "flash" if spec.romfs_bytes else "image"  # which lies in RAM without ROMFS
    roles = {op.index: _role(graph, plan, parts, op, place) for op in graph.operators}
    width = max(ROLE, *(len(role) for role in roles.values()))
    head = f"{'op':>3} {'kind':<18} {'output':<13} {'':<{width}}"
    lines = [f"{head} {'forward':>8} {'gradient':>8} {'update':>8}  ms" if time else head.rstrip()]
    for op in graph.operators:
        shape = _shape(graph.tensor(op.outputs[0]).shape[1:])
        text = f"{op.index:>3} {op.kind:<18} {shape:<13} {roles[op.index]:<{width}}"
        lines.append((text + (_times(time.layers[op.index]) if time else "")).rstrip())
    lines.append(_summary(graph, plan, parts))
    lines += _effort_lines(plan, layout)
    if time and spec.clock:
        lines.append(_time_summary(time, spec.clock.source))
    return lines


def _effort_lines(plan: UpdatePlan, layout: Layout) -> list[str]:
    """What TinyProp leaves of the errors, and what effort is counted against."""
    policy, macs = parse_tinyprop(plan.tinyprop), layout.program.macs
    if not policy or not macs:
        return []
    ends = f"{float(policy.least):.3g} to {float(policy.most):.3g} of a layer's error channels"
    return [
        f"tinyprop {plan.tinyprop}: {ends} stay, by sample, times {float(policy.damping):.3g} for "
        f"each layer from the output; a step forward has {macs.forward:,} multiply-accumulates, "
        f"full gradients {macs.backward:,}"
    ]


def _role(graph: Graph, plan: UpdatePlan, parts: Partition, op: Operator, place: str) -> str:
    """place: where weights that a step leaves alone lie."""
    if op.index in parts.frozen:
        return "frozen, row by row" if parts.is_in_strip(op.index) else "frozen"
    layer = plan.layer(op.index)
    patches = f", {name_patches(layer)}" if layer and layer.patch > 1 else ""
    patches += f", keeps {layer.kept_bits} bits" if layer and layer.kept_bits < WHOLE else ""
    if layer is None or not layer.trains:
        return "gradient passes" + patches
    bias = ["bias"] if layer.bias else []
    share = f"{layer.channels}/{input_channels(graph, op)} input channels"
    if layer.slots:  # in the image but for these
        turns = f", {layer.reach} in turn" if layer.reach else ""
        share = f"{layer.channels}/{input_channels(graph, op)}{turns}, {place}"
    if layer.outputs:
        share += f", {layer.outputs}/{output_channels(graph, op)} outputs by their errors"
    return "trains " + ", ".join([share, *bias] if layer.channels else bias) + patches


def name_patches(layer: LayerPlan) -> str:
    size = f"1x{layer.patch * layer.patch}" if layer.wide else f"{layer.patch}"
    return f"patches of {size}" + (", weights only" if layer.weights_only else "")


def _times(time: LayerTime) -> str:
    values = (time.forward, time.gradient, time.update)
    return "".join(f" {1000 * value:>8.2f}" if value else f" {'':>8}" for value in values)


def _summary(graph: Graph, plan: UpdatePlan, parts: Partition) -> str:
    frozen = f"operators {_ranges(graph, parts.frozen)}" if parts.frozen else "none"
    share = 100 * trained_weights(graph, plan) / all_weights(graph)
    of_convolutions = (
        f", {updated_share(graph, plan):.3g} % of the convolution weights"
        if convolution_weights(graph)
        else ""
    )
    return (
        f"frozen prefix: {frozen}; trainable tail: operators {_ranges(graph, parts.tail)}; "
        f"a step trains {share:.3g} % of the weights and biases{of_convolutions}"
    )


def _time_summary(time: StepTime, source: str) -> str:
    each, both = time.kernels, time.on_both_cores
    on_both = f"; on both cores about {1000 * both:.0f} ms, projected" if both else ""
    return (
        f"time: about {1000 * time.total:.0f} ms a step (forward {1000 * each.forward:.0f}, "
        f"gradients {1000 * each.gradient:.0f}, updates {1000 * each.update:.0f}, Python "
        f"{1000 * time.python:.0f}); estimated from cycles of the {source}{on_both}"
    )


def _ranges(graph: Graph, numbers: tuple[int, ...]) -> str:
    """1-4, 6, 8-9; numbers that no operator has are no gaps."""
    runs: list[list[int]] = [[]]
    for op in graph.operators:
        if op.index in numbers:
            runs[-1].append(op.index)
        elif runs[-1]:
            runs.append([])
    texts = (f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if run)
    return ", ".join(texts)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape) or "1"


def describe_memory(
    graph: Graph, layout: Layout, use: RamUse, limit: int, spec: BoardSpec, samples: int
) -> list[str]:
    """What lies in flash, what in RAM, and what makes the arena's peak."""
    program, image = layout.program, parse_image(layout.image)
    flash, state = flash_use(program, image), state_use(program, image)
    velocities = f"their velocities {state.velocities:,}, " if state.velocities else ""
    where = f"of {spec.romfs_bytes:,} bytes" if spec.romfs_bytes else "bytes of RAM, without ROMFS"
    in_ram = f"image {use.image:,}, " if use.image else ""
    there = limit + spec.slow_ram_bytes
    lines = [
        f"{'image' if use.image else 'flash'} {len(image.data):>9,} {where}: weights that stay "
        f"{flash.frozen:,}, first values of those that train {flash.initial:,}, program and "
        f"tables {flash.tables:,}",
        f"RAM   {use.used:>9,} of {there:,} bytes: arena {use.arena:,}, trained weights "
        f"{state.weights:,} and biases {state.biases:,}, {velocities}other state {state.rest:,}, "
        f"samples {use.data:,}, {in_ram}device package {use.package:,}; beside it MicroPython's "
        f"own {spec.own_bytes:,}",
    ]
    if spec.estimated:
        no_time = "" if spec.clock else "; nobody has measured times"
        lines.append(f"{spec.title}, estimated: {spec.estimated}{no_time}")
    if spec.slow_ram_bytes:
        moved = f"the arena's other {use.cold:,}, touched least, and " if use.cold else ""
        lines.append(
            f"fast  {use.fast:>9,} of {limit:,} bytes of it: arena and device package; {moved}"
            f"the rest lie{'' if use.cold else 's'} in slower RAM where the fast one is full"
        )
    kept, exact = kept_use(program)
    if kept < exact:
        lines.append(
            f"kept  {kept:>9,} bytes for the weights' gradients, {exact:,} without codes and "
            f"patches ({100 * kept / exact:.0f} %)"
        )
    room = files_room(spec, image.state_bytes)
    each = graph.tensor(graph.input).size + image.task.target_bytes
    lines.append(f"files {room:>9,} bytes for samples: {max(0, room // each):,} of {each:,} bytes")
    if image.cut_at:
        lines.append(str(cache_room(spec, image, samples)))
    return lines + _describe_peak(graph, layout)


def describe_analytic(graph: Graph, plan: UpdatePlan) -> str:
    """For comparison with what others publish."""
    found = analytic_memory(graph, plan)
    return (
        f"analytic memory, as MCUNetV3 counts it: {found.total / 1024:.1f} KB (weights that train "
        f"{found.weights:,} bytes, biases {found.biases:,}, kept inputs {found.inputs:,}, masks "
        f"{found.masks:,}, head's input {found.head:,})"
    )


def _describe_peak(graph: Graph, layout: Layout) -> list[str]:
    peak = find_peak(layout.program, graph)
    above = layout.arena_bytes - peak.bytes
    gap = f" ({above:,} bytes of the arena are gaps)" if above else ""
    head = f"peak of the arena: {peak.bytes:,} bytes alive at {peak.where}{gap}"
    return [head, *(_tenant_line(tenant) for tenant in peak.tenants)]


def _tenant_line(tenant: Tenant) -> str:
    name = short_name(tenant.tensor) if tenant.tensor else ""
    shape = f"{_shape(tenant.shape)} {tenant.kind.dtype}"
    return (
        f"  {tenant.bytes:>9,}  {tenant.buffer.name:<9} {shape:<17} {tenant.kind.what}, "
        f"{tenant.why}  {name}"
    ).rstrip()
