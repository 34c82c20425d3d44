// mean of float to float
//
// Axes that stay and axes that are folded take turns. Blocks fold COLUMNS results, each by ROWS threads, the neighbours
// among them where neighbours lie in memory; a block of gridDim.x = tiles * slices has one slice of what is folded.
struct Pointers {
  const float* a0;
  float* to;
};

typedef u32 Index;
typedef float Register;
constexpr int THREADS = 256, COLUMNS = 1, ROWS = THREADS / COLUMNS;
constexpr int KEPT = 1, FOLDED = 1;
constexpr bool ALONG_COLUMNS = false;
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

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const Axes axes, const u32 results, const u32 terms, const u32 slice_length, const float count) {
  const Pointers p = table ? table[blockIdx.y] : one;
  __shared__ Register parts[THREADS];
  const int column = ALONG_COLUMNS ? threadIdx.x % COLUMNS : threadIdx.x / ROWS;
  const int row = ALONG_COLUMNS ? threadIdx.x / COLUMNS : threadIdx.x % ROWS;
  const Index tiles = (results + COLUMNS - 1) / COLUMNS;
  const Index result = blockIdx.x % tiles * COLUMNS + column, slice = blockIdx.x / tiles;
  Register total = 0.0f;
  if (result < results) {
    const Index base = place(result, axes.kept, axes.kept_by);
    const Index from = slice * slice_length, end = from + slice_length < terms ? from + slice_length : terms;
    for (Index i = from + row; i < end; i += ROWS) {
      const Register x = widen(p.a0[base + place(i, axes.folded, axes.folded_by)]);
      total = Sum::of(total, x);
    }
  }
  parts[column * ROWS + row] = total;
#pragma unroll
  for (int half = ROWS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half) parts[column * ROWS + row] = Sum::of(parts[column * ROWS + row], parts[column * ROWS + row + half]);
  }
  if (row == 0 && result < results) p.to[slice * results + result] = narrow<float>(parts[column * ROWS] / (float)count);
}
