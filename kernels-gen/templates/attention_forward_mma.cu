{% include "attention.cu" %}
{% include "attention_mma.cu" %}
// Attention forward on tensor cores, as FlashAttention-2 does it (Dao 2023): a warp holds its rows' sums and keeps a running
// maximum; scores never leave registers.
typedef {{ out }} Out;
constexpr float LN_2 = 0.6931471805599453f;

struct Pointers {
  const Low* q;
  const Low* k;
  const Low* v;
{% if documents %}  const int* documents;
{% endif %}{% if window == "memory" %}  const {{ window_type }}* window;
{% endif %}  Out* out;
  float* lse;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL_NAME(Pointers at, int t, int window) {
  extern __shared__ __align__(16) Low shared[];
  Low* queries = shared;
  Low* keys = queries + ROWS * PITCH;
  Low* values = keys + STAGES * COLUMNS * PITCH;
  unsigned short* list = (unsigned short*)(values + STAGES * COLUMNS * PITCH);

  const auto [sequence, head, row] = place(t, HEADS);
{% if window == "memory" %}  window = whole(*at.window, t);
{% endif %}  const Sight sight = {t, whole(window, t), {% if documents %}at.documents + (i64)sequence * t{% else %}nullptr{% endif %}};
  const Tiles tiles(sight, row, list);
  const i64 first_query = ((i64)sequence * t * HEADS + head) * DIM;
  const i64 first_key = ((i64)sequence * t * KEY_HEADS + head / GROUP) * DIM;

  const auto load = [&](int from, int visit, int visits) {
    if (visit < visits) {
      const int stage = visit % STAGES * COLUMNS * PITCH, column = tiles.at(from, visit).column;
      load_tile<COLUMNS>(keys + stage, at.k + first_key, KEY_HEADS, column, t);
      load_tile<COLUMNS>(values + stage, at.v + first_key, KEY_HEADS, column, t);
    }
    copies_commit();
  };

  float sums[STRIPS][PADDED / 8][4] = {};
  // Of the scores, times log2 e; and the sums of the weights that this lane saw.
  float most[STRIPS][2], weights[STRIPS][2];
#pragma unroll
  for (int i = 0; i < STRIPS; i++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      most[i][half] = -INF;
      weights[i][half] = 0;
    }

  load_tile<ROWS>(queries, at.q + first_query, HEADS, row, t);
  for (int from = tiles.first; from < tiles.last; from += tiles.step()) {
    const int visits = tiles.find(sight, from);
    for (int visit = 0; visit < STAGES - 1; visit++) load(from, visit, visits);
    for (int visit = 0; visit < visits; visit++) {
      next_stage([&](int ahead) { load(from, visit + ahead, visits); });
      const Tile tile = tiles.at(from, visit);
      const int stage = visit % STAGES * COLUMNS * PITCH;

      float scores[STRIPS][COLUMNS / 8][4] = {};
      multiply_heads<COLUMNS / 8>(scores, queries, keys + stage);
#pragma unroll
      for (int i = 0; i < STRIPS; i++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) scores[i][n][e] *= SCALE_2;
      if (!tile.same || !sight.all(row, tile.column)) hide(scores, sight, row, tile.column, -INF);

#pragma unroll
      for (int i = 0; i < STRIPS; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float top = most[i][half];
#pragma unroll
          for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) top = fmaxf(top, scores[i][n][half * 2 + e]);
          top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
          top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
          // Nothing seen so far: all weights are 0 with any number in place of the maximum.
          const float base = top == -INF ? 0.0f : top;
          const float fade = exp_2(most[i][half] - base);
          most[i][half] = top;
          weights[i][half] *= fade;
#pragma unroll
          for (int n = 0; n < PADDED / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) sums[i][n][half * 2 + e] *= fade;
#pragma unroll
          for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
              float& score = scores[i][n][half * 2 + e];
              score = exp_2(score - base);
              weights[i][half] += score;
            }
        }
      multiply_rows<COLUMNS / 8, PADDED / 8>(sums, scores, values + stage, 0);
    }
  }

#pragma unroll
  for (int i = 0; i < STRIPS; i++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float weight = weights[i][half];
      weight += __shfl_xor_sync(0xffffffff, weight, 1);
      weight += __shfl_xor_sync(0xffffffff, weight, 2);
      const float factor = weight == 0.0f ? 0.0f : 1.0f / weight;
#pragma unroll
      for (int n = 0; n < PADDED / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) sums[i][n][half * 2 + e] *= factor;
      const int position = row_of(row, i, half);
      if (threadIdx.x % 4 == 0 && position < t)
        at.lse[((i64)sequence * t + position) * HEADS + head] = (most[i][half] + __log2f(weight)) * LN_2;
    }
  store_tile(at.out + first_query, HEADS, row, t, 0, sums, 1);
  // Nothing may be under way when a block ends.
  copies_commit();
  copies_wait<0>();
}
