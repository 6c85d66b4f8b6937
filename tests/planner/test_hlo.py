"""The reading of compiled text: arrays in tiles, loops, products of dilated convolutions, traffic, and groups of collectives.

The text is written by hand in the forms that the TPU compiler of libtpu 0.0.42.1 writes.
"""

import numpy as np
import pytest

from sdit_jax.planner import hlo, traffic
from sdit_jax.planner.communication import communications, replica_groups

TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%condition (carry: (s32[], f32[8,100])) -> pred[] {
  %carry = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %five = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%i, %five), direction=LT
}

%product (x: bf16[8,100], w: bf16[100,100]) -> f32[8,100] {
  %x = bf16[8,100]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[100,100]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %dot = f32[8,100]{1,0:T(8,128)} convolution(%x, %w), dim_labels=bf_io->bf
}

%all-reduce-scatter.1 (y: f32[8,100]) -> f32[4,100] {
  %y = f32[8,100]{1,0:T(8,128)} parameter(0)
  %whole = f32[8,100]{1,0:T(8,128)} all-reduce(%y), channel_id=2, replica_groups=[4,2]<=[4,2], to_apply=%add
  %at = s32[] constant(0)
  ROOT %part = f32[4,100]{1,0:T(4,128)} dynamic-slice(%whole, %at, %at), dynamic_slice_sizes={4,100}
}

%started (p: bf16[25,100]) -> (bf16[25,100], bf16[100,100]) {
  %p = bf16[25,100]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[100,100]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, replica_groups=mesh['axis_0'=4,'axis_1'=2] \
{'axis_0'}, dimensions={0}
  ROOT %start = (bf16[25,100]{1,0}, bf16[100,100]{1,0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%done (p: bf16[25,100]) -> bf16[100,100] {
  %p = bf16[25,100]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.2 = bf16[100,100]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, replica_groups=mesh['axis_0'=4,'axis_1'=2] \
{'axis_0'}, dimensions={0}
  ROOT %finish = bf16[100,100]{1,0} custom-call(%all-gather.2), custom_call_target="AsyncCollectiveDone"
}

%body (carry: (s32[], f32[8,100])) -> (s32[], f32[8,100]) {
  %carry = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %x = f32[8,100]{1,0:T(8,128)} get-tuple-element(%carry), index=1
  %scalar = f32[8,100]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  ROOT %next = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) tuple(%i, %scalar)
}

ENTRY %main (p0: bf16[8,100], p1: bf16[100,100], p2: bf16[25,100]) -> f32[8,100] {
  %p0 = bf16[8,100]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[100,100]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %p2 = bf16[25,100]{1,0:T(8,128)(2,1)} parameter(2)
  %zero = s32[]{:T(128)} constant(0)
  %fusion.1 = f32[8,100]{1,0:T(8,128)} fusion(%p0, %p1), kind=kOutput, calls=%product
  %fusion.2 = f32[4,100]{1,0:T(4,128)} fusion(%fusion.1), kind=kCustom, calls=%all-reduce-scatter.1
  %fusion.3 = (bf16[25,100]{1,0}, bf16[100,100]{1,0}) fusion(%p2), kind=kCustom, calls=%started
  %fusion.4 = bf16[100,100]{1,0} fusion(%p2), kind=kCustom, calls=%done
  %start = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) tuple(%zero, %fusion.1)
  %loop = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %sent = (f32[1,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%fusion.1, %zero), channel_id=9, is_host_transfer=true
  ROOT %out = f32[8,100]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo.parse(TEXT)


@pytest.mark.parametrize(
    ("text", "size", "padded", "space"),
    [
        ("f32[5,100]{1,0:T(8,128)}", 2000, 4 * 8 * 128, 0),
        ("f32[5,100]{0,1:T(8,128)}", 2000, 4 * 104 * 128, 0),  # Its minor axis has 5.
        ("bf16[3,5,100]{2,1,0:T(8,128)(2,1)S(1)}", 3000, 2 * 3 * 8 * 128, 1),
        ("f32[100]{0:T(128)S(1)}", 400, 512, 1),
        ("f32[]{:T(128)}", 4, 512, 0),
        ("pred[7]", 7, 7, 0),
    ],
)
def test_an_array_takes_whole_tiles(text, size, padded, space):
    (array,) = hlo.Array.all_in(text)
    assert (array.size, array.padded, array.space) == (size, padded, space)


def test_the_body_of_a_loop_runs_as_often_as_its_condition_says(program):
    runs = {each.name: times for each, _, times in program.runs}
    assert runs["scalar"] == 5 and runs["fusion.1"] == 1 and not program.unknown_loops


def test_a_loop_of_unknown_length_is_named():
    assert hlo.parse(TEXT.replace("direction=LT", "direction=NE")).unknown_loops == ["loop"]


def test_products_and_the_traffic_of_a_fusion(program):
    """What lies in VMEM moves nothing; tiles are whole."""
    each, here, _ = next(run for run in program.runs if run[0].name == "fusion.1")
    assert traffic.flops(program, each, here) == 2 * 8 * 100 * 100
    assert sum(share * array.padded for array, share in traffic.moved(program, each, here)) == 8 * 128 * (2 + 4)


@pytest.mark.parametrize(
    ("line", "macs"),
    [
        # A batch of 4 products (3, 5) x (5, 7) as a convolution: dilation lets each meet its own kernel only.
        ("window={size=4 pad=3_3 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf", 4 * 3 * 5 * 7),
        ("window={size=4}, dim_labels=0bf_0io->0bf", 4 * 3 * 5 * 7),  # A sum over the window.
    ],
)
def test_products_that_meet_padding_or_dilation_are_not_counted(line, macs):
    size = 4 if "stride" in line else 1
    text = f"""ENTRY %main (a: f32[4,3,5], b: f32[4,5,7]) -> f32[{size},3,7] {{
  %a = f32[4,3,5] parameter(0)
  %b = f32[4,5,7] parameter(1)
  ROOT %c = f32[{size},3,7] convolution(%a, %b), {line}
}}
"""
    program = hlo.parse(text)
    each, here, _ = program.runs[-1]
    assert traffic.flops(program, each, here) == 2 * macs


def test_collectives_are_counted_once_in_each_of_their_forms(program):
    found = {
        (each.kind, each.axes, each.overlaps, each.calls, each.bytes)
        for each in communications(program, {"data": 4, "fsdp": 2, "tensor": 1})
    }
    assert found == {
        ("all-reduce", "data", False, 5, 5 * 3200.0),
        ("reduce-scatter", "fsdp", False, 1, 3200.0),
        ("all-gather", "data", True, 1, 20000.0),
        ("send", "slices", True, 1, 4096.0),
    }


def test_flags_of_an_asynchronous_permutation_are_no_data():
    text = """ENTRY %main (p: f32[128,64]) -> f32[128,64] {
  %p = f32[128,64]{1,0} parameter(0)
  %go = (f32[128,64]{1,0}, f32[128,64]{1,0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
  ROOT %come = f32[128,64]{1,0} collective-permute-done(%go)
}
"""
    (found,) = communications(hlo.parse(text), {"data": 1, "fsdp": 2, "tensor": 1})
    assert (found.kind, found.axes, found.overlaps, found.sent) == ("collective-permute", "fsdp", True, 4 * 128 * 64)


def test_what_a_device_sends(program):
    sent = {each.kind: each.sent for each in communications(program, {"data": 4, "fsdp": 2, "tensor": 1})}
    assert sent == {"all-reduce": 16000 * 2 * 3 / 4, "reduce-scatter": 3200 / 2, "all-gather": 20000 * 3 / 4, "send": 4096}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}, dim", [[0, 1], [2, 3]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_in_every_form(text, groups):
    np.testing.assert_array_equal(replica_groups(text, 4), groups)


def test_a_kernel_moves_what_lies_in_hbm():
    text = """ENTRY %main (a: f32[8,128], b: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)S(1)} parameter(1)
  %k.1 = (f32[8,128]{1,0:T(8,128)}, f32[4,128]{1,0:T(8,128)S(1)}) custom-call(%a, %b), custom_call_target="tpu_custom_call"
  ROOT %c = f32[8,128]{1,0:T(8,128)} get-tuple-element(%k.1), index=0
}
"""
    program = hlo.parse(text)
    kernels = [run for run in program.runs if traffic.is_kernel(run[0])]
    assert [each.name for each, _, _ in kernels] == ["k.1"]
    assert sum(share * array.padded for array, share in traffic.moved(program, *kernels[0][:2])) == 2 * 4 * 8 * 128
