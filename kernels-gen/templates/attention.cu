// What all attention kernels share. A block owns ROWS positions of one head (queries; keys where OWNS_KEYS) and walks over
// tiles of COLUMNS positions of the other side.
constexpr bool OWNS_KEYS = {{ owns_keys }};
constexpr bool CAUSAL = {{ causal }};
constexpr bool DOCUMENTS = {{ documents }};
constexpr bool WINDOW = {{ window != "none" }};
constexpr int HEADS = {{ heads }};
constexpr int KEY_HEADS = {{ key_heads }};
constexpr int GROUP = HEADS / KEY_HEADS;
constexpr int DIM = {{ dim }};
constexpr int ROWS = {{ rows }};
constexpr int COLUMNS = {{ columns }};
constexpr int THREADS = {{ threads }};
constexpr int WARPS = THREADS / 32;
// Tiles whose documents are looked at together.
constexpr int ROUND = {{ round }};
constexpr float SCALE = {{ scale }}f;
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
