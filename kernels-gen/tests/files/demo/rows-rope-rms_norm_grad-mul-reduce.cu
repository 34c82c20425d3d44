// iota, rope, rms_norm_grad, mul, sum of all
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
  float* r4;
  float* r5;
  float* w0;
  float* w1;
  u32* counter;
};
typedef u32 Index;
constexpr int THREADS = 256, TEAM = 8, TEAMS = THREADS / TEAM;
constexpr int LEN = 64, PARTS = 2, J = 1, V = 4, E = PARTS * J * V;
constexpr bool EXACT = J * TEAM * V * PARTS == LEN;
// Turns of pair i at position 1: base^(-2i / 64) / 2 pi, base = 10000.0.
__device__ const double TURNS0[32] = {0.15915494309189535, 0.11934937021124886, 0.08949940160889101, 0.06711508300522726, 0.050329212104487035, 0.03774158471741977, 0.0283021958306234, 0.02122365276477766, 0.015915494309189534, 0.011934937021124886, 0.008949940160889102, 0.006711508300522725, 0.005032921210448704, 0.003774158471741977, 0.00283021958306234, 0.0021223652764777662, 0.0015915494309189536, 0.0011934937021124885, 0.0008949940160889102, 0.0006711508300522726, 0.0005032921210448703, 0.00037741584717419774, 0.00028302195830623395, 0.0002122365276477766, 0.00015915494309189535, 0.00011934937021124886, 8.949940160889102e-5, 6.711508300522725e-5, 5.0329212104487035e-5, 3.774158471741978e-5, 2.8302195830623396e-5, 2.122365276477766e-5};

__device__ __forceinline__ int local(int e, int lane) {
  return e / V / J * (LEN / PARTS) + (e / V % J * TEAM + lane) * V + e % V;
}
__device__ __forceinline__ bool live(int e, int lane) { return EXACT || (e / V % J * TEAM + lane) * V < LEN / PARTS; }

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const u32 rows, const u32 d0, const u32 d1) {
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
    const int v2 = (int)(row / d0 % d1);
    float v3[E];
    float sine0[E / 2], cosine0[E / 2];
#pragma unroll
    for (int e = 0; e < E / 2; ++e) turn(v2 * TURNS0[local(e, lane)], &sine0[e], &cosine0[e]);
#pragma unroll
    for (int e = 0; e < E / 2; ++e) {
      v3[e] = v1[e] * cosine0[e] - v1[e + E / 2] * sine0[e];
      v3[e + E / 2] = v1[e + E / 2] * cosine0[e] + v1[e] * sine0[e];
    }
    float v4 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v4 = Sum::of(v4, v0[e] * v0[e]);
    }
    const float v5 = team_fold<Sum, TEAM>(v4) / 64.0f;
    float v6 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v6 = Sum::of(v6, v0[e] * v3[e]);
    }
    const float v7 = team_fold<Sum, TEAM>(v6) / 64.0f;
    const float v8 = 1.0f / sqrtf(v5 + 0.0078125f);
    float v9[E], v10[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v9[e] = v8 * v3[e] - v0[e] * (v8 * v8 * v8 * v7);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a2 + base + local(c, lane), v10 + c);
    float v11[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a3 + base + local(c, lane), v11 + c);
    float v12[E];
#pragma unroll
    for (int e = 0; e < E / 2; ++e) {
      v12[e] = v11[e] * cosine0[e] - v11[e + E / 2] * sine0[e];
      v12[e + E / 2] = v11[e + E / 2] * cosine0[e] + v11[e] * sine0[e];
    }
    float v13 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v13 = Sum::of(v13, v10[e] * v10[e]);
    }
    const float v14 = team_fold<Sum, TEAM>(v13) / 64.0f;
    float v15 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v15 = Sum::of(v15, v10[e] * v12[e]);
    }
    const float v16 = team_fold<Sum, TEAM>(v15) / 64.0f;
    const float v17 = 1.0f / sqrtf(v14 + 0.0078125f);
    float v18[E], v19[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v18[e] = v17 * v12[e] - v10[e] * (v17 * v17 * v17 * v16);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a4 + base + local(c, lane), v19 + c);
    float v20[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a5 + base + local(c, lane), v20 + c);
    float v21[E];
    const float v22 = widen(p.a6[0]);
    float v23[E], v24[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v21[e] = v19[e] * v20[e];
      v23[e] = v19[e] * v22;
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a7 + base + local(c, lane), v24 + c);
    float v25[E];
    const float v26 = widen(p.a8[0]);
    float v27[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v25[e] = v19[e] * v24[e];
      v27[e] = v19[e] * v26;
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r0 + base + local(c, lane), v9 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r1 + base + local(c, lane), v18 + c);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      total0 = Sum::of(total0, v21[e]);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r3 + base + local(c, lane), v23 + c);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      total1 = Sum::of(total1, v25[e]);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r5 + base + local(c, lane), v27 + c);
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
    if (threadIdx.x == 0) p.r2[0] = narrow<float>(x);
  }
  {
    float x = 0.0f;
    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = Sum::of(x, ((float*)p.w1)[b]);
    x = team_fold<Sum, THREADS>(x);
    if (threadIdx.x == 0) p.r4[0] = narrow<float>(x);
  }
}
