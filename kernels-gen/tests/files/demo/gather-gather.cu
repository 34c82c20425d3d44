// rows of a table
//
// Each row of the result is the row of the table that its index names, or zeros where there is none.
struct Pointers {
  const Vec<u32, 4>* from;
  const int* index;
  Vec<u32, 4>* to;
};

typedef u32 Index;
typedef Vec<u32, 4> Unit;
constexpr int THREADS = 256, ROW = 32;

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const u32 count, const u32 rows) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index i = (Index)blockIdx.x * THREADS + threadIdx.x;
  if (i >= count) return;
  const u32 row = (u32)p.index[i / ROW];
  Unit unit = {};
  if (row < rows) unit = p.from[(Index)row * ROW + i % ROW];
  p.to[i] = unit;
}
