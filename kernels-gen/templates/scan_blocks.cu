// {{ what }}
//
// A line of `length` positions, `inner` elements apart, is cut into chunks. With `sums_only` it makes the sum of each chunk;
// then a second call starts each chunk with the sums of those before it, in order.
{% include "pointers.cu" %}
typedef {{ index }} Index;
typedef {{ register }} Register;
constexpr int THREADS = {{ threads }}, WARPS = THREADS / 32;
constexpr bool REVERSE = {{ reverse }};

// The sum of this thread's number and those of all threads before it; `total` is that of all.
__device__ __forceinline__ Register block_scan(Register x, Register* total) {
  __shared__ Register of_warp[WARPS];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Register before = __shfl_up_sync(0xffffffffu, x, step);
    if (threadIdx.x % 32 >= step) x = Sum::of(before, x);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 31) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  Register before = 0, all = 0;
#pragma unroll
  for (int warp = 0; warp < WARPS; ++warp) {
    if (warp == threadIdx.x / 32) before = all;
    all = Sum::of(all, of_warp[warp]);
  }
  *total = all;
  return Sum::of(before, x);
}

// A block has a chunk of a line, THREADS positions at a time.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const Index line = blockIdx.x / chunks;
  const u32 chunk = blockIdx.x % chunks;
  const Index first = line / inner * length * inner + line % inner;
  const u32 from = chunk * chunk_length, end = from + chunk_length < length ? from + chunk_length : length;
  Register carry = 0;
  if (!sums_only) {
    for (u32 before = threadIdx.x; before < chunk; before += THREADS) carry = Sum::of(carry, p.sums[line * chunks + before]);
    if (chunk > 0) carry = team_fold<Sum, THREADS>(carry);
  }
  for (u32 start = from; start < end; start += THREADS) {
    const u32 t = start + threadIdx.x;
    const Index at = first + (Index)(REVERSE ? length - 1 - t : t) * inner;
    Register total;
    const Register sum = block_scan(t < end ? widen(p.a0[at]) : 0, &total);
    if (!sums_only && t < end) p.r0[at] = narrow<{{ to }}>(Sum::of(carry, sum));
    carry = Sum::of(carry, total);
  }
  if (sums_only && threadIdx.x == 0) p.sums[line * chunks + chunk] = carry;
}
