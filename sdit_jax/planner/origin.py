"""What an instruction of a compiled step is for, by its opcode and the scopes that JAX wrote into it."""

import re

from sdit_jax.planner.hlo import Instruction

# By opcode: what moves arrays and computes nothing.
COPIES = {
    "copy": "copies in HBM", "transpose": "copies in HBM", "reshape": "copies in HBM",
    "copy-start": "copies between HBM and VMEM", "slice-start": "copies between HBM and VMEM", "gather": "gathers",
}  # fmt: skip
# By scope, in this order: the first pattern that is found.
SCOPES = (
    ("WKV", r"/wkv/|\(wkv\)"),
    ("norms", r"norm"),
    ("neurons", r"neurons"),
    ("casts to another dtype", r"convert_element_type$"),
    ("gathers", r"gather$"),
    ("products", r"dot_general$|conv_general_dilated$"),
    ("noise", r"threefry|random|_normal|_uniform|_randint"),
    ("between products", r"jvp\("),
    ("optimizer and average", r"jit\(train_step\)"),
)
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "send", "recv")
ORIGINS = tuple(dict.fromkeys([*COPIES.values(), *(name for name, _ in SCOPES), "collectives", "not named"]))


def origin(each: Instruction) -> str:
    """One of ORIGINS. A fusion, which may join many, is what its last instruction is."""
    if each.opcode in COPIES:
        return COPIES[each.opcode]
    if each.opcode.startswith(COLLECTIVES):
        return "collectives"
    return next((name for name, pattern in SCOPES if re.search(pattern, each.op_name, re.IGNORECASE)), "not named")
