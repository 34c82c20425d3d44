// {{ what }}
//
// Rows of LEN elements, longer than a block holds: a block goes through its row once for each fold, and once more for the
// results. Each time it has STEP elements at once, E in a thread.
{% include "pointers.cu" %}
typedef {{ index }} Index;
constexpr int THREADS = {{ threads }}, TEAM = THREADS;
constexpr int LEN = {{ len }}, V = {{ vec }}, E = {{ held }}, STEP = TEAM * E;

__device__ __forceinline__ int local(int at, int e, int lane) { return at + (e / V * TEAM + lane) * V + e % V; }

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const int lane = threadIdx.x;
  const Index row = blockIdx.x, base = row * LEN;
{{ body }}
}
