// {{ what }}
//
// A product of matrices in f32, without tensor cores: tiles of BM x BN, sums over steps of BK, 8 x 8 elements in each
// thread. Operands may lie in any way.
{{ head }}
typedef {{ index }} Index;
// Whether neighbours in memory are terms of one sum, or rows (columns of the product for b).
constexpr bool A_INNER = {{ a_inner }}, B_INNER = {{ b_inner }};
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

{{ tail }}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
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
  finish_tile(p, s, scale, tile, batch, split, m0, n0{{ more_arguments }});
}
