// transpose
//
// Rows lie side by side in the operand, columns in the result: squares of both go through shared memory. RANK more axes
// have strides in both.
struct Pointers {
  const u32* from;
  u32* to;
};

typedef u32 Index;
typedef u32 Unit;
constexpr int THREADS = 256, RANK = 0, TILE = 32, WARPS = THREADS / 32;
struct Axes { u32 rows, columns, from_column, to_row, size[RANK + 1], from[RANK + 1], to[RANK + 1]; };

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const Axes axes) {
  const Pointers p = table ? table[blockIdx.y] : one;
  // A column of a square is spread over all banks.
  __shared__ Unit tile[TILE][TILE + 1];
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const u32 down = (axes.rows + TILE - 1) / TILE, across = (axes.columns + TILE - 1) / TILE;
  u32 rest = blockIdx.x;
  const u32 row = rest % down * TILE;
  rest /= down;
  const u32 column = rest % across * TILE;
  rest /= across;
  Index from = row + (Index)column * axes.from_column, to = (Index)row * axes.to_row + column;
#pragma unroll
  for (int axis = RANK - 1; axis >= 0; --axis) {
    const u32 position = rest % axes.size[axis];
    rest /= axes.size[axis];
    from += (Index)position * axes.from[axis];
    to += (Index)position * axes.to[axis];
  }
#pragma unroll
  for (u32 k = warp; k < TILE; k += WARPS)
    if (row + lane < axes.rows && column + k < axes.columns) tile[k][lane] = p.from[from + (Index)k * axes.from_column + lane];
  __syncthreads();
#pragma unroll
  for (u32 k = warp; k < TILE; k += WARPS)
    if (row + k < axes.rows && column + lane < axes.columns) p.to[to + (Index)k * axes.to_row + lane] = tile[lane][k];
}
