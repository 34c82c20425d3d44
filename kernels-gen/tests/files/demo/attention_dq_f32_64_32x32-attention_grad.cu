// What all attention kernels share. A block owns ROWS positions of one head (queries; keys where OWNS_KEYS) and walks over
// tiles of COLUMNS positions of the other side.
constexpr bool OWNS_KEYS = false;
constexpr bool CAUSAL = true;
constexpr bool DOCUMENTS = true;
constexpr bool WINDOW = true;
constexpr int HEADS = 2;
constexpr int KEY_HEADS = 2;
constexpr int GROUP = HEADS / KEY_HEADS;
constexpr int DIM = 64;
constexpr int ROWS = 32;
constexpr int COLUMNS = 32;
constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;
// Tiles whose documents are looked at together.
constexpr int ROUND = 64;
constexpr float SCALE = 1.25e-1f;
constexpr float LOG2_E = 1.4426950408889634f;
// What scores are multiplied by, so that powers of 2 make a softmax of them.
constexpr float SCALE_2 = SCALE * LOG2_E;

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ float exp_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Rounded down; from 0 to t, which is no limit.
__device__ __forceinline__ int whole(int window, int t) { return min(max(window, 0), t); }
__device__ __forceinline__ int whole(float window, int t) { return whole(__float2int_rd(window), t); }
__device__ __forceinline__ int whole(bf16 window, int t) { return whole(to_f32(window), t); }
__device__ __forceinline__ int whole(f16 window, int t) { return whole(to_f32(window), t); }

// Which queries of a sequence see which keys.
struct Sight {
  int t;
  int window;
  const int* documents;

  __device__ __forceinline__ int document(int position) const {
    return DOCUMENTS && position < t ? documents[position] : 0;
  }

  // Of a row and a column and their documents. The row is one of the sequence.
  __device__ __forceinline__ bool sees(int row, int column, int row_document, int column_document) const {
    bool seen = column < t;
    if (CAUSAL) seen = seen && (OWNS_KEYS ? row <= column : column <= row);
    if (WINDOW) seen = seen && abs(row - column) < window;
    if (DOCUMENTS) seen = seen && row_document == column_document;
    return seen;
  }

  // The columns that any of some rows see, as far as they form a range: from x, to before y.
  __device__ __forceinline__ int2 range(int row) const {
    const int end = min(row + ROWS, t);
    int2 range = make_int2(0, t);
    if (CAUSAL && OWNS_KEYS) range.x = row;
    if (CAUSAL && !OWNS_KEYS) range.y = end;
    if (WINDOW) {
      range.x = max(range.x, row - window + 1);
      range.y = window > 0 ? min(range.y, end - 1 + window) : 0;
    }
    return range;
  }

  // Whether every row of a tile sees every column of another, but for documents.
  __device__ __forceinline__ bool all(int row, int column) const {
    const int row_end = row + ROWS - 1, column_end = column + COLUMNS - 1;
    bool all = column_end < t;
    if (CAUSAL) all = all && (OWNS_KEYS ? row_end <= column : column_end <= row);
    if (WINDOW) all = all && max(row_end - column, column_end - row) < window;
    return all;
  }
};

// A tile of columns that is to be visited.
struct Tile {
  int column;
  // All documents of rows and columns are one.
  bool same;
};

// The least and the greatest document of N positions, found by one warp.
template <int N> __device__ __forceinline__ int2 span(const Sight& sight, int position) {
  int least = 0x7fffffff, greatest = -0x7fffffff - 1;
#pragma unroll
  for (int start = 0; start < N; start += 32) {
    const int i = start + threadIdx.x % 32;
    if (i >= N || position + i >= sight.t) continue;
    const int document = sight.documents[position + i];
    least = min(least, document);
    greatest = max(greatest, document);
  }
  return make_int2(__reduce_min_sync(0xffffffff, least), __reduce_max_sync(0xffffffff, greatest));
}

// The tiles that a block visits, up to ROUND at a time where documents decide.
struct Tiles {
  // Of all tiles: the first, and the one behind the last.
  int first, last;
  int2 rows;
  unsigned short* list;

  __device__ __forceinline__ Tiles(const Sight& sight, int row, unsigned short* list) : list(list) {
    const int2 range = sight.range(row);
    first = range.x / COLUMNS;
    last = range.x < range.y ? divide_up(range.y, COLUMNS) : first;
    if (DOCUMENTS) rows = span<ROWS>(sight, row);
  }

  __device__ __forceinline__ int step() const { return DOCUMENTS ? ROUND : max(last - first, 1); }

  // How many tiles of the round that starts at tile `from` are visited. All threads of the block call it.
  __device__ __forceinline__ int find(const Sight& sight, int from) const {
    if (!DOCUMENTS) return last - from;
    const int n = min(last - from, ROUND);
    __shared__ int count;
    __syncthreads();
    // Several at a time: nothing but the memory's latency counts here.
#pragma unroll 4
    for (int i = threadIdx.x / 32; i < n; i += WARPS) {
      const int2 columns = span<COLUMNS>(sight, (from + i) * COLUMNS);
      const bool seen = columns.x <= rows.y && rows.x <= columns.y;
      const bool same = columns.x == columns.y && rows.x == rows.y;
      if (threadIdx.x % 32 == 0) list[i] = seen ? 2 * i + same : 0xffff;
    }
    __syncthreads();
    // The first warp moves those that are seen to the front: never past a place that is still to be read.
    if (threadIdx.x < 32) {
      int found = 0;
      for (int i = 0; i < n; i += 32) {
        const int lane = threadIdx.x;
        const unsigned short tile = i + lane < n ? list[i + lane] : 0xffff;
        const u32 seen = __ballot_sync(0xffffffff, tile != 0xffff);
        __syncwarp();
        if (tile != 0xffff) list[found + __popc(seen & ((1u << lane) - 1))] = tile;
        __syncwarp();
        found += __popc(seen);
      }
      if (threadIdx.x == 0) count = found;
    }
    __syncthreads();
    return count;
  }

  __device__ __forceinline__ Tile at(int from, int i) const {
    if (!DOCUMENTS) return {(from + i) * COLUMNS, true};
    const int tile = list[i];
    return {(from + tile / 2) * COLUMNS, tile % 2 == 1};
  }
};

// What a block works on.
struct Place {
  int sequence, head, row;
};

// Heads first, so that blocks that run together read the same keys; the tiles with most to do before the others.
__device__ __forceinline__ Place place(int t, int heads) {
  const int tiles = divide_up(t, ROWS);
  const int sequences = gridDim.x / (tiles * heads);
  const int tile = blockIdx.x / (sequences * heads);
  const int sequence = blockIdx.x / heads % sequences;
  const int row = CAUSAL && !OWNS_KEYS ? tiles - 1 - tile : tile;
  return {sequence, (int)(blockIdx.x % heads), row * ROWS};
}

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
constexpr int VECTOR = 4;

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

// One half of attention's gradient in f32: dq, or dk and dv where OWNS_KEYS. As attention_backward_mma.cu.
typedef float Q;
typedef float K;
typedef float V;
typedef float Out;
typedef float DOut;
typedef float First;
typedef float Second;

struct Pointers {
  const Q* q;
  const K* k;
  const V* v;
  const DOut* d_out;
  const int* documents;
  // Of each query and head: minus its log-sum-exp times log2 e, and do o. Made with dq.
  float2* stats;
  const Out* out;
  const float* lse;
  First* dq;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL_NAME(Pointers at, int t, int window) {
  extern __shared__ __align__(16) float shared[];
  float* own_first = shared;
  float* own_second = own_first + ROWS * PITCH;
  float* first = own_second + ROWS * PITCH;
  float* second = first + COLUMNS * PITCH;
  float* exchange = second + COLUMNS * PITCH;
  // Of the columns, where these are queries.
  float2* stats = (float2*)(exchange + ROWS * WEIGHTS_PITCH);
  unsigned short* list = (unsigned short*)(stats + COLUMNS);

  const Place here = place(t, OWNS_KEYS ? KEY_HEADS : HEADS);
  const int row = here.row;
  const i64 positions = (i64)here.sequence * t;
  const int key_head = OWNS_KEYS ? here.head : here.head / GROUP;
  const i64 first_key = (positions * KEY_HEADS + key_head) * DIM;
  const Sight sight = {t, whole(window, t), at.documents + positions};
  const Tiles tiles(sight, row, list);


  const i64 first_query = (positions * HEADS + here.head) * DIM;
  load_tile<ROWS>(own_first, at.q + first_query, HEADS, row, t);
  load_tile<ROWS>(own_second, at.d_out + first_query, HEADS, row, t);
  // Of this thread's rows.
  float2 numbers[R];
#pragma unroll
  for (int i = 0; i < R; i++) {
    const int position = row + team() + i * TEAMS;
    numbers[i] = make_float2(-INF, 0);
    if (position < t) {
      const i64 start = first_query + (i64)position * HEADS * DIM;
      for (int c = lane(); c < DIM; c += LANES)
        numbers[i].y = fmaf(to_f32(at.out[start + c]), to_f32(at.d_out[start + c]), numbers[i].y);
    }
    numbers[i].y = team_fold<Sum, LANES>(numbers[i].y);
    if (position < t) {
      const i64 place = (positions + position) * HEADS + here.head;
      const float lse = at.lse[place];
      if (lse != -INF) numbers[i].x = -lse * LOG2_E;
      if (lane() == 0) at.stats[place] = numbers[i];
    }
  }

  float first_sums[R][FOURS][4] = {};

  for (int from = tiles.first; from < tiles.last; from += tiles.step()) {
    const int found = tiles.find(sight, from);
    // All tiles for one query head after another.
    for (int visit = 0; visit < (OWNS_KEYS ? GROUP * found : found); visit++) {
      const Tile tile = tiles.at(from, visit % found);
      __syncthreads();

      load_tile<COLUMNS>(first, at.k + first_key, KEY_HEADS, tile.column, t);
      load_tile<COLUMNS>(second, at.v + first_key, KEY_HEADS, tile.column, t);

      __syncthreads();

      float weights[R][C], slopes[R][C];
      multiply_heads(weights, own_first, first);
      multiply_heads(slopes, own_second, second);
#pragma unroll
      for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++) {
          const float2 of = numbers[i];
          weights[i][j] = exp_2(weights[i][j] * SCALE_2 + of.x);
          slopes[i][j] -= of.y;
        }
      if (!tile.same || !sight.all(row, tile.column)) hide(weights, sight, row, tile.column, 0);
#pragma unroll
      for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++)
          // What is not seen has no slope, not even where it is no number.
          slopes[i][j] = weights[i][j] == 0.0f ? 0.0f : slopes[i][j] * weights[i][j];
      multiply_rows(first_sums, slopes, first, exchange);

    }
  }


  store_tile(at.dq + first_query, HEADS, row, t, first_sums, SCALE);

}
