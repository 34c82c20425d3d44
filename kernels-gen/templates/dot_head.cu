struct Pointers {
{%- for pointer in pointers %}
  {{ pointer }};
{%- endfor %}
};

// How an operand lies, in elements: between matrices, rows of the product (or its columns), and terms of the sums.
struct Strides { u64 batch, row, inner; };
struct Sizes { u32 m, n, k, batch, splits, tiles_m, tiles_n; };
constexpr int BM = {{ bm }}, BN = {{ bn }}, BK = {{ bk }}, THREADS = {{ threads }};
// Elements of a result that a thread handles at once; a divisor of n.
constexpr int V = {{ vec }};
// The product is symmetric: tiles above the diagonal are those below it, turned round.
constexpr bool SYMMETRIC = {{ symmetric }};
// Blocks share the sum of a tile; the last one to finish adds their parts up in order.
constexpr bool SPLIT = {{ split }};

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
