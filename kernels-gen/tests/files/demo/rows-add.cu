// add
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
  const float* a0;
  const float* a1;
  float* r0;
};
typedef u32 Index;
constexpr int THREADS = 256, TEAM = 1, TEAMS = THREADS / TEAM;
constexpr int LEN = 4, PARTS = 1, J = 1, V = 4, E = PARTS * J * V;
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
    float v1[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a1 + base + local(c, lane), v1 + c);
    float v2[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v2[e] = v0[e] + v1[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r0 + base + local(c, lane), v2 + c);
  }
}
