// {{ what }}
//
// The space is rows of LEN elements. A team of TEAM threads computes a row; each thread holds E elements of it: PARTS parts
// of J runs of V neighbours.
struct Pointers {
{%- for pointer in pointers %}
  {{ pointer }};
{%- endfor %}
};
typedef {{ index }} Index;
constexpr int THREADS = {{ threads }}, TEAM = {{ team }}, TEAMS = THREADS / TEAM;
constexpr int LEN = {{ len }}, PARTS = {{ parts }}, J = {{ runs }}, V = {{ vec }}, E = PARTS * J * V;
constexpr bool EXACT = J * TEAM * V * PARTS == LEN;
{%- for table in tables %}
{{ table }}
{%- endfor %}

__device__ __forceinline__ int local(int e, int lane) {
  return e / V / J * (LEN / PARTS) + (e / V % J * TEAM + lane) * V + e % V;
}
__device__ __forceinline__ bool live(int e, int lane) { return EXACT || (e / V % J * TEAM + lane) * V < LEN / PARTS; }

extern "C" __global__ void __launch_bounds__(THREADS) KERNEL_NAME({{ parameters }}) {
  const Pointers p = table ? table[blockIdx.y] : one;
{%- if shared %}
  extern __shared__ __align__(16) float shared[];
{%- endif %}
  const int lane = threadIdx.x % TEAM;
{%- if before %}
{{ before }}
{%- endif %}
  for (Index row = (Index)blockIdx.x * TEAMS + threadIdx.x / TEAM; row < rows; row += (Index)gridDim.x * TEAMS) {
    const Index base = row * LEN;
{{ body }}
  }
{%- if after %}
{{ after }}
{%- endif %}
}
