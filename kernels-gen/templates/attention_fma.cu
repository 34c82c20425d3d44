// Products of tiles in shared memory in f32, without tensor cores. A row belongs to LANES threads of one warp.
constexpr int LANES = 16;
constexpr int TEAMS = THREADS / LANES;
// Rows and columns of scores that a thread makes: TEAMS and LANES apart.
constexpr int R = ROWS / TEAMS;
constexpr int C = COLUMNS / LANES;
constexpr int PADDED = (DIM + 3) / 4 * 4;
// Rows start in different banks: an odd number of pieces of four.
constexpr int PITCH = PADDED / 4 % 2 == 1 ? PADDED : PADDED + 4;
// Fours of the head that a thread makes of each of its rows: LANES apart.
constexpr int FOURS = (PADDED / 4 + LANES - 1) / LANES;
constexpr int WEIGHTS_PITCH = COLUMNS + 4;
// Elements that one instruction loads.
constexpr int VECTOR = {{ vector }};

typedef Vec<float, 4> Four;

__device__ __forceinline__ int team() { return threadIdx.x / LANES; }
__device__ __forceinline__ int lane() { return threadIdx.x % LANES; }
__device__ __forceinline__ Four four(const float* from) { return *(const Four*)from; }

// N rows of one head, `heads` being that of the tensor, from position `row` on; zeros past position t and past DIM.
template <int N, class T>
__device__ __forceinline__ void load_tile(float* to, const T* from, int heads, int row, int t) {
  constexpr int PIECES = PADDED / VECTOR;
#pragma unroll 4
  for (int i = threadIdx.x; i < N * PIECES; i += THREADS) {
    const int r = i / PIECES, c = i % PIECES * VECTOR;
    Vec<T, VECTOR> piece = {};
    if (row + r < t && c < DIM) piece = *(const Vec<T, VECTOR>*)(from + (i64)(row + r) * heads * DIM + c);
#pragma unroll
    for (int e = 0; e < VECTOR; e++) to[r * PITCH + c + e] = to_f32(piece.at[e]);
  }
}

// a b^T of this thread's rows and columns, summed along the head.
__device__ __forceinline__ void multiply_heads(float (&c)[R][C], const float* a, const float* b) {
#pragma unroll
  for (int i = 0; i < R; i++)
#pragma unroll
    for (int j = 0; j < C; j++) c[i][j] = 0;
#pragma unroll 2
  for (int k = 0; k < PADDED; k += 4) {
    Four left[R], right[C];
#pragma unroll
    for (int i = 0; i < R; i++) left[i] = four(a + (team() + i * TEAMS) * PITCH + k);
#pragma unroll
    for (int j = 0; j < C; j++) right[j] = four(b + (lane() + j * LANES) * PITCH + k);
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
      for (int j = 0; j < C; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) c[i][j] = fmaf(left[i].at[e], right[j].at[e], c[i][j]);
  }
}

// c += a b of this thread's rows; `weights` is the place where its warp exchanges a.
__device__ __forceinline__ void multiply_rows(float (&c)[R][FOURS][4], const float (&a)[R][C], const float* b,
                                              float* weights) {
  __syncwarp();
#pragma unroll
  for (int i = 0; i < R; i++)
#pragma unroll
    for (int j = 0; j < C; j++) weights[(team() + i * TEAMS) * WEIGHTS_PITCH + lane() + j * LANES] = a[i][j];
  __syncwarp();
#pragma unroll 2
  for (int k = 0; k < COLUMNS; k++) {
    float left[R];
#pragma unroll
    for (int i = 0; i < R; i++) left[i] = weights[(team() + i * TEAMS) * WEIGHTS_PITCH + k];
#pragma unroll
    for (int n = 0; n < FOURS; n++) {
      const int column = (lane() + n * LANES) * 4;
      if (column >= PADDED) continue;
      const Four right = four(b + k * PITCH + column);
#pragma unroll
      for (int i = 0; i < R; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          // What has no weight adds nothing, not even where it is no number.
          c[i][n][e] = left[i] == 0.0f ? c[i][n][e] : fmaf(left[i], right.at[e], c[i][n][e]);
    }
  }
}

// Writes what is not seen over.
__device__ __forceinline__ void hide(float (&c)[R][C], const Sight& sight, int row, int column, float by) {
#pragma unroll
  for (int i = 0; i < R; i++) {
    const int own = row + team() + i * TEAMS;
    const int document = sight.document(own);
#pragma unroll
    for (int j = 0; j < C; j++) {
      const int other = column + lane() + j * LANES;
      if (!sight.sees(own, other, document, sight.document(other))) c[i][j] = by;
    }
  }
}

// Stores rows of one head from `row` on, times a factor.
template <class T>
__device__ __forceinline__ void store_tile(T* to, int heads, int row, int t, const float (&c)[R][FOURS][4], float factor) {
#pragma unroll
  for (int i = 0; i < R; i++) {
    const int position = row + team() + i * TEAMS;
    if (position >= t) continue;
    T* line = to + (i64)position * heads * DIM;
#pragma unroll
    for (int n = 0; n < FOURS; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int column = (lane() + n * LANES) * 4 + e;
        if (column < DIM) line[column] = from_f32<T>(c[i][n][e] * factor);
      }
  }
}
