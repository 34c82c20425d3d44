// sums of rows of equal index
//
// A block sums the rows of the tokens that belong to one row of the table, in order.
struct Pointers {
  const float* rows;
  float* to;
  const u32* order;
  const u32* starts;
};

constexpr int THREADS = 32, ROW = 128, V = 4, AHEAD = 8;

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const u32 start = p.starts[blockIdx.x], end = p.starts[blockIdx.x + 1];
  for (u32 column = threadIdx.x * V; column < ROW; column += THREADS * V) {
    float sum[V] = {};
    u32 i = start;
    // Loads of several rows are under way at once.
    for (; i + AHEAD <= end; i += AHEAD) {
      float x[AHEAD][V];
#pragma unroll
      for (int k = 0; k < AHEAD; ++k) load<V>(p.rows + (u64)p.order[i + k] * ROW + column, x[k]);
#pragma unroll
      for (int k = 0; k < AHEAD; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] += x[k][v];
    }
    for (; i < end; ++i) {
      float x[V];
      load<V>(p.rows + (u64)p.order[i] * ROW + column, x);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += x[v];
    }
    store<V>(p.to + (u64)blockIdx.x * ROW + column, sum);
  }
}
