"""The Triton kernels compile for GPUs that are not here: the interpreter checks values, the compiler types and shapes.

In a process of its own, since triton reads once whether it is to interpret.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from openus_model.scan import triton_kernel as module

capability, element, channels, length = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
wide = "fp64" if element == "fp64" else "fp32"
chunk, tile = module._tile(channels, length)
constants = dict(
    HAS_SKIP=True, HAS_BIAS=True, SOFTPLUS=True, DOUBLE=wide == "fp64", CHANNELS=tile, CHUNK=chunk
)
sequences = {"u_ptr", "delta_ptr", "B_ptr", "C_ptr", "y_ptr", "dy_ptr", "du_ptr", "ddelta_ptr"}
for kernel in (module._forward_kernel, module._backward_kernel):
    signature = {}
    for name in kernel.arg_names:
        pointer = "*" + (element if name in sequences else wide)
        signature[name] = "constexpr" if name in constants else pointer if name.endswith("_ptr") else "i32"
    source = ASTSource(
        fn=kernel, signature=signature,
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
    )
    target = GPUTarget("cuda", capability, 32)
    print(len(compile(source, target=target, options={"num_warps": module._warps(tile, chunk)}).asm["cubin"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch's CUDA wheels")
@pytest.mark.parametrize(("capability", "element", "channels", "length"), [(90, "bf16", 192, 3136), (80, "fp32", 5, 1)])
def test_both_kernels_compile_to_binaries(capability, element, channels, length):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    arguments = [str(capability), element, str(channels), str(length)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(int(size) > 1000 for size in done.stdout.split()) and len(done.stdout.split()) == 2
