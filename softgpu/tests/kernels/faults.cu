// Kernels with one fault each, and their healthy twins (the same name with _ok).
#define K extern "C" __global__ void
typedef unsigned u32;
#define T threadIdx.x
#define G (blockIdx.x * blockDim.x + threadIdx.x)

K bounds(float* a, u32 n) { if (G <= n) a[G] = 1; }
K bounds_ok(float* a, u32 n) { if (G < n) a[G] = 1; }

K bounds_read(float* a, float* b, u32 n) { if (G < n) b[G] = a[G + 1]; }
K bounds_read_ok(float* a, float* b, u32 n) { if (G < n) b[G] = a[G]; }

K bounds_shared(float* a, u32 n) { extern __shared__ float s[]; s[T + n] = 1; __syncthreads(); a[G] = s[T + n]; }
K bounds_shared_ok(float* a, u32 n) { extern __shared__ float s[]; s[T] = 1; __syncthreads(); a[G] = s[T]; }

K alignment(float* a, u32 n) { if (T == 0) *(float4*)(a + n) = make_float4(1, 2, 3, 4); }
K alignment_ok(float* a, u32 n) { if (T == 0) *(float4*)(a + n / 4 * 4) = make_float4(1, 2, 3, 4); }

K uninitialised(float* a, float* b, u32 n) { if (G < n) b[G] = a[G]; }
K uninitialised_ok(float* a, float* b, u32 n) { if (G < n) { a[G] = 1; b[G] = a[G]; } }

K uninitialised_shared(float* a, u32 n) {
  __shared__ float s[128];
  if (T < n) s[T] = T;
  __syncthreads();
  a[G] = s[T];
}
K uninitialised_shared_ok(float* a, u32 n) {
  __shared__ float s[128];
  s[T] = T;
  __syncthreads();
  a[G] = s[T];
}

// Write, then read by another warp.
K shared_race(float* a, u32 n) {
  __shared__ float s[128];
  s[T] = 0;
  __syncthreads();
  s[T] = T;
  a[G] = s[(T + 32) & 127];
}
K shared_race_ok(float* a, u32 n) {
  __shared__ float s[128];
  s[T] = 0;
  __syncthreads();
  s[T] = T;
  __syncthreads();
  a[G] = s[(T + 32) & 127];
}
// Read, then overwritten by another warp.
K shared_race_read(float* a, u32 n) {
  __shared__ float s[128];
  s[T] = T;
  __syncthreads();
  float x = s[(T + 32) & 127];
  s[T] = x;
  __syncthreads();
  a[G] = s[T];
}
K shared_race_read_ok(float* a, u32 n) {
  __shared__ float s[128];
  s[T] = T;
  __syncthreads();
  float x = s[(T + 32) & 127];
  __syncthreads();
  s[T] = x;
  __syncthreads();
  a[G] = s[T];
}
// Counted by atomics, read by another warp.
K shared_atomic(float* a, u32 n) {
  __shared__ u32 bins[128];
  bins[T] = 0;
  __syncthreads();
  atomicAdd(&bins[T * 5 & 127], 1);
  a[G] = bins[(T + 32) & 127];
}
K shared_atomic_ok(float* a, u32 n) {
  __shared__ u32 bins[128];
  bins[T] = 0;
  __syncthreads();
  atomicAdd(&bins[T * 5 & 127], 1);
  __syncthreads();
  a[G] = bins[(T + 32) & 127];
}
// Two bytes of one word, written by two warps, are no race.
K shared_bytes_ok(float* a, u32 n) {
  __shared__ volatile unsigned char s[128];
  u32 place = (T & 31) * 4 + T / 32;
  s[place] = T;
  __syncthreads();
  a[G] = s[T];
}

// All blocks write one word.
K global_race(float* a, u32 n) { if (T == 0) a[0] = blockIdx.x; }
K global_race_ok(float* a, u32 n) { if (T == 0) atomicAdd(a, 1.f); }
// One block reads what another wrote.
K global_race_read(float* a, float* b, u32 n) { a[G] = G; b[G] = a[(G + blockDim.x) % n]; }
K global_race_read_ok(float* a, float* b, u32 n) { a[G] = G; b[G] = a[G]; }
// The last block sums what the others wrote: needs fences.
K last_block(float* a, float* out, u32* counter, u32 n) {
  __shared__ bool last;
  if (T == 0) { a[blockIdx.x] = 1; last = atomicAdd(counter, 1) == gridDim.x - 1; }
  __syncthreads();
  if (last && T == 0) { float s = 0; for (u32 i = 0; i < gridDim.x; i++) s += a[i]; *out = s; }
}
K last_block_ok(float* a, float* out, u32* counter, u32 n) {
  __shared__ bool last;
  if (T == 0) { a[blockIdx.x] = 1; __threadfence(); last = atomicAdd(counter, 1) == gridDim.x - 1; __threadfence(); }
  __syncthreads();
  if (last && T == 0) { float s = 0; for (u32 i = 0; i < gridDim.x; i++) s += a[i]; *out = s; }
}
// Halves of one word written by two blocks are no race.
K global_halves_ok(unsigned short* a, u32 n) { if (T == 0) a[blockIdx.x] = blockIdx.x; }
// Blocks read halves of words before they write their own: those of their neighbours, or their own.
K global_halves_read(unsigned short* a, u32 n) { if (T == 0) a[blockIdx.x] = a[blockIdx.x ^ 1] + 1; }
K global_halves_read_ok(unsigned short* a, u32 n) { if (T == 0) a[blockIdx.x] = a[blockIdx.x] + 1; }
// A chain of blocks, each waiting for the one before: needs a machine that lets them all come to it.
K chain(volatile float* a, volatile u32* flag, u32 n) {
  if (T == 0) {
    u32 i = gridDim.x - 1 - blockIdx.x;
    if (i) while (flag[i - 1] == 0) ;
    a[i] = i ? a[i - 1] + 1 : 1;
    flag[i] = 1;
  }
}
K chain_ok(volatile float* a, volatile u32* flag, u32 n) {
  if (T == 0) {
    u32 i = gridDim.x - 1 - blockIdx.x;
    if (i) while (flag[i - 1] == 0) ;
    __threadfence();
    a[i] = i ? a[i - 1] + 1 : 1;
    __threadfence();
    flag[i] = 1;
  }
}

K barrier_divergent(float* a, u32 n) {
  __shared__ volatile float s[128];
  s[T] = T;
  if ((T & 31) < n) asm volatile("bar.sync 0;" ::: "memory");
  a[G] = s[T];
}
K barrier_divergent_ok(float* a, u32 n) {
  __shared__ volatile float s[128];
  s[T] = T;
  if (T / 32 < n) asm volatile("bar.sync 0;" ::: "memory"); else asm volatile("bar.sync 0;" ::: "memory");
  a[G] = s[T];
}
// Half of each warp goes another way, to another barrier.
K barrier_other(float* a, u32 n) {
  if ((T & 31) < n) { a[G] = 1; asm volatile("bar.sync 0;" ::: "memory"); a[G] = 2; }
  else { a[G] = 3; asm volatile("bar.sync 1;" ::: "memory"); a[G] = 4; }
}
// Lanes that end are not waited for, however long their way to the end.
K barrier_other_ok(float* a, u32 n) {
  if ((T & 31) < n) { a[G] = 1; for (u32 i = 0; i < T; i++) a[G] += 1; return; }
  asm volatile("bar.sync 0;" ::: "memory");
  a[G] = 4;
}
// The second half waits for a producer that never arrives.
K deadlock(float* a, u32 n) {
  if (T >= 64) asm volatile("bar.sync 1, 128;" ::: "memory");
  a[G] = 1;
}
K deadlock_ok(float* a, u32 n) {
  __shared__ volatile float s[64];
  if (T < 64) { s[T] = T; asm volatile("bar.arrive 1, 128;" ::: "memory"); a[G] = 0; }
  else { asm volatile("bar.sync 1, 128;" ::: "memory"); a[G] = s[T - 64]; }
}
K spin(volatile u32* flag, u32 n) { if (T == 0) while (flag[0] != n) ; }
// One lane waits for another of its warp, which comes later.
K spin_lane_ok(volatile u32* flag, u32 n) {
  if (T == 0) while (flag[0] != n) ;
  if (T == 1) flag[0] = n;
}
// One lane of a warp waits for another block, or for a lane of its own warp, then all work together.
K wait_then_product_ok(volatile u32* flag, float* out, u32 n) {
  if (blockIdx.x == 0 && T == 0) while (*flag == 0) ;
  if (n & 2) {
    if (T == 0) while (flag[1 + blockIdx.x] == 0) ;
    if (T == 1) flag[1 + blockIdx.x] = 1;
  }
  if (n & 1) __syncthreads();
  float a = 1, b = 1, c = 1, d = 1;
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%4}, {%4}, {%0,%1,%2,%3};"
               : "+f"(a), "+f"(b), "+f"(c), "+f"(d) : "r"(0));
  __syncwarp();
  out[G] = a;
  if (blockIdx.x == 1 && T == 0) *flag = 1;
}
// Waits for a plain read, which the compiler makes once.
K spin_plain(u32* flag, u32 n) { if (T == 0) while (flag[0] != n) ; }
K spin_ok(volatile u32* flag, u32 n) {
  if (T == 0) while (flag[0] != n) ;
  if (T == 64) flag[0] = n;
}

__device__ void copy16(void* to, const void* from) {
  u32 s = (u32)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(s), "l"(from) : "memory");
}
K async_copy(float4* a, float4* b, u32 n) {
  __shared__ float4 s[128];
  copy16(&s[T], a + T);
  asm volatile("cp.async.commit_group;" ::: "memory");
  b[T] = s[T];
}
K async_copy_ok(float4* a, float4* b, u32 n) {
  __shared__ float4 s[128];
  copy16(&s[T], a + T);
  asm volatile("cp.async.commit_group;" ::: "memory");
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  b[T] = s[T];
}
// Waited for one group of two.
K async_group(float4* a, float4* b, u32 n) {
  __shared__ float4 s[256];
  copy16(&s[T], a + T);
  asm volatile("cp.async.commit_group;" ::: "memory");
  copy16(&s[T + 128], a + T);
  asm volatile("cp.async.commit_group;" ::: "memory");
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  b[T] = s[T + 128];
}
K async_group_ok(float4* a, float4* b, u32 n) {
  __shared__ float4 s[256];
  copy16(&s[T], a + T);
  asm volatile("cp.async.commit_group;" ::: "memory");
  copy16(&s[T + 128], a + T);
  asm volatile("cp.async.commit_group;" ::: "memory");
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  b[T] = s[T];
}
// Waited for, but read by another warp without a barrier.
K async_barrier(float4* a, float4* b, u32 n) {
  __shared__ float4 s[128];
  s[T] = make_float4(0, 0, 0, 0);
  __syncthreads();
  copy16(&s[T], a + T);
  asm volatile("cp.async.wait_all;" ::: "memory");
  b[T] = s[(T + 32) & 127];
}
K async_barrier_ok(float4* a, float4* b, u32 n) {
  __shared__ float4 s[128];
  s[T] = make_float4(0, 0, 0, 0);
  __syncthreads();
  copy16(&s[T], a + T);
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  b[T] = s[(T + 32) & 127];
}

K trap(float* a, u32 n) { if (G == n) asm volatile("trap;"); a[G] = 1; }
K trap_ok(float* a, u32 n) { if (G > n) asm volatile("trap;"); a[G] = 1; }

__constant__ float table[4] = {1, 2, 3, 4};
K constants_ok(float* a, u32 n) { a[G] = table[G & 3]; }

// A mask that names lanes which never come.
K shuffle(u32* a, u32 n) {
  u32 v = 0;
  if ((T & 31) < n) v = __shfl_sync(~0u, T, 0);
  __syncthreads();
  a[G] = v;
}
K shuffle_ok(u32* a, u32 n) {
  u32 v = __shfl_sync(~0u, T, 0);
  if ((T & 31) >= n) v = 0;
  __syncthreads();
  a[G] = v;
}

// Some lanes end while others wait for them at a warp-wide operation: that is allowed.
K early_exit_ok(u32* a, u32 n) {
  if ((T & 31) >= n) { a[G] = 7; asm volatile("exit;"); }
  a[G] = __reduce_add_sync(~0u, 1);
}
