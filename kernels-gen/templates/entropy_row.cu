// The largest of a row of N logits, and the sum of powers beside it; a block has a row.
template <class T> __device__ __forceinline__ void entropy_row(const T* logits, float* top, float* sum) {
  float most = -INF, total = 0;
  for (int i = threadIdx.x * V; i < N; i += THREADS * V) {
    float x[V];
    load<V>(logits + i, x);
#pragma unroll
    for (int v = 0; v < V; ++v) most = f_max(most, x[v]);
  }
  most = team_fold<Max, THREADS>(most);
  for (int i = threadIdx.x * V; i < N; i += THREADS * V) {
    float x[V];
    load<V>(logits + i, x);
#pragma unroll
    for (int v = 0; v < V; ++v) total += expf(x[v] - most);
  }
  *top = most;
  *sum = team_fold<Sum, THREADS>(total);
}
