// Losses of f32 products
//
// Cross-entropy of rows of n logits, each made from an element of the product z, and what its gradient is to z, written over it: a block for each row.
struct Pointers {
  const float* a0;
  const float* a1;
  const int* a2;
  const float* a3;
  const float* a4;
  const int* a5;
  const float* a6;
  const float* a7;
  float* r0;
  float* r1;
  float* r2;
  float* z;
};
typedef float Element;
typedef u32 Index;
constexpr int THREADS = 512;
// Elements that a thread handles at once; a divisor of n.
constexpr int V = 4;

// V logits of a row from column `col` on, of their products.
__device__ __forceinline__ void logits_of(const Pointers& p, const Index row, const Index base, const u32 n, const u32 col, const float (&product)[V], float (&logits)[V]) {
  [[maybe_unused]] const u32 lane = col;
    float v0[V], v1[V], v2[V];
#pragma unroll
    for (int e = 0; e < V; ++e) {
      v0[e] = product[e] / 30.0f;
      v1[e] = tanhf(v0[e]);
      v2[e] = 30.0f * v1[e];
      logits[e] = v2[e];
    }
}

// The gradient of V products, of those of their logits.
__device__ __forceinline__ void gradient_of(const Pointers& p, const Index row, const Index base, const u32 n, const u32 col, const float (&product)[V], const float (&dlogits)[V], float (&dproduct)[V]) {
  [[maybe_unused]] const u32 lane = col;
    float v0[V], v1[V], v2[V], v3[V], v4[V], v5[V], v6[V];
#pragma unroll
    for (int e = 0; e < V; ++e) {
      v0[e] = dlogits[e] * 30.0f;
      v1[e] = product[e] / 30.0f;
      v2[e] = tanhf(v1[e]);
      v3[e] = v2[e] * v2[e];
      v4[e] = 1.0f - v3[e];
      v5[e] = v0[e] * v4[e];
      v6[e] = v5[e] / 30.0f;
      dproduct[e] = v6[e];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers p, const u32 first, const u32 n) {
  const Index row = first + blockIdx.x, base = row * n;
  Element* const z = p.z + (Index)blockIdx.x * n;
  const int target = p.a2[row];
  __shared__ float of_target;
  if (threadIdx.x == 0) of_target = 0;
  __syncthreads();
  // The sum of exp(x - top), with the largest x so far as top.
  float top = -INF, sum = 0;
  for (u32 col = threadIdx.x * V; col < n; col += THREADS * V) {
    float product[V], x[V];
    load<V>(z + col, product);
    logits_of(p, row, base, n, col, product, x);
    float larger = top;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      larger = f_max(larger, x[v]);
      if ((int)(col + v) == target) of_target = x[v];
    }
    // Equal infinities have no difference.
    sum = top == larger ? sum : sum * expf(top - larger);
    top = larger;
#pragma unroll
    for (int v = 0; v < V; ++v) sum += x[v] == top ? 1.0f : expf(x[v] - top);
  }
  const float most = team_fold<Max, THREADS>(top);
  sum = team_fold<Sum, THREADS>(top == most ? sum : sum * expf(top - most));
  const float log_sum = most == -INF || most == INF ? most : most + logf(sum);
  const bool counts = target >= 0 && target < (int)n;
  if (threadIdx.x == 0) p.r0[row] = counts ? log_sum - of_target : 0.0f;
  const float dy = counts ? widen(p.a6[row]) : 0.0f;
  for (u32 col = threadIdx.x * V; col < n; col += THREADS * V) {
    float product[V], x[V], dlogits[V], dproduct[V];
    load<V>(z + col, product);
    logits_of(p, row, base, n, col, product, x);
#pragma unroll
    for (int v = 0; v < V; ++v)
      dlogits[v] = counts ? (expf(x[v] - log_sum) - ((int)(col + v) == target ? 1.0f : 0.0f)) * dy : 0.0f;
    gradient_of(p, row, base, n, col, product, dlogits, dproduct);
    store<V>(z + col, dproduct);
  }
}
