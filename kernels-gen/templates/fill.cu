// {{ what }}
{% include "pointers.cu" %}
typedef {{ index }} Index;
constexpr int THREADS = {{ threads }};

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index i = (Index)blockIdx.x * THREADS + threadIdx.x;
  if (i < count) p.to[i] = ({{ unit }})bits;
}
