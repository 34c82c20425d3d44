{% include "attention.cu" %}
{% include "attention_fma.cu" %}
// Attention forward in f32, with a running maximum (Milakov & Gimelshein 2018).
typedef {{ q }} Q;
typedef {{ k }} K;
typedef {{ v }} V;
typedef {{ out }} Out;
constexpr float LN_2 = 0.6931471805599453f;

struct Pointers {
  const Q* q;
  const K* k;
  const V* v;
{% if documents %}  const int* documents;
{% endif %}{% if window == "memory" %}  const {{ window_type }}* window;
{% endif %}  Out* out;
  float* lse;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL_NAME(Pointers at, int t, int window) {
  extern __shared__ __align__(16) float shared[];
  float* queries = shared;
  float* keys = queries + ROWS * PITCH;
  float* values = keys + COLUMNS * PITCH;
  float* exchange = values + COLUMNS * PITCH;
  unsigned short* list = (unsigned short*)(exchange + ROWS * WEIGHTS_PITCH);

  const Place here = place(t, HEADS);
  const int row = here.row;
  const i64 positions = (i64)here.sequence * t;
{% if window == "memory" %}  window = whole(*at.window, t);
{% endif %}  const Sight sight = {t, whole(window, t), {% if documents %}at.documents + positions{% else %}nullptr{% endif %}};
  const Tiles tiles(sight, row, list);
  const i64 first_query = (positions * HEADS + here.head) * DIM;
  const i64 first_key = (positions * KEY_HEADS + here.head / GROUP) * DIM;

  float sums[R][FOURS][4] = {};
  // Of the scores, times log2 e; and the sum of the weights.
  float most[R], weights[R];
#pragma unroll
  for (int i = 0; i < R; i++) {
    most[i] = -INF;
    weights[i] = 0;
  }

  load_tile<ROWS>(queries, at.q + first_query, HEADS, row, t);
  for (int from = tiles.first; from < tiles.last; from += tiles.step()) {
    const int visits = tiles.find(sight, from);
    for (int visit = 0; visit < visits; visit++) {
      const Tile tile = tiles.at(from, visit);
      __syncthreads();
      load_tile<COLUMNS>(keys, at.k + first_key, KEY_HEADS, tile.column, t);
      load_tile<COLUMNS>(values, at.v + first_key, KEY_HEADS, tile.column, t);
      __syncthreads();

      float scores[R][C];
      multiply_heads(scores, queries, keys);
#pragma unroll
      for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++) scores[i][j] *= SCALE_2;
      if (!tile.same || !sight.all(row, tile.column)) hide(scores, sight, row, tile.column, -INF);

#pragma unroll
      for (int i = 0; i < R; i++) {
        float top = most[i];
#pragma unroll
        for (int j = 0; j < C; j++) top = fmaxf(top, scores[i][j]);
        top = team_fold<Max, LANES>(top);
        // Nothing seen so far: all weights are 0 with any number in place of the maximum.
        const float base = top == -INF ? 0.0f : top;
        const float fade = exp_2(most[i] - base);
        most[i] = top;
        float weight = 0;
#pragma unroll
        for (int j = 0; j < C; j++) {
          scores[i][j] = exp_2(scores[i][j] - base);
          weight += scores[i][j];
        }
        weights[i] = weights[i] * fade + team_fold<Sum, LANES>(weight);
#pragma unroll
        for (int n = 0; n < FOURS; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) sums[i][n][e] *= fade;
      }
      multiply_rows(sums, scores, values, exchange);
    }
  }

#pragma unroll
  for (int i = 0; i < R; i++) {
    const float factor = weights[i] == 0.0f ? 0.0f : 1.0f / weights[i];
#pragma unroll
    for (int n = 0; n < FOURS; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[i][n][e] *= factor;
    const int position = row + team() + i * TEAMS;
    if (lane() == 0 && position < t)
      at.lse[(positions + position) * HEADS + here.head] = (most[i] + __log2f(weights[i])) * LN_2;
  }
  store_tile(at.out + first_query, HEADS, row, t, sums, 1);
}
