// The elements of a tile become results: V neighbours of row `row` from column `col` on are in x.
__device__ __forceinline__ void finish(const Pointers& p, const u32 m, const u32 n, const u32 batch, const u32 in_batch, const u32 col, float (&product)[V]{{ more_parameters }}) {
  const Index row = (Index)batch * m + in_batch, base = row * n;
  // The first element of a row is in the thread that has column 0.
  [[maybe_unused]] const u32 lane = col;
{{ body }}
}

// Hands the tile in shared memory over to `finish`.
__device__ __forceinline__ void finish_tile(const Pointers& p, const Sizes& s, const float scale, float* tile, const u32 batch, const u32 split, const u32 m0, const u32 n0{{ more_parameters }}) {
{%- if split %}
  const u32 part = batch * gridDim.x + blockIdx.x;
  float* const parts = p.parts + (u64)part * s.splits * (BM * BN);
  for (int i = threadIdx.x; i < BM * BN; i += THREADS) parts[(u64)split * (BM * BN) + i] = tile[i / BN * PITCH + i % BN];
  if (!is_last_block(p.counters + part, s.splits)) return;
  for (int i = threadIdx.x; i < BM * BN; i += THREADS) {
    float sum = 0;
    for (u32 other = 0; other < s.splits; ++other) sum += parts[(u64)other * (BM * BN) + i];
    tile[i / BN * PITCH + i % BN] = sum;
  }
  __syncthreads();
{%- endif %}
  for (int i = threadIdx.x; i < BM * BN / V; i += THREADS) {
    const int r = i / (BN / V), c = i % (BN / V) * V;
    if (m0 + r >= s.m || n0 + c >= s.n) continue;
    float product[V];
#pragma unroll
    for (int v = 0; v < V; ++v) product[v] = scale * tile[r * PITCH + c + v];
    finish(p, s.m, s.n, batch, m0 + r, n0 + c, product{{ more_arguments }});
  }
{%- if symmetric %}
  // Above the diagonal: the same, turned round.
  if (m0 == n0) return;
  for (int i = threadIdx.x; i < BM * BN / V; i += THREADS) {
    const int c = i / (BM / V), r = i % (BM / V) * V;
    if (n0 + c >= s.n || m0 + r >= s.m) continue;
    float product[V];
#pragma unroll
    for (int v = 0; v < V; ++v) product[v] = scale * tile[(r + v) * PITCH + c];
    finish(p, s.m, s.n, batch, n0 + c, m0 + r, product{{ more_arguments }});
  }
{%- endif %}
}
