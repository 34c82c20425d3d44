"""Runs an example of cuda-core as it is, but for what needs more than the driver's documented interface: machine code
becomes PTX, and the wait for a device, which goes through the runtime library's private tables, is the driver's own.
Usage: example.py FILE"""

import runpy
import sys

import cuda.core
from cupy import driver, good


class Program(cuda.core.Program):
    def compile(self, kind, *args, **options):
        return super().compile("ptx", *args, **options)


class Device(cuda.core.Device):
    def sync(self):
        good(driver.cuCtxSynchronize())


cuda.core.Program = Program
cuda.core.Device = Device
runpy.run_path(sys.argv[1], run_name="__main__")
