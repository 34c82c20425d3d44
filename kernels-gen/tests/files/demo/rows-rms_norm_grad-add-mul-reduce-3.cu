// rms_norm_grad, add, mul, sum of all
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
  const float* a0;
  const float* a1;
  const float* a2;
  const float* a3;
  const float* a4;
  const float* a5;
  const float* a6;
  const float* a7;
  const float* a8;
  float* r0;
  float* r1;
  float* r2;
  float* r3;
  float* w0;
  float* w1;
  u32* counter;
};
typedef u32 Index;
constexpr int THREADS = 256, TEAM = 32, TEAMS = THREADS / TEAM;
constexpr int LEN = 128, PARTS = 1, J = 1, V = 4, E = PARTS * J * V;
constexpr bool EXACT = J * TEAM * V * PARTS == LEN;

__device__ __forceinline__ int local(int e, int lane) {
  return e / V / J * (LEN / PARTS) + (e / V % J * TEAM + lane) * V + e % V;
}
__device__ __forceinline__ bool live(int e, int lane) { return EXACT || (e / V % J * TEAM + lane) * V < LEN / PARTS; }

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const u32 rows) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const int lane = threadIdx.x % TEAM;
  float total0 = 0.0f;
  float total1 = 0.0f;
  for (Index row = (Index)blockIdx.x * TEAMS + threadIdx.x / TEAM; row < rows; row += (Index)gridDim.x * TEAMS) {
    const Index base = row * LEN;
    float v0[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a0 + base + local(c, lane), v0 + c);
    float v1[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a1 + base + local(c, lane), v1 + c);
    float v2[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a2 + base + local(c, lane), v2 + c);
    float v3 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v3 = Sum::of(v3, v1[e] * v1[e]);
    }
    const float v4 = team_fold<Sum, TEAM>(v3) / 128.0f;
    float v5 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v5 = Sum::of(v5, v1[e] * v2[e]);
    }
    const float v6 = team_fold<Sum, TEAM>(v5) / 128.0f;
    const float v7 = 1.0f / sqrtf(v4 + 0.0078125f);
    float v8[E], v9[E], v10[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v8[e] = v7 * v2[e] - v1[e] * (v7 * v7 * v7 * v6);
      v9[e] = v0[e] + v8[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a3 + base + local(c, lane), v10 + c);
    float v11[E], v12[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v11[e] = v9[e] * v10[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a4 + base + local(c, lane), v12 + c);
    float v13[E], v14[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v13[e] = v9[e] * v12[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a5 + base + local(c, lane), v14 + c);
    const float v15 = widen(p.a6[0]);
    float v16[E], v17[E], v18[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v16[e] = v9[e] * v15;
      v17[e] = v14[e] + v16[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a7 + base + local(c, lane), v18 + c);
    const float v19 = widen(p.a8[0]);
    float v20[E], v21[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v20[e] = v9[e] * v19;
      v21[e] = v18[e] + v20[e];
      total0 = Sum::of(total0, v11[e]);
      total1 = Sum::of(total1, v13[e]);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r2 + base + local(c, lane), v17 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r3 + base + local(c, lane), v21 + c);
  }
  total0 = team_fold<Sum, THREADS>(total0);
  if (threadIdx.x == 0) ((float*)p.w0)[blockIdx.x] = total0;
  total1 = team_fold<Sum, THREADS>(total1);
  if (threadIdx.x == 0) ((float*)p.w1)[blockIdx.x] = total1;
  if (gridDim.x > 1 && !is_last_block(p.counter, gridDim.x)) return;
  __syncthreads();
  {
    float x = 0.0f;
    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = Sum::of(x, ((float*)p.w0)[b]);
    x = team_fold<Sum, THREADS>(x);
    if (threadIdx.x == 0) p.r0[0] = narrow<float>(x);
  }
  {
    float x = 0.0f;
    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = Sum::of(x, ((float*)p.w1)[b]);
    x = team_fold<Sum, THREADS>(x);
    if (threadIdx.x == 0) p.r1[0] = narrow<float>(x);
  }
}
