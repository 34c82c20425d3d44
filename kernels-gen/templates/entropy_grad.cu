// {{ what }}
//
// A block has a row of N logits. A target outside of the row gives zeros.
{% include "pointers.cu" %}
constexpr int THREADS = {{ threads }}, N = {{ n }}, V = {{ vec }};

{% include "entropy_row.cu" %}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const auto logits = p.a0 + (u64)blockIdx.x * N;
  const auto to = p.r0 + (u64)blockIdx.x * N;
  const u32 target = (u32)p.a1[blockIdx.x];
  const float dy = p.a2[blockIdx.x];
  float top = -INF, sum = 1;
  if (target < N) entropy_row(logits, &top, &sum);
  for (int i = threadIdx.x * V; i < N; i += THREADS * V) {
    float x[V];
    load<V>(logits + i, x);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      // A row of -INF only has no softmax: zeros.
      const float share = top == -INF ? 0.0f : expf(x[v] - top) / sum;
      x[v] = target < N ? (share - (i + v == target ? 1.0f : 0.0f)) * dy : 0.0f;
    }
    store<V>(to + i, x);
  }
}
