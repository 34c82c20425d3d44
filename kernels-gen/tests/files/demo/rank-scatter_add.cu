// places of sorted tokens among all
//
// The rank of a key among all chunks: so many keys are below it. Threads 0 to `rows` rank the beginning of each row of the
// table, the others the tokens, which go to the place that is their rank.
struct Pointers {
  const u64* keys;
  u32* order;
  u32* starts;
};

constexpr int THREADS = 256, CHUNK = 2048;

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const u32 rows, const u32 chunks) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const u32 i = blockIdx.x * THREADS + threadIdx.x, places = chunks * CHUNK;
  if (i > rows && i - rows - 1 >= places) return;
  const u64 key = i <= rows ? (u64)i << 32 : p.keys[i - rows - 1];
  const u32 row = (u32)(key >> 32);
  if (row > rows) return;
  u32 rank = 0;
  for (u32 chunk = 0; chunk < chunks; ++chunk) {
    const u64* const keys = p.keys + (u64)chunk * CHUNK;
    u32 below = 0;
#pragma unroll
    for (u32 step = CHUNK / 2; step > 0; step /= 2)
      if (keys[below + step - 1] < key) below += step;
    rank += below + (keys[below] < key);
  }
  if (i <= rows) p.starts[i] = rank;
  else p.order[rank] = (u32)key;
}
