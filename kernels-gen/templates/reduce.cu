// {{ what }}
//
// Axes that stay and axes that are folded take turns. Blocks fold COLUMNS results, each by ROWS threads, the neighbours
// among them where neighbours lie in memory; a block of gridDim.x = tiles * slices has one slice of what is folded.
{% include "pointers.cu" %}
typedef {{ index }} Index;
typedef {{ register }} Register;
constexpr int THREADS = {{ threads }}, COLUMNS = {{ columns }}, ROWS = THREADS / COLUMNS;
constexpr int KEPT = {{ kept }}, FOLDED = {{ folded }};
constexpr bool ALONG_COLUMNS = {{ along_columns }};
struct Axes { u32 kept[KEPT], kept_by[KEPT], folded[FOLDED], folded_by[FOLDED]; };

// The place of element i of some axes.
template <int RANK> __device__ __forceinline__ Index place(Index i, const u32 (&size)[RANK], const u32 (&by)[RANK]) {
  Index at = 0;
#pragma unroll
  for (int axis = RANK - 1; axis > 0; --axis) {
    at += i % size[axis] * by[axis];
    i /= size[axis];
  }
  return at + i * by[0];
}

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  __shared__ Register parts[THREADS];
  const int column = ALONG_COLUMNS ? threadIdx.x % COLUMNS : threadIdx.x / ROWS;
  const int row = ALONG_COLUMNS ? threadIdx.x / COLUMNS : threadIdx.x % ROWS;
  const Index tiles = (results + COLUMNS - 1) / COLUMNS;
  const Index result = blockIdx.x % tiles * COLUMNS + column, slice = blockIdx.x / tiles;
  Register total = {{ neutral }};
  if (result < results) {
    const Index base = place(result, axes.kept, axes.kept_by);
    const Index from = slice * slice_length, end = from + slice_length < terms ? from + slice_length : terms;
    for (Index i = from + row; i < end; i += ROWS) {
      const Register x = widen(p.a0[base + place(i, axes.folded, axes.folded_by)]);
      total = {{ fold }}::of(total, {{ element }});
    }
  }
  parts[column * ROWS + row] = total;
#pragma unroll
  for (int half = ROWS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half) parts[column * ROWS + row] = {{ fold }}::of(parts[column * ROWS + row], parts[column * ROWS + row + half]);
  }
  if (row == 0 && result < results) p.to[slice * results + result] = narrow<{{ to }}>({{ finished }});
}
