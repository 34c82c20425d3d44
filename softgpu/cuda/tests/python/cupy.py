"""What an example of cuda-core needs of cupy, which itself needs more than the driver's documented interface: arrays in
device memory, made and compared on the host."""

import numpy
from cuda.bindings import driver
from numpy import float32, uint64  # noqa: F401 (taken from here by the example)


def good(result):
    error, *values = result
    assert error == driver.CUresult.CUDA_SUCCESS, error
    return values


class Array:
    def __init__(self, host):
        self.shape, self.dtype, self.nbytes = host.shape, host.dtype, host.nbytes
        (self.ptr,) = (int(p) for p in good(driver.cuMemAlloc(host.nbytes)))
        good(driver.cuMemcpyHtoD(self.ptr, host.ctypes.data, host.nbytes))

    @property
    def data(self):
        return self

    def get(self):
        host = numpy.empty(self.shape, self.dtype)
        good(driver.cuMemcpyDtoH(host.ctypes.data, self.ptr, self.nbytes))
        return host

    def __add__(self, other):
        return Array(self.get() + other.get())


class random:
    class default_rng:
        def __init__(self):
            self.host = numpy.random.default_rng(1)

        def random(self, size, dtype):
            return Array(self.host.random(size, dtype=dtype))


def empty_like(a):
    return Array(numpy.full(a.shape, numpy.nan, a.dtype))


def allclose(a, b):
    return numpy.allclose(a.get(), b.get())
