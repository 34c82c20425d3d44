// {{ what }}
//
// Each row of the result is the row of the table that its index names, or zeros where there is none.
{% include "pointers.cu" %}
typedef {{ index }} Index;
typedef {{ unit }} Unit;
constexpr int THREADS = {{ threads }}, ROW = {{ row }};

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index i = (Index)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  const u32 row = (u32)p.index[i / ROW];
  Unit unit = {};
  if (row < rows) unit = p.from[(Index)row * ROW + i % ROW];
  p.to[i] = unit;
}
