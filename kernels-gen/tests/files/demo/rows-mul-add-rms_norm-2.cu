// mul, add, rms_norm
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
  const float* a0;
  const float* a1;
  const float* a2;
  const float* a3;
  const float* a4;
  float* r0;
  float* r1;
  float* r2;
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
  for (Index row = (Index)blockIdx.x * TEAMS + threadIdx.x / TEAM; row < rows; row += (Index)gridDim.x * TEAMS) {
    const Index base = row * LEN;
    float v0[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a0 + base + local(c, lane), v0 + c);
    const float v1 = widen(p.a1[0]);
    float v2[E], v3[E];
    const float v4 = widen(p.a2[0]);
    float v5[E];
    const float v6 = widen(p.a3[0]);
    float v7[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v2[e] = v1 * v0[e];
      v3[e] = v0[e] + v2[e];
      v5[e] = v4 * v3[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a4 + base + local(c, lane), v7 + c);
    float v8[E], v9[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v8[e] = v6 * v7[e];
      v9[e] = v5[e] + v8[e];
    }
    float v10 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v10 = Sum::of(v10, v9[e] * v9[e]);
    }
    const float v11 = team_fold<Sum, TEAM>(v10) / 128.0f;
    const float v12 = 1.0f / sqrtf(v11 + 0.0078125f);
    float v13[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v13[e] = v9[e] * v12;
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r0 + base + local(c, lane), v3 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r1 + base + local(c, lane), v9 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r2 + base + local(c, lane), v13 + c);
  }
}
