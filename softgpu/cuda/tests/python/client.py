"""A client of the driver that knows nothing of the soft GPU: NVIDIA's own Python packages, which open it by its name."""

import numpy as np
from cuda.bindings import driver
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch

SOURCE = r"""
extern "C" __global__ void blend(float* out, const float* x, const float* y, float t, int count) {
  int at = blockDim.x * blockIdx.x + threadIdx.x;
  if (at < count) out[at] = x[at] + t * (y[at] - x[at]);
}
"""


def good(result):
    error, *values = result
    assert error == driver.CUresult.CUDA_SUCCESS, error
    return values


device = Device()
device.set_current()
stream = device.create_stream()
program = Program(SOURCE, code_type="c++", options=ProgramOptions(arch=f"compute_{device.arch}"))
kernel = program.compile("ptx").get_kernel("blend")

count = 10_007
rng = np.random.default_rng(1)
x, y = (rng.random(count, dtype=np.float32) for _ in range(2))
out = np.zeros(count, dtype=np.float32)
buffers = [device.allocate(x.nbytes, stream=stream) for _ in range(3)]
for host, buffer in ((x, buffers[1]), (y, buffers[2])):
    good(driver.cuMemcpyHtoDAsync(int(buffer.handle), host.ctypes.data, host.nbytes, stream.handle))
launch(stream, LaunchConfig(grid=-(-count // 128), block=128), kernel, *buffers, np.float32(0.25), np.int32(count))
good(driver.cuMemcpyDtoHAsync(out.ctypes.data, int(buffers[0].handle), out.nbytes, stream.handle))
stream.sync()
assert np.allclose(out, x + np.float32(0.25) * (y - x)), np.abs(out - x).max()
print("blended", count, "values on", device.name)
