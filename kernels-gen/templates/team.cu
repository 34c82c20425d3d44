// Folds over the threads of a team: 1 to 32 neighbours of a warp, or a whole block of several warps. Every thread of the
// team gets the result, and the order of the fold is always the same.
struct Sum {
  __device__ static float of(float a, float b) { return a + b; }
  __device__ static double of(double a, double b) { return a + b; }
  __device__ static int of(int a, int b) { return i_add(a, b); }
};
struct Max {
  __device__ static float of(float a, float b) { return f_max(a, b); }
  __device__ static int of(int a, int b) { return i_max(a, b); }
};
struct Min {
  __device__ static float of(float a, float b) { return f_min(a, b); }
  __device__ static int of(int a, int b) { return i_min(a, b); }
};

template <int TEAM> __device__ __forceinline__ u32 team_mask() {
  return TEAM >= 32 ? 0xffffffffu : ((1u << (TEAM & 31)) - 1) << (threadIdx.x % 32 / TEAM * TEAM);
}

template <int TEAM> __device__ __forceinline__ void team_sync() {
  if (TEAM > 32) __syncthreads();
  else if (TEAM > 1) __syncwarp(team_mask<TEAM>());
}

template <class Op, int TEAM, class R> __device__ __forceinline__ R team_fold(R x) {
#pragma unroll
  for (int step = 1; step < (TEAM < 32 ? TEAM : 32); step *= 2)
    x = Op::of(x, __shfl_xor_sync(team_mask<TEAM>(), x, step));
  if (TEAM > 32) {
    __shared__ R of_warp[TEAM > 32 ? TEAM / 32 : 1];
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    x = of_warp[0];
    for (int i = 1; i < TEAM / 32; ++i) x = Op::of(x, of_warp[i]);
  }
  return x;
}

// Whether this block is the last of its launch to come here. What the others wrote before they came is seen then.
__device__ __forceinline__ bool is_last_block(u32* counter, u32 blocks) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(counter, 1u) == blocks - 1;
    if (is_last) atomicExch(counter, 0u);
  }
  __syncthreads();
  if (is_last) __threadfence();
  return is_last;
}
