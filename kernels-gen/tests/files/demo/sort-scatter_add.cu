// tokens by index, chunk by chunk
//
// A key is a row of the table, then the number of the token that goes there, so that all keys differ. Each block sorts a
// chunk of CHUNK of them. Tokens that go nowhere, and places behind the last token, stand at the end.
struct Pointers {
  const int* index;
  u64* keys;
};

constexpr int THREADS = 1024, CHUNK = 2048;

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const u32 tokens, const u32 rows) {
  const Pointers p = table ? table[blockIdx.y] : one;
  __shared__ u64 keys[CHUNK];
  const u32 first = blockIdx.x * CHUNK;
  for (u32 i = threadIdx.x; i < CHUNK; i += THREADS) {
    const u32 token = first + i;
    u32 row = 0xffffffffu;
    if (token < tokens && (u32)p.index[token] < rows) row = (u32)p.index[token];
    keys[i] = (u64)row << 32 | token;
  }
  // Bitonic: runs of `size` are sorted up and down in turn.
  for (u32 size = 2; size <= CHUNK; size *= 2)
    for (u32 step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (u32 pair = threadIdx.x; pair < CHUNK / 2; pair += THREADS) {
        const u32 i = pair / step * step * 2 + pair % step, j = i + step;
        const u64 a = keys[i], b = keys[j];
        if ((a > b) == ((i & size) == 0)) keys[i] = b, keys[j] = a;
      }
    }
  __syncthreads();
  for (u32 i = threadIdx.x; i < CHUNK; i += THREADS) p.keys[first + i] = keys[i];
}
