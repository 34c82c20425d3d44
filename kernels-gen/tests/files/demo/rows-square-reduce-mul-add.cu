// square, mul, add, sum of all
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
  const float* a0;
  const float* a1;
  const float* a2;
  float* r0;
  float* r1;
  float* r2;
  float* r3;
  float* r4;
  float* w0;
  float* w1;
  u32* counter;
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
  float total0 = 0.0f;
  double total1 = 0.0f;
  for (Index row = (Index)blockIdx.x * TEAMS + threadIdx.x / TEAM; row < rows; row += (Index)gridDim.x * TEAMS) {
    const Index base = row * LEN;
    float v0[E];
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a0 + base + local(c, lane), v0 + c);
    float v1[E];
    const float v2 = widen(p.a1[0]);
    float v3[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v1[e] = v0[e] * v0[e];
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      load<V>(p.a2 + base + local(c, lane), v3 + c);
    float v4[E], v5[E], v6[E], v7[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      v4[e] = v2 * v3[e];
      v5[e] = v4[e] + v0[e];
      v6[e] = v2 * v5[e];
      v7[e] = v0[e] + v6[e];
      total0 = Sum::of(total0, v1[e]);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r1 + base + local(c, lane), v5 + c);
#pragma unroll
    for (int c = 0; c < E; c += V)
      store<V>(p.r2 + base + local(c, lane), v7 + c);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      total1 = Sum::of(total1, (double)v7[e] * v7[e]);
    }
#pragma unroll
    for (int c = 0; c < E; c += V)
      fill<V>(p.r4 + base + local(c, lane), 0.0f);
  }
  total0 = team_fold<Sum, THREADS>(total0);
  if (threadIdx.x == 0) ((float*)p.w0)[blockIdx.x] = total0;
  total1 = team_fold<Sum, THREADS>(total1);
  if (threadIdx.x == 0) ((double*)p.w1)[blockIdx.x] = total1;
  if (gridDim.x > 1 && !is_last_block(p.counter, gridDim.x)) return;
  __syncthreads();
  {
    float x = 0.0f;
    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = Sum::of(x, ((float*)p.w0)[b]);
    x = team_fold<Sum, THREADS>(x);
    if (threadIdx.x == 0) p.r0[0] = narrow<float>(x);
  }
  {
    double x = 0.0f;
    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = Sum::of(x, ((double*)p.w1)[b]);
    x = team_fold<Sum, THREADS>(x);
    if (threadIdx.x == 0) p.r3[0] = narrow<float>((float)sqrt(x));
  }
}
