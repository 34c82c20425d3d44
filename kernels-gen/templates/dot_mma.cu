// {{ what }}
//
// A product of matrices on tensor cores: tiles of BM x BN, sums in f32 over steps of BK, WARPS_M x WARPS_N warps, STAGES
// tiles of operands under way.
{{ head }}
typedef {{ element }} Element;
typedef {{ index }} Index;
constexpr int STAGES = {{ stages }}, WARPS_M = {{ warps_m }}, WARPS_N = {{ warps_n }};
constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N, MI = WM / 16, NI = WN / 8;
// Whether neighbours in memory are terms of one sum, or rows (columns of the product for b).
constexpr bool A_INNER = {{ a_inner }}, B_INNER = {{ b_inner }};
// Whether runs of 8 elements lie at multiples of 16 bytes.
constexpr bool A_ASYNC = {{ a_async }}, B_ASYNC = {{ b_async }};
// 8 elements more than needed in each row: neighbouring rows begin in different banks.
constexpr int A_PITCH = (A_INNER ? BK : BM) + 8, B_PITCH = (B_INNER ? BK : BN) + 8;
constexpr int A_TILE = (A_INNER ? BM : BK) * A_PITCH, B_TILE = (B_INNER ? BN : BK) * B_PITCH;

// Brings a tile of an operand to shared memory: LONG free positions from `first` on, BK terms from `k0` on. What lies outside
// is 0.
template <int LONG, bool INNER, bool ASYNC, int ROW>
__device__ __forceinline__ void fetch(Element* to, const Element* from, const Strides& s, u32 first, u32 free, u32 k0, u32 k) {
  constexpr int RUNS = LONG * BK / 8, RUNS_OF_ROW = (INNER ? BK : LONG) / 8;
#pragma unroll
  for (int run = 0; run < (RUNS + THREADS - 1) / THREADS; ++run) {
    const int i = run * THREADS + threadIdx.x;
    if (RUNS % THREADS != 0 && i >= RUNS) break;
    const int row = i / RUNS_OF_ROW, at = i % RUNS_OF_ROW * 8;
    const u32 f = first + (INNER ? row : at), t = k0 + (INNER ? at : row);
    Element* const place = to + row * ROW + at;
    if (ASYNC) {
      const u32 end = INNER ? k : free, here = INNER ? t : f;
      const u32 left = f < free && t < k ? end - here : 0;
      const Element* const source = left ? from + (f * s.row + t * s.inner) : from;
      copy_async(place, source, left < 8 ? left * 2 : 16);
    } else {
      Vec<Element, 8> x;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const u32 fe = f + (INNER ? 0 : e), te = t + (INNER ? e : 0);
        x.at[e].bits = fe < free && te < k ? from[fe * s.row + te * s.inner].bits : (u16)0;
      }
      *(Vec<Element, 8>*)place = x;
    }
  }
}

{{ tail }}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  extern __shared__ __align__(128) unsigned char shared[];
  Element* const tiles_a = (Element*)shared;
  Element* const tiles_b = tiles_a + STAGES * A_TILE;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_m = warp / WARPS_N * WM, warp_n = warp % WARPS_N * WN;
  const u32 batch = SPLIT ? blockIdx.z / s.splits : blockIdx.z, split = SPLIT ? blockIdx.z % s.splits : 0;
  u32 m0, n0;
  place(s, m0, n0);
  const Element* const a = p.a0 + batch * sa.batch;
  const Element* const b = p.a1 + batch * sb.batch;
  // Steps of this block.
  const u32 all = (s.k + BK - 1) / BK, share = SPLIT ? (all + s.splits - 1) / s.splits : all;
  const u32 begin = split * share, end = begin + share < all ? begin + share : all;
  const u32 steps = begin < end ? end - begin : 0;

  auto fetch_step = [&](u32 step) {
    if (step < steps) {
      const int stage = step % STAGES;
      fetch<BM, A_INNER, A_ASYNC, A_PITCH>(tiles_a + stage * A_TILE, a, sa, m0, s.m, (begin + step) * BK, s.k);
      fetch<BN, B_INNER, B_ASYNC, B_PITCH>(tiles_b + stage * B_TILE, b, sb, n0, s.n, (begin + step) * BK, s.k);
    }
    copies_commit();
  };

  float c[MI][NI][4] = {};
#pragma unroll
  for (int step = 0; step < STAGES - 1; ++step) fetch_step(step);
  for (u32 step = 0; step < steps; ++step) {
    copies_wait<STAGES - 2>();
    __syncthreads();
    fetch_step(step + STAGES - 1);
    const Element* const tile_a = tiles_a + step % STAGES * A_TILE;
    const Element* const tile_b = tiles_b + step % STAGES * B_TILE;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      u32 fa[MI][4], fb[NI / 2][4];
#pragma unroll
      for (int i = 0; i < MI; ++i) {
        // Matrices in the order of the operand: rows 0 to 7 and 8 to 15 of the first 8 terms, then of the others.
        const int m = warp_m + i * 16;
        if (A_INNER) load_matrices(fa[i], tile_a + (m + lane % 16) * A_PITCH + k + lane / 16 * 8);
        else load_matrices_transposed(fa[i], tile_a + (k + lane / 16 * 8 + lane % 8) * A_PITCH + m + lane / 8 % 2 * 8);
      }
#pragma unroll
      for (int j = 0; j < NI / 2; ++j) {
        // Columns 0 to 7 of the first and the second 8 terms, then columns 8 to 15.
        const int n = warp_n + j * 16;
        if (B_INNER) load_matrices(fb[j], tile_b + (n + lane / 16 * 8 + lane % 8) * B_PITCH + k + lane / 8 % 2 * 8);
        else load_matrices_transposed(fb[j], tile_b + (k + lane % 16) * B_PITCH + n + lane / 16 * 8);
      }
#pragma unroll
      for (int i = 0; i < MI; ++i)
#pragma unroll
        for (int j = 0; j < NI; ++j) multiply(c[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1], Element());
    }
  }
  // The tiles of operands make room for that of the product.
  copies_wait<0>();
  __syncthreads();
  float* const tile = (float*)shared;
#pragma unroll
  for (int i = 0; i < MI; ++i)
#pragma unroll
    for (int j = 0; j < NI; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = warp_m + i * 16 + h * 8 + lane / 4, column = warp_n + j * 8 + lane % 4 * 2;
        *(float2*)(tile + row * PITCH + column) = make_float2(c[i][j][h * 2], c[i][j][h * 2 + 1]);
      }
  __syncthreads();
  finish_tile(p, s, scale, tile, batch, split, m0, n0{{ more_arguments }});
}
