// Products of tiles in shared memory on tensor cores. A warp owns STRIPS times 16 rows; tiles are rows of PITCH elements,
// an odd number of 16-byte pieces, so that the eight rows of an 8x8 matrix lie in different banks.
typedef {{ low }} Low;
constexpr int PADDED = (DIM + 15) / 16 * 16;
constexpr int PITCH = PADDED + 8;
constexpr int STRIPS = ROWS / (16 * WARPS);
constexpr int STAGES = {{ stages }};
// Whether rows are pieces of 16 bytes.
constexpr bool ASYNC = {{ is_async }};
// Whether two elements of a result can be stored as one.
constexpr bool PAIRS = {{ pairs }};

__device__ __forceinline__ u32 pack(float low, float high) {
  u32 y;
  asm("cvt.rn.{{ low }}x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

// Two numbers from global to shared memory, or zeros.
__device__ __forceinline__ void copy_pair_async(float2* to, const float2* from, bool real) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from), "r"(real ? 8 : 0)
               : "memory");
}

// Waits until a stage is there and sets out to load the one that is `ahead` of it: no warp uses its place any more.
template <class F> __device__ __forceinline__ void next_stage(F load) {
  if (STAGES == 1) {
    __syncthreads();
    load(0);
    copies_wait<0>();
    __syncthreads();
  } else {
    copies_wait<STAGES - 2 + (STAGES == 1)>();
    __syncthreads();
    load(STAGES - 1);
  }
}

// N rows of one head, `heads` being that of the tensor, from position `row` on; zeros past position t and past DIM.
template <int N> __device__ __forceinline__ void load_tile(Low* to, const Low* from, int heads, int row, int t) {
  constexpr int WIDTH = ASYNC ? 8 : 1;
  constexpr int PIECES = PADDED / WIDTH;
  // No more at a time: addresses take registers from sums.
#pragma unroll 2
  for (int i = threadIdx.x; i < N * PIECES; i += THREADS) {
    const int r = i / PIECES, c = i % PIECES * WIDTH;
    const bool real = row + r < t && c < DIM;
    const Low* source = real ? from + (i64)(row + r) * heads * DIM + c : from;
    if (ASYNC)
      copy_async(to + r * PITCH + c, source, real ? 16 : 0);
    else
      to[r * PITCH + c] = real ? *source : Low{0};
  }
}

// The 16 by 16 elements from (row, column) on, as a left operand.
__device__ __forceinline__ void load_left(u32 (&to)[4], const Low* tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  load_matrices(to, tile + (row + lane % 16) * PITCH + column + lane / 16 * 8);
}

// c += a b^T, with a the rows of this warp in a tile, and b a tile of 8 N rows. Sums run along the head.
template <int N>
__device__ __forceinline__ void multiply_heads(float (&c)[STRIPS][N][4], const Low* a, const Low* b) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int k = 0; k < PADDED; k += 16) {
    u32 left[STRIPS][4];
#pragma unroll
    for (int i = 0; i < STRIPS; i++) load_left(left[i], a, (warp * STRIPS + i) * 16, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      u32 right[4];
      load_matrices(right, b + (n * 8 + lane / 16 * 8 + lane % 8) * PITCH + k + lane / 8 % 2 * 8);
#pragma unroll
      for (int i = 0; i < STRIPS; i++) {
        multiply(c[i][n], left[i], right[0], right[1], Low());
        multiply(c[i][n + 1], left[i], right[2], right[3], Low());
      }
    }
  }
}

// c += a b, with a as a product left it, rounded, and b a tile of 8 K rows, of which 8 N columns from `column` on.
template <int K, int N>
__device__ __forceinline__ void multiply_rows(float (&c)[STRIPS][N][4], const float (&a)[STRIPS][K][4], const Low* b,
                                              int column) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < K; k += 2) {
    u32 left[STRIPS][4];
#pragma unroll
    for (int i = 0; i < STRIPS; i++) {
      left[i][0] = pack(a[i][k][0], a[i][k][1]);
      left[i][1] = pack(a[i][k][2], a[i][k][3]);
      left[i][2] = pack(a[i][k + 1][0], a[i][k + 1][1]);
      left[i][3] = pack(a[i][k + 1][2], a[i][k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      u32 right[4];
      load_matrices_transposed(right, b + (k * 8 + lane % 16) * PITCH + column + n * 8 + lane / 16 * 8);
#pragma unroll
      for (int i = 0; i < STRIPS; i++) {
        multiply(c[i][n], left[i], right[0], right[1], Low());
        multiply(c[i][n + 1], left[i], right[2], right[3], Low());
      }
    }
  }
}

// The position of row `half` (0 or 1) of strip i that this lane holds a part of.
__device__ __forceinline__ int row_of(int row, int strip, int half) {
  return row + (threadIdx.x / 32 * STRIPS + strip) * 16 + half * 8 + threadIdx.x % 32 / 4;
}

// The position of element e (0 or 1) of piece n that this lane holds.
__device__ __forceinline__ int column_of(int column, int n, int e) { return column + n * 8 + threadIdx.x % 4 * 2 + e; }

// Writes what is not seen over.
template <int N>
__device__ __forceinline__ void hide(float (&c)[STRIPS][N][4], const Sight& sight, int row, int column, float by) {
  int documents[STRIPS][2];
#pragma unroll
  for (int i = 0; i < STRIPS; i++)
#pragma unroll
    for (int half = 0; half < 2; half++) documents[i][half] = sight.document(row_of(row, i, half));
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const int other = column_of(column, n, e);
      const int document = sight.document(other);
#pragma unroll
      for (int i = 0; i < STRIPS; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
          if (!sight.sees(row_of(row, i, half), other, documents[i][half], document)) c[i][n][half * 2 + e] = by;
    }
}

// Stores rows of one head from `row` on: 8 N columns from `column` on, times a factor.
template <int N, class T>
__device__ __forceinline__ void store_tile(T* to, int heads, int row, int t, int column, const float (&c)[STRIPS][N][4],
                                           float factor) {
#pragma unroll
  for (int i = 0; i < STRIPS; i++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int position = row_of(row, i, half);
      if (position >= t) continue;
      T* line = to + (i64)position * heads * DIM;
#pragma unroll
      for (int n = 0; n < N; n++) {
        const int first = column_of(column, n, 0);
        const T pair[2] = {from_f32<T>(c[i][n][half * 2] * factor),
                           from_f32<T>(c[i][n][half * 2 + 1] * factor)};
        if (PAIRS) {
          if (first < DIM) *(Vec<T, 2>*)(line + first) = {pair[0], pair[1]};
        } else {
          if (first < DIM) line[first] = pair[0];
          if (first + 1 < DIM) line[first + 1] = pair[1];
        }
      }
    }
}
