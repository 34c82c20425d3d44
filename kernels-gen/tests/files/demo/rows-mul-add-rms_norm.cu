// mul, add, rms_norm
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
  const float* a0;
  const float* a1;
  const float* a2;
  const float* a3;
  float* r0;
  float* r1;
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
    const float v0 = widen(p.a0[0]);
    float v1[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a1 + base + local(c, lane), v1 + c);
    float v2[E];
    const float v3 = widen(p.a2[0]);
    float v4[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v2[e] = v0 * v1[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a3 + base + local(c, lane), v4 + c);
    float v5[E], v6[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v5[e] = v3 * v4[e];
      v6[e] = v2[e] + v5[e];
    }
    float v7 = 0.0f;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v7 = Sum::of(v7, v6[e] * v6[e]);
    }
    const float v8 = team_fold<Sum, TEAM>(v7) / 128.0f;
    const float v9 = 1.0f / sqrtf(v8 + 0.0078125f);
    float v10[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v10[e] = v6[e] * v9;
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r0 + base + local(c, lane), v6 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r1 + base + local(c, lane), v10 + c);
  }
}
