{% include "attention.cu" %}
{% include "attention_fma.cu" %}
// One half of attention's gradient in f32: dq, or dk and dv where OWNS_KEYS. As attention_backward_mma.cu.
typedef {{ q }} Q;
typedef {{ k }} K;
typedef {{ v }} V;
typedef {{ out }} Out;
typedef {{ d_out }} DOut;
typedef {{ grad_first }} First;
typedef {{ grad_second }} Second;

struct Pointers {
  const Q* q;
  const K* k;
  const V* v;
  const DOut* d_out;
{% if documents %}  const int* documents;
{% endif %}{% if window == "memory" %}  const {{ window_type }}* window;
{% endif %}  // Of each query and head: minus its log-sum-exp times log2 e, and do o. Made with dq.
  float2* stats;
{% if owns_keys %}  First* dk;
  Second* dv;
{% else %}  const Out* out;
  const float* lse;
  First* dq;
{% endif %}};

extern "C" __global__ void __launch_bounds__(THREADS, 1) KERNEL_NAME(Pointers at, int t, int window) {
  extern __shared__ __align__(16) float shared[];
  float* own_first = shared;
  float* own_second = own_first + ROWS * PITCH;
  float* first = own_second + ROWS * PITCH;
  float* second = first + COLUMNS * PITCH;
  float* exchange = second + COLUMNS * PITCH;
  // Of the columns, where these are queries.
  float2* stats = (float2*)(exchange + ROWS * WEIGHTS_PITCH);
  unsigned short* list = (unsigned short*)(stats + COLUMNS);

  const Place here = place(t, OWNS_KEYS ? KEY_HEADS : HEADS);
  const int row = here.row;
  const i64 positions = (i64)here.sequence * t;
  const int key_head = OWNS_KEYS ? here.head : here.head / GROUP;
  const i64 first_key = (positions * KEY_HEADS + key_head) * DIM;
{% if window == "memory" %}  window = whole(*at.window, t);
{% endif %}  const Sight sight = {t, whole(window, t), {% if documents %}at.documents + positions{% else %}nullptr{% endif %}};
  const Tiles tiles(sight, row, list);

{% if owns_keys %}
  load_tile<ROWS>(own_first, at.k + first_key, KEY_HEADS, row, t);
  load_tile<ROWS>(own_second, at.v + first_key, KEY_HEADS, row, t);
{% else %}
  const i64 first_query = (positions * HEADS + here.head) * DIM;
  load_tile<ROWS>(own_first, at.q + first_query, HEADS, row, t);
  load_tile<ROWS>(own_second, at.d_out + first_query, HEADS, row, t);
  // Of this thread's rows.
  float2 numbers[R];
#pragma unroll
  for (int i = 0; i < R; i++) {
    const int position = row + team() + i * TEAMS;
    numbers[i] = make_float2(-INF, 0);
    if (position < t) {
      const i64 start = first_query + (i64)position * HEADS * DIM;
      for (int c = lane(); c < DIM; c += LANES)
        numbers[i].y = fmaf(to_f32(at.out[start + c]), to_f32(at.d_out[start + c]), numbers[i].y);
    }
    numbers[i].y = team_fold<Sum, LANES>(numbers[i].y);
    if (position < t) {
      const i64 place = (positions + position) * HEADS + here.head;
      const float lse = at.lse[place];
      if (lse != -INF) numbers[i].x = -lse * LOG2_E;
      if (lane() == 0) at.stats[place] = numbers[i];
    }
  }
{% endif %}
  float first_sums[R][FOURS][4] = {};
{% if owns_keys %}  float second_sums[R][FOURS][4] = {};
{% endif %}
  for (int from = tiles.first; from < tiles.last; from += tiles.step()) {
    const int found = tiles.find(sight, from);
    // All tiles for one query head after another.
    for (int visit = 0; visit < (OWNS_KEYS ? GROUP * found : found); visit++) {
      const Tile tile = tiles.at(from, visit % found);
      __syncthreads();
{% if owns_keys %}
      const int head = here.head * GROUP + visit / found;
      const i64 first_query = (positions * HEADS + head) * DIM;
      load_tile<COLUMNS>(first, at.q + first_query, HEADS, tile.column, t);
      load_tile<COLUMNS>(second, at.d_out + first_query, HEADS, tile.column, t);
      for (int i = threadIdx.x; i < COLUMNS; i += THREADS)
        stats[i] = tile.column + i < t ? at.stats[(positions + tile.column + i) * HEADS + head] : make_float2(0, 0);
{% else %}
      load_tile<COLUMNS>(first, at.k + first_key, KEY_HEADS, tile.column, t);
      load_tile<COLUMNS>(second, at.v + first_key, KEY_HEADS, tile.column, t);
{% endif %}
      __syncthreads();

      float weights[R][C], slopes[R][C];
      multiply_heads(weights, own_first, first);
      multiply_heads(slopes, own_second, second);
#pragma unroll
      for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++) {
          const float2 of = {% if owns_keys %}stats[lane() + j * LANES]{% else %}numbers[i]{% endif %};
          weights[i][j] = exp_2(weights[i][j] * SCALE_2 + of.x);
          slopes[i][j] -= of.y;
        }
      if (!tile.same || !sight.all(row, tile.column)) hide(weights, sight, row, tile.column, 0);
#pragma unroll
      for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < C; j++)
          // What is not seen has no slope, not even where it is no number.
          slopes[i][j] = weights[i][j] == 0.0f ? 0.0f : slopes[i][j] * weights[i][j];
      multiply_rows(first_sums, slopes, first, exchange);
{% if owns_keys %}      multiply_rows(second_sums, weights, second, exchange);
{% endif %}
    }
  }

{% if owns_keys %}
  store_tile(at.dk + first_key, KEY_HEADS, row, t, first_sums, SCALE);
  store_tile(at.dv + first_key, KEY_HEADS, row, t, second_sums, 1);
{% else %}
  store_tile(at.dq + first_query, HEADS, row, t, first_sums, SCALE);
{% endif %}
}
