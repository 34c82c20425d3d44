# A client that knows nothing of the soft GPU: the vector addition of cuda.core's documentation, with plain memory.
import ctypes, numpy as np
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch
code = """
template<typename T>
__global__ void vector_add(const T* A, const T* B, T* C, size_t N) {
    const unsigned int tid = threadIdx.x + blockIdx.x * blockDim.x;
    for (size_t i=tid; i<N; i+=gridDim.x*blockDim.x) C[i] = A[i] + B[i];
}
"""
dev = Device()
dev.set_current()
print(dev.name, dev.compute_capability)
stream = dev.create_stream()
prog = Program(code, code_type="c++", options=ProgramOptions(std="c++17", arch=f"compute_{dev.arch}"))
mod = prog.compile("ptx", name_expressions=("vector_add<float>",))
ker = mod.get_kernel("vector_add<float>")
n = 50000
a = np.random.rand(n).astype(np.float32); b = np.random.rand(n).astype(np.float32); c = np.zeros(n, np.float32)
bufs = [dev.allocate(n * 4, stream=stream) for _ in range(3)]
from cuda.bindings import driver as drv
for h, d in zip((a, b), bufs):
    err, = drv.cuMemcpyHtoDAsync(int(d.handle), h.ctypes.data, n * 4, stream.handle); assert err == 0, err
launch(stream, LaunchConfig(grid=(n + 255) // 256, block=256), ker, bufs[0], bufs[1], bufs[2], np.uint64(n))
err, = drv.cuMemcpyDtoHAsync(c.ctypes.data, int(bufs[2].handle), n * 4, stream.handle); assert err == 0, err
stream.sync()
assert np.allclose(c, a + b)
print("done")
