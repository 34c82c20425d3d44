// A product, f32 by f32: neighbours of a are terms, of b terms
//
// A product of matrices in f32, without tensor cores: tiles of BM x BN, sums over steps of BK, 8 x 8 elements in each
// thread. Operands may lie in any way.
struct Pointers {
  const float* a0;
  const float* a1;
  const float* a2;
  float* r0;
};

// How an operand lies, in elements: between matrices, rows of the product (or its columns), and terms of the sums.
struct Strides { u64 batch, row, inner; };
struct Sizes { u32 m, n, k, batch, splits, tiles_m, tiles_n; };
constexpr int BM = 64, BN = 64, BK = 16, THREADS = 64;
// Elements of a result that a thread handles at once; a divisor of n.
constexpr int V = 4;
// The product is symmetric: tiles above the diagonal are those below it, turned round.
constexpr bool SYMMETRIC = false;
// Blocks share the sum of a tile; the last one to finish adds their parts up in order.
constexpr bool SPLIT = false;

// Rows of the product in shared memory while its elements become results.
constexpr int PITCH = BN + 4;

// The tile of a block: neighbours share rows and columns of tiles, so that they find operands in the cache.
__device__ __forceinline__ void place(const Sizes& s, u32& m0, u32& n0) {
  u32 row, column;
  if (SYMMETRIC) {
    row = (u32)((sqrtf(8.0f * blockIdx.x + 1.0f) - 1.0f) * 0.5f);
    while (row * (row + 1) / 2 > blockIdx.x) --row;
    while ((row + 1) * (row + 2) / 2 <= blockIdx.x) ++row;
    column = blockIdx.x - row * (row + 1) / 2;
  } else {
    constexpr u32 GROUP = 8;
    const u32 group = blockIdx.x / (GROUP * s.tiles_n), first = group * GROUP;
    const u32 rows = s.tiles_m - first < GROUP ? s.tiles_m - first : GROUP;
    const u32 inside = blockIdx.x - group * GROUP * s.tiles_n;
    row = first + inside % rows;
    column = inside / rows;
  }
  m0 = row * BM;
  n0 = column * BN;
}

typedef u32 Index;
// Whether neighbours in memory are terms of one sum, or rows (columns of the product for b).
constexpr bool A_INNER = true, B_INNER = true;
constexpr int EACH = 8, ACROSS = BN / EACH;

// Brings a tile of an operand to shared memory, terms first: LONG free positions from `first` on, BK terms from `k0` on. What
// lies outside is 0.
template <int LONG, bool INNER, class T>
__device__ __forceinline__ void fetch(float* to, const T* from, const Strides& s, u32 first, u32 free, u32 k0, u32 k) {
  for (int i = threadIdx.x; i < LONG * BK; i += THREADS) {
    const int row = INNER ? i / BK : i % LONG, term = INNER ? i % BK : i / LONG;
    const u32 f = first + row, t = k0 + term;
    to[term * (LONG + 4) + row] = f < free && t < k ? widen(from[f * s.row + t * s.inner]) : 0.0f;
  }
}

// The elements of a tile become results: V neighbours of row `row` from column `col` on are in x.
__device__ __forceinline__ void finish(const Pointers& p, const u32 m, const u32 n, const u32 batch, const u32 in_batch, const u32 col, float (&product)[V]) {
  const Index row = (Index)batch * m + in_batch, base = row * n;
  // The first element of a row is in the thread that has column 0.
  [[maybe_unused]] const u32 lane = col;
    float v0[V];
    load<V>(p.a2 + base + col, v0);
    float v1[V], v2[V];
#pragma unroll
    for (int e = 0; e < V; ++e) {
      v1[e] = 3.4445f * v0[e];
      v2[e] = v1[e] + product[e];
    }
    store<V>(p.r0 + base + col, v2);
}

// Hands the tile in shared memory over to `finish`.
__device__ __forceinline__ void finish_tile(const Pointers& p, const Sizes& s, const float scale, float* tile, const u32 batch, const u32 split, const u32 m0, const u32 n0) {
  for (int i = threadIdx.x; i < BM * BN / V; i += THREADS) {
    const int r = i / (BN / V), c = i % (BN / V) * V;
    if (m0 + r >= s.m || n0 + c >= s.n) continue;
    float product[V];
#pragma unroll
    for (int v = 0; v < V; ++v) product[v] = scale * tile[r * PITCH + c + v];
    finish(p, s.m, s.n, batch, m0 + r, n0 + c, product);
  }
}


extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const Strides sa, const Strides sb, const Sizes s, const float scale) {
  const Pointers p = table ? table[blockIdx.y] : one;
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int STEP = BK * (BM + 4) + BK * (BN + 4);
  float* const tiles = (float*)shared;
  const u32 batch = SPLIT ? blockIdx.z / s.splits : blockIdx.z, split = SPLIT ? blockIdx.z % s.splits : 0;
  u32 m0, n0;
  place(s, m0, n0);
  const auto* const a = p.a0 + batch * sa.batch;
  const auto* const b = p.a1 + batch * sb.batch;
  // Steps of this block.
  const u32 all = (s.k + BK - 1) / BK, share = SPLIT ? (all + s.splits - 1) / s.splits : all;
  const u32 begin = split * share, end = begin + share < all ? begin + share : all;

  auto fetch_step = [&](u32 step) {
    if (step >= end) return;
    float* const to = tiles + step % 2 * STEP;
    fetch<BM, A_INNER>(to, a, sa, m0, s.m, step * BK, s.k);
    fetch<BN, B_INNER>(to + BK * (BM + 4), b, sb, n0, s.n, step * BK, s.k);
  };

  const int m = threadIdx.x / ACROSS * EACH, n = threadIdx.x % ACROSS * EACH;
  float c[EACH][EACH] = {};
  fetch_step(begin);
  for (u32 step = begin; step < end; ++step) {
    __syncthreads();
    fetch_step(step + 1);
    const float* const tile_a = tiles + step % 2 * STEP + m;
    const float* const tile_b = tiles + step % 2 * STEP + BK * (BM + 4) + n;
#pragma unroll
    for (int k = 0; k < BK; ++k) {
      float x[EACH], y[EACH];
      load<4>(tile_a + k * (BM + 4), x);
      load<4>(tile_a + k * (BM + 4) + 4, x + 4);
      load<4>(tile_b + k * (BN + 4), y);
      load<4>(tile_b + k * (BN + 4) + 4, y + 4);
#pragma unroll
      for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) c[i][j] = fmaf(x[i], y[j], c[i][j]);
    }
  }
  __syncthreads();
  float* const tile = (float*)shared;
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    store<4>(tile + (m + i) * PITCH + n, c[i]);
    store<4>(tile + (m + i) * PITCH + n + 4, c[i] + 4);
  }
  __syncthreads();
  finish_tile(p, s, scale, tile, batch, split, m0, n0);
}
