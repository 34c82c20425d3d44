// {{ what }}
//
// A block has a row of N logits. A target outside of the row gives 0.
{% include "pointers.cu" %}
constexpr int THREADS = {{ threads }}, N = {{ n }}, V = {{ vec }};

{% include "entropy_row.cu" %}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const auto logits = p.a0 + (u64)blockIdx.x * N;
  const u32 target = (u32)p.a1[blockIdx.x];
  float loss = 0;
  if (target < N) {
    float top, sum;
    entropy_row(logits, &top, &sum);
    // With an infinite top, the logarithm of the sum is the top.
    loss = top - widen(logits[target]) + (top == INF || top == -INF ? 0.0f : logf(sum));
  }
  if (threadIdx.x == 0) p.r0[blockIdx.x] = loss;
}
