// {{ what }}
//
// Cross-entropy of rows of n logits, each made from an element of the product z, and {{ "what its gradient is to z, written over it" if gradient else "nothing else" }}: a block for each row.
struct Pointers {
{%- for pointer in pointers %}
  {{ pointer }};
{%- endfor %}
};
typedef {{ element }} Element;
typedef {{ index }} Index;
constexpr int THREADS = {{ threads }};
// Elements that a thread handles at once; a divisor of n.
constexpr int V = {{ vec }};

// V logits of a row from column `col` on, of their products.
__device__ __forceinline__ void logits_of(const Pointers& p, const Index row, const Index base, const u32 n, const u32 col, const float (&product)[V], float (&logits)[V]{{ more_parameters }}) {
  [[maybe_unused]] const u32 lane = col;
{{ logits }}
}
{%- if gradient %}

// The gradient of V products, of those of their logits.
__device__ __forceinline__ void gradient_of(const Pointers& p, const Index row, const Index base, const u32 n, const u32 col, const float (&product)[V], const float (&dlogits)[V], float (&dproduct)[V]{{ more_parameters }}) {
  [[maybe_unused]] const u32 lane = col;
{{ gradient }}
}
{%- endif %}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
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
    logits_of(p, row, base, n, col, product, x{{ more_arguments }});
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
  if (threadIdx.x == 0) p.r{{ loss }}[row] = counts ? log_sum - of_target : 0.0f;
{%- if gradient %}
  const float dy = counts ? {{ dy }} : 0.0f;
  for (u32 col = threadIdx.x * V; col < n; col += THREADS * V) {
    float product[V], x[V], dlogits[V], dproduct[V];
    load<V>(z + col, product);
    logits_of(p, row, base, n, col, product, x{{ more_arguments }});
#pragma unroll
    for (int v = 0; v < V; ++v)
      dlogits[v] = counts ? (expf(x[v] - log_sum) - ((int)(col + v) == target ? 1.0f : 0.0f)) * dy : 0.0f;
    gradient_of(p, row, base, n, col, product, dlogits, dproduct{{ more_arguments }});
    store<V>(z + col, dproduct);
  }
{%- endif %}
}
