// {{ what }}
//
// The result's units, each of a few neighbours, are found in the operand by one stride for each of RANK axes. Those whose
// position along the axis LIMITED is outside of its range are 0; no axis is limited where it is RANK.
{% include "pointers.cu" %}
typedef {{ index }} Index;
typedef {{ stride }} Stride;
typedef {{ unit }} Unit;
constexpr int THREADS = {{ threads }}, RANK = {{ rank }}, LIMITED = {{ limited }};
struct Axes {
  Stride offset, by[RANK];
  u32 size[RANK], from, to;
};

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index i = (Index)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  Index rest = i;
  Stride at = axes.offset;
  bool is_there = true;
#pragma unroll
  for (int axis = RANK - 1; axis >= 0; --axis) {
    const u32 position = axis == 0 ? (u32)rest : (u32)(rest % axes.size[axis]);
    rest /= axes.size[axis];
    at += (Stride)position * axes.by[axis];
    if (axis == LIMITED) is_there = position >= axes.from && position < axes.to;
  }
  Unit unit = {};
  if (is_there) unit = p.from[at];
  p.to[i] = unit;
}
