// {{ what }}
//
// A line of `length` positions, `inner` elements apart, is cut into chunks. With `sums_only` it makes the sum of each chunk;
// then a second call starts each chunk with the sums of those before it, in order.
{% include "pointers.cu" %}
typedef {{ index }} Index;
typedef {{ register }} Register;
constexpr int THREADS = {{ threads }};
constexpr bool REVERSE = {{ reverse }};

// A thread has a chunk of a line, its neighbours have neighbouring lines.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index i = (Index)blockIdx.x * THREADS + threadIdx.x;
  if (i >= lines * chunks) return;
  const Index line = i % lines;
  const u32 chunk = (u32)(i / lines);
  const Index first = line / inner * length * inner + line % inner;
  const u32 from = chunk * chunk_length, end = from + chunk_length < length ? from + chunk_length : length;
  Register carry = 0;
  if (!sums_only)
    for (u32 before = 0; before < chunk; ++before) carry = Sum::of(carry, p.sums[before * lines + line]);
  for (u32 t = from; t < end; ++t) {
    const Index at = first + (Index)(REVERSE ? length - 1 - t : t) * inner;
    carry = Sum::of(carry, widen(p.a0[at]));
    if (!sums_only) p.r0[at] = narrow<{{ to }}>(carry);
  }
  if (sums_only) p.sums[chunk * lines + line] = carry;
}
