// {{ what }}
//
// Operand k fills columns ends[k - 1] to ends[k] of the result's rows of `row` units, from column `first` on.
{% include "pointers.cu" %}
typedef {{ index }} Index;
typedef {{ unit }} Unit;
constexpr int THREADS = {{ threads }}, OPERANDS = {{ operands }};
struct Ends { u32 of[OPERANDS]; };

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index i = (Index)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  const u32 wide = ends.of[OPERANDS - 1];
  const Index line = i / wide;
  const u32 column = (u32)(i % wide);
  const Unit* from = p.a0;
  u32 start = 0, end = ends.of[0];
{%- for k in later %}
  if (column >= ends.of[{{ k }} - 1]) from = p.a{{ k }}, start = ends.of[{{ k }} - 1], end = ends.of[{{ k }}];
{%- endfor %}
  p.to[line * row + first + column] = from[line * (end - start) + column - start];
}
