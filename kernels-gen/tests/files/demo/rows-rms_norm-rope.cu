// rms_norm, iota, rope
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
  const float* a0;
  const float* a1;
  float* r0;
  float* r1;
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
  for (Index row = (Index)blockIdx.x * TEAMS + threadIdx.x / TEAM; row < rows; row += (Index)gridDim.x * TEAMS) {
    const Index base = row * LEN;
    float v0[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a0 + base + local(c, lane), v0 + c);
    float v1 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v1 = Sum::of(v1, v0[e] * v0[e]);
    }
    const float v2 = team_fold<Sum, TEAM>(v1) / 64.0f;
    const float v3 = 1.0f / sqrtf(v2 + 0.0078125f);
    float v4[E];
    const int v5 = (int)(row / d0 % d1);
    float v6[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v4[e] = v0[e] * v3;
    }
    float sine0[E / 2], cosine0[E / 2];
#pragma unroll
    for (int e = 0; e < E / 2; ++e) turn(v5 * TURNS0[local(e, lane)], &sine0[e], &cosine0[e]);
#pragma unroll
    for (int e = 0; e < E / 2; ++e) {
      v6[e] = v4[e] * cosine0[e] + v4[e + E / 2] * sine0[e];
      v6[e + E / 2] = v4[e + E / 2] * cosine0[e] - v4[e] * sine0[e];
    }
    float v7[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a1 + base + local(c, lane), v7 + c);
    float v8 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v8 = Sum::of(v8, v7[e] * v7[e]);
    }
    const float v9 = team_fold<Sum, TEAM>(v8) / 64.0f;
    const float v10 = 1.0f / sqrtf(v9 + 0.0078125f);
    float v11[E], v12[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v11[e] = v7[e] * v10;
    }
#pragma unroll
    for (int e = 0; e < E / 2; ++e) {
      v12[e] = v11[e] * cosine0[e] + v11[e + E / 2] * sine0[e];
      v12[e + E / 2] = v11[e + E / 2] * cosine0[e] - v11[e] * sine0[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r0 + base + local(c, lane), v6 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r1 + base + local(c, lane), v12 + c);
  }
}
