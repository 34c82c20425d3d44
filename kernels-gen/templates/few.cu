// {{ what }}
//
// Models compute many small things from a number or two. A text for each would take longer to compile than all of them
// ever take to run, so that one kernel interprets them: a warp for each instance, a lane for each element.
constexpr int POINTERS = {{ pointers_most }}, STEPS = {{ steps_most }}, REGISTERS = {{ registers_most }};
struct Pointers { void* at[POINTERS]; };
// `to`, `a`, `b` and `c` are registers, or as the case says.
struct Step { u32 op, to, a, b, c; };
struct Steps { Step at[STEPS]; };

__device__ __forceinline__ u32 bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ u32 bits(int x) { return (u32)x; }

extern "C" __global__ void __launch_bounds__({{ threads }}) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const u32 lane = threadIdx.x;
  const bool live = lane < elements;
  u32 r[REGISTERS] = {};
  const auto f = [&](u32 at) { return __uint_as_float(r[at]); };
  const auto i = [&](u32 at) { return (int)r[at]; };
  for (u32 n = 0; n < count; ++n) {
    const Step s = steps.at[n];
    // What one lane stores, another may have had to load.
    __syncwarp();
    switch (s.op) {
{%- for case in cases %}
      case {{ loop.index0 }}: {{ case }} break;
{%- endfor %}
    }
  }
}
