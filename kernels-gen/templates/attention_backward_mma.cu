{% include "attention.cu" %}
{% include "attention_mma.cu" %}
// One half of attention's gradient on tensor cores: dq, or dk and dv where OWNS_KEYS. A block owns two tiles (q and do, or k
// and v) and walks over pairs of tiles of the other side. With S the scores of own rows against columns and P their weights:
// dS = P (do v - do o), dq = scale dS k; dk = scale dS q, dv = P do. Nothing is summed across blocks.
typedef {{ out }} Out;
typedef {{ grad_first }} First;
typedef {{ grad_second }} Second;
// A block makes these columns of its results, so that they fit its registers.
constexpr int PARTS = {{ parts }};
constexpr int WIDTH = PADDED / PARTS;

struct Pointers {
  const Low* q;
  const Low* k;
  const Low* v;
  const Low* d_out;
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
  extern __shared__ __align__(16) Low shared[];
  constexpr int STAGE = COLUMNS * PITCH;
  Low* own_first = shared;
  Low* own_second = own_first + ROWS * PITCH;
  Low* first = own_second + ROWS * PITCH;
  Low* second = first + STAGES * STAGE;
  // Of the rows, or of the columns of each stage where these are queries.
  float2* stats = (float2*)(second + STAGES * STAGE);
  unsigned short* list = (unsigned short*)(stats + (OWNS_KEYS ? STAGES * COLUMNS : ROWS));

  const Place here = place(t, PARTS * (OWNS_KEYS ? KEY_HEADS : HEADS));
  const int head = here.head / PARTS, part = here.head % PARTS * WIDTH, row = here.row;
  const i64 positions = (i64)here.sequence * t;
{% if window == "memory" %}  window = whole(*at.window, t);
{% endif %}  const Sight sight = {t, whole(window, t), {% if documents %}at.documents + positions{% else %}nullptr{% endif %}};
  const Tiles tiles(sight, row, list);
  const auto query = [&](const Low* of, int head) { return of + (positions * HEADS + head) * DIM; };
  const auto key = [&](const Low* of, int head) { return of + (positions * KEY_HEADS + head) * DIM; };

{% if owns_keys %}
  load_tile<ROWS>(own_first, key(at.k, head), KEY_HEADS, row, t);
  load_tile<ROWS>(own_second, key(at.v, head), KEY_HEADS, row, t);
  // All tiles for one query head after another.
  const auto load = [&](int from, int visit, int visits) {
    if (visit < GROUP * visits) {
      const int stage = visit % STAGES, column = tiles.at(from, visit % visits).column;
      const int query_head = head * GROUP + visit / visits;
      load_tile<COLUMNS>(first + stage * STAGE, query(at.q, query_head), HEADS, column, t);
      load_tile<COLUMNS>(second + stage * STAGE, query(at.d_out, query_head), HEADS, column, t);
      for (int i = threadIdx.x; i < COLUMNS; i += THREADS) {
        const bool real = column + i < t;
        const i64 source = real ? (positions + column + i) * HEADS + query_head : 0;
        copy_pair_async(stats + stage * COLUMNS + i, at.stats + source, real);
      }
    }
    copies_commit();
  };
{% else %}
  load_tile<ROWS>(own_first, query(at.q, head), HEADS, row, t);
  load_tile<ROWS>(own_second, query(at.d_out, head), HEADS, row, t);
  const auto load = [&](int from, int visit, int visits) {
    if (visit < visits) {
      const int stage = visit % STAGES * STAGE, column = tiles.at(from, visit).column;
      load_tile<COLUMNS>(first + stage, key(at.k, head / GROUP), KEY_HEADS, column, t);
      load_tile<COLUMNS>(second + stage, key(at.v, head / GROUP), KEY_HEADS, column, t);
    }
    copies_commit();
  };

  // A warp makes the numbers of its own rows.
  const Out* out = at.out + (positions * HEADS + head) * DIM;
  for (int i = 0; i < STRIPS * 16; i++) {
    const int r = threadIdx.x / 32 * STRIPS * 16 + i;
    float2 numbers = make_float2(-INF, 0);
    if (row + r < t) {
      const i64 start = (i64)(row + r) * HEADS * DIM;
      for (int c = threadIdx.x % 32; c < DIM; c += 32)
        numbers.y += to_f32(out[start + c]) * to_f32(query(at.d_out, head)[start + c]);
      for (int d = 16; d > 0; d /= 2) numbers.y += __shfl_xor_sync(0xffffffff, numbers.y, d);
      const i64 place = (positions + row + r) * HEADS + head;
      const float lse = at.lse[place];
      if (lse != -INF) numbers.x = -lse * LOG2_E;
      if (threadIdx.x % 32 == 0 && part == 0) at.stats[place] = numbers;
    }
    if (threadIdx.x % 32 == 0) stats[r] = numbers;
  }
  __syncwarp();
{% endif %}
  float first_sums[STRIPS][WIDTH / 8][4] = {};
{% if owns_keys %}  float second_sums[STRIPS][WIDTH / 8][4] = {};
{% endif %}
  for (int from = tiles.first; from < tiles.last; from += tiles.step()) {
    const int found = tiles.find(sight, from);
    const int visits = OWNS_KEYS ? GROUP * found : found;
    for (int visit = 0; visit < STAGES - 1; visit++) load(from, visit, found);
    for (int visit = 0; visit < visits; visit++) {
      next_stage([&](int ahead) { load(from, visit + ahead, found); });
      const Tile tile = tiles.at(from, visit % found);
      const int stage = visit % STAGES;

      float weights[STRIPS][COLUMNS / 8][4] = {};
      multiply_heads<COLUMNS / 8>(weights, own_first, first + stage * STAGE);
#pragma unroll
      for (int i = 0; i < STRIPS; i++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const int at_stats = OWNS_KEYS ? stage * COLUMNS + column_of(0, n, e % 2) : row_of(0, i, e / 2);
            weights[i][n][e] = exp_2(weights[i][n][e] * SCALE_2 + stats[at_stats].x);
          }
      if (!tile.same || !sight.all(row, tile.column)) hide(weights, sight, row, tile.column, 0);
{% if owns_keys %}      multiply_rows<COLUMNS / 8, WIDTH / 8>(second_sums, weights, second + stage * STAGE, part);
{% endif %}
      float slopes[STRIPS][COLUMNS / 8][4] = {};
      multiply_heads<COLUMNS / 8>(slopes, own_second, second + stage * STAGE);
#pragma unroll
      for (int i = 0; i < STRIPS; i++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const int at_stats = OWNS_KEYS ? stage * COLUMNS + column_of(0, n, e % 2) : row_of(0, i, e / 2);
            slopes[i][n][e] = weights[i][n][e] * (slopes[i][n][e] - stats[at_stats].y);
          }
      multiply_rows<COLUMNS / 8, WIDTH / 8>(first_sums, slopes, first + stage * STAGE, part);
    }
  }

{% if owns_keys %}
  store_tile(at.dk + (positions * KEY_HEADS + head) * DIM, KEY_HEADS, row, t, part, first_sums, SCALE);
  store_tile(at.dv + (positions * KEY_HEADS + head) * DIM, KEY_HEADS, row, t, part, second_sums, 1);
{% else %}
  store_tile(at.dq + (positions * HEADS + head) * DIM, HEADS, row, t, part, first_sums, SCALE);
{% endif %}
  // Nothing may be under way when a block ends.
  copies_commit();
  copies_wait<0>();
}
