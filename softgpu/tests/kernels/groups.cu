// One kernel or more for each group of instructions that works across lanes, warps or blocks.
#define K extern "C" __global__ void
typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned short u16;
#define T threadIdx.x
#define G (blockIdx.x * blockDim.x + threadIdx.x)

K shuffles(const u32* in, const u32* lane, u32* out) {
  u32 v = in[G], l = lane[G];
  u32 w = 1 << (blockIdx.x % 6);
  out[G * 4 + 0] = __shfl_sync(~0u, v, l, w);
  out[G * 4 + 1] = __shfl_up_sync(~0u, v, l & 31, w);
  out[G * 4 + 2] = __shfl_down_sync(~0u, v, l & 31, w);
  out[G * 4 + 3] = __shfl_xor_sync(~0u, v, l & 31, w);
}

// Parts of n lanes of a warp, each at work on its own: part i goes round i + 1 times.
__device__ u32 part_of(u32 n) { return (n < 32 ? (1u << n) - 1 : ~0u) << (T % 32 / n * n); }
K parts(const u32* in, u32* out, u32 n) {
  u32 part = part_of(n), v = in[G], sum = 0;
  for (u32 turn = 0; turn <= T % 32 / n; turn++) {
    sum = sum * 3 + __shfl_xor_sync(part, v + turn, n / 2);
    sum = sum * 3 + __ballot_sync(part, v >> turn & 1);
    sum = sum * 3 + __match_any_sync(part, v & 3);
    sum = sum * 3 + __reduce_add_sync(part, v);
    __syncwarp(part);
  }
  out[G] = sum;
}
// Lanes that ask the next part.
K parts_across(const u32* in, u32* out, u32 n) { out[G] = __shfl_xor_sync(part_of(n), in[G], n); }
// Lanes that name the next part instead of their own.
K parts_of_others(const u32* in, u32* out, u32 n) {
  u32 part = part_of(n);
  out[G] = __ballot_sync(part << n | part >> (32 - n), in[G] & 1);
}

K votes(const u32* in, u32* out) {
  u32 v = in[G];
  out[G * 8 + 0] = __all_sync(~0u, v & 1);
  out[G * 8 + 1] = __any_sync(~0u, v & 1);
  out[G * 8 + 2] = __ballot_sync(~0u, v & 1);
  out[G * 8 + 3] = __match_any_sync(~0u, v & 3);
  int p;
  u32 m = __match_all_sync(~0u, v >> 31, &p);
  out[G * 8 + 4] = m + p;
  out[G * 8 + 5] = __reduce_add_sync(~0u, v);
  out[G * 8 + 6] = __reduce_max_sync(~0u, (int)v);
  out[G * 8 + 7] = __reduce_xor_sync(~0u, v);
}

// Half of the lanes leave early: the others go on among themselves.
K some_lanes(const u32* in, u32* out) {
  u32 v = in[G];
  u32 mask = __ballot_sync(~0u, v & 1);
  if (!(v & 1)) { out[G] = 0; return; }
  out[G] = __reduce_add_sync(mask, v >> 8) + __popc(__activemask() & ~mask);
}

K loops(const u32* in, u32* out) {
  u32 n = in[G] & 63, s = 0;
  for (u32 i = 0; i < n; i++) { if (i & 1) s += i; else if (i % 3 == 0) s ^= i << 8; else { s = s * 3 + 1; if (s > 100000) break; } }
  switch (in[G] >> 8 & 7) { case 0: s += 1; break; case 1: s *= 7; break; case 2: s ^= 5; case 3: s += 9; break; case 4: s = ~s; break; case 5: s = s << 3; break; case 6: s -= 77; break; default: s = 0; }
  out[G] = s;
}

K atomics(u32* c, float* f, u64* w, int* e, const u32* in) {
  u32 v = in[G];
  atomicAdd(&c[0], v & 0xff);
  atomicMax(&c[1], v);
  atomicMin(&c[2], v);
  atomicXor(&c[3], v);
  atomicOr(&c[4], 1u << (v & 31));
  atomicAnd(&c[5], ~(1u << (v & 31)));
  atomicInc(&c[6], 1000);
  atomicAdd(f, 1.f);
  atomicAdd(w, (u64)v);
  atomicMax(e, (int)v);
  // Compare and swap: a lock-free count.
  u32 old = c[7], seen;
  do { seen = old; old = atomicCAS(&c[7], seen, seen + 3); } while (old != seen);
}

K shared_atomics(u32* out, const u32* in) {
  __shared__ u32 bins[16];
  __shared__ float sum;
  if (T < 16) bins[T] = 0;
  if (T == 16) sum = 0;
  __syncthreads();
  atomicAdd(&bins[in[G] & 15], 1);
  atomicAdd(&sum, 0.5f);
  __syncthreads();
  if (T < 16) out[blockIdx.x * 17 + T] = bins[T];
  if (T == 16) out[blockIdx.x * 17 + 16] = (u32)sum;
}

K barriers(u32* out) {
  __shared__ u32 s[256];
  s[T] = T;
  int all = __syncthreads_and(T < 256), any = __syncthreads_or(T == 77), n = __syncthreads_count(T % 3 == 0);
  u32 v = s[T ^ 127];
  asm volatile("bar.sync %0, 128;" :: "r"(T / 128 + 1));
  s[T] = v + all + any * 10 + n * 100;
  asm volatile("bar.sync %0, 128;" :: "r"(T / 128 + 1));
  out[T] = s[T ^ 127];
}

__noinline__ __device__ u32 helper(u32 a, float b) { return a * 3 + (u32)b; }
__noinline__ __device__ float2 pair(float a) { return make_float2(a + 1, a * 2); }
K calls(u32* out) {
  float2 p = pair((float)T);
  u32 x = T & 1 ? helper(T, p.x) : helper(T + 100, p.y);
  out[G] = x;
}

// A table in local memory, indexed by a value that the compiler does not know.
K locals(const u32* in, u32* out) {
  u32 t[16];
  for (int i = 0; i < 16; i++) t[i] = in[(G + i) & 127] + i;
  u32 s = 0;
  for (int i = 0; i < 16; i++) s = s * 31 + t[in[G] + i & 15];
  out[G] = s;
}

__constant__ u32 squares[8] = {0, 1, 4, 9, 16, 25, 36, 49};
__device__ u32 cubes[8] = {0, 1, 8, 27, 64, 125, 216, 343};
__device__ const u32* where = cubes + 2;
K tables(u32* out) { out[T] = squares[T & 7] + cubes[T & 7] * 1000 + *where * 1000000; }

struct Big { u32 a[6]; float4 v; unsigned char c; };
K parameters(u32* out, const __grid_constant__ Big b, u16 h, double d) { out[T] = b.a[T % 6] + (u32)b.v.z + b.c + h + (u32)d; }

#define MMA(name, shape, types, na, nb) K name(const u32* a, const u32* b, const float* c, float* d) { \
  u32 A[4], B[2]; float C[4], D[4]; \
  for (int i = 0; i < na; i++) A[i] = a[G * na + i]; \
  for (int i = 0; i < nb; i++) B[i] = b[G * nb + i]; \
  for (int i = 0; i < 4; i++) C[i] = c[G * 4 + i]; \
  MMA_##na("mma.sync.aligned." shape ".row.col." types) \
  for (int i = 0; i < 4; i++) d[G * 4 + i] = D[i]; }
#define MMA_4(op) asm volatile(op " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};" \
  : "=f"(D[0]), "=f"(D[1]), "=f"(D[2]), "=f"(D[3]) : "r"(A[0]), "r"(A[1]), "r"(A[2]), "r"(A[3]), "r"(B[0]), "r"(B[1]), "f"(C[0]), "f"(C[1]), "f"(C[2]), "f"(C[3]));
#define MMA_2(op) asm volatile(op " {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};" \
  : "=f"(D[0]), "=f"(D[1]), "=f"(D[2]), "=f"(D[3]) : "r"(A[0]), "r"(A[1]), "r"(B[0]), "f"(C[0]), "f"(C[1]), "f"(C[2]), "f"(C[3]));
MMA(mma_bf16, "m16n8k16", "f32.bf16.bf16.f32", 4, 2)
MMA(mma_f16, "m16n8k16", "f32.f16.f16.f32", 4, 2)
MMA(mma_bf16_k8, "m16n8k8", "f32.bf16.bf16.f32", 2, 1)
MMA(mma_f16_k8, "m16n8k8", "f32.f16.f16.f32", 2, 1)
#if __CUDA_ARCH__ >= 890
MMA(mma_e4m3, "m16n8k32", "f32.e4m3.e4m3.f32", 4, 2)
MMA(mma_e5m2, "m16n8k32", "f32.e5m2.e5m2.f32", 4, 2)
#endif

K matrices(const u16* in, u32* out) {
  __shared__ alignas(16) u16 s[512];
  for (int i = T; i < 512; i += 32) s[i] = in[i];
  __syncthreads();
  u32 at = (u32)__cvta_generic_to_shared(s + T * 16 % 512 + (T / 32) * 8 + (T >= 16 ? 8 : 0));
  u32 r[4], q[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(q[0]), "=r"(q[1]), "=r"(q[2]), "=r"(q[3]) : "r"(at));
  for (int i = 0; i < 4; i++) { out[T * 8 + i] = r[i]; out[T * 8 + 4 + i] = q[i]; }
}

K copies(const float4* in, float4* out, u32 n) {
  __shared__ float4 s[2][128];
  u32 a = (u32)__cvta_generic_to_shared(&s[0][T]), b = (u32)__cvta_generic_to_shared(&s[1][T]);
  u32 bytes = T < n ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(a), "l"(in + (T < n ? T : 0)), "r"(bytes));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(b), "l"(in + 127 - T));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  __syncthreads();
  out[T] = s[0][127 - T];
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
  out[128 + T] = s[1][(T + 64) & 127];
}

K approximations(const float* in, float* out, u32 n) {
  if (G >= n) return;
  float x = in[G], r[8];
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r[0]) : "f"(x));
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r[1]) : "f"(fabsf(x)));
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r[2]) : "f"(fabsf(x)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r[3]) : "f"(x));
  asm("tanh.approx.f32 %0, %1;" : "=f"(r[4]) : "f"(x));
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(r[5]) : "f"(fabsf(x)));
  asm("sin.approx.ftz.f32 %0, %1;" : "=f"(r[6]) : "f"(x));
  asm("div.full.ftz.f32 %0, %1, %2;" : "=f"(r[7]) : "f"(x), "f"(3.f));
  for (int i = 0; i < 8; i++) out[G * 8 + i] = r[i];
}

// The compiler's own library: exact exponentials, sines with their range reduction (and its table), divisions.
K library(const float* in, float* out, u32 n) {
  if (G >= n) return;
  float x = in[G];
  out[G * 6 + 0] = expf(x);
  out[G * 6 + 1] = sinf(x * 1000.f);
  out[G * 6 + 2] = logf(fabsf(x) + 1e-3f);
  out[G * 6 + 3] = powf(fabsf(x), 1.7f);
  out[G * 6 + 4] = 1.f / x;
  out[G * 6 + 5] = tanhf(x);
}
K library64(const double* in, double* out, u32 n) {
  if (G >= n) return;
  double x = in[G];
  out[G * 3 + 0] = exp(x);
  out[G * 3 + 1] = x / 3.7;
  out[G * 3 + 2] = sqrt(fabs(x));
}
