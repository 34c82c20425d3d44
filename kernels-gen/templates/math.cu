// Functions of elements, with the corner cases of the IR's ops.
#define INF __int_as_float(0x7f800000)

template <class T> __device__ __forceinline__ float rounded(float x) { return to_f32(from_f32<T>(x)); }

__device__ __forceinline__ float f_sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }
__device__ __forceinline__ float f_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
// NaN stays NaN.
__device__ __forceinline__ float f_relu(float x) { return x > 0 || x != x ? x : 0.0f; }
__device__ __forceinline__ float f_gelu_inner(float x) { return 0.7978845608028654f * (x + 0.044715f * x * x * x); }
__device__ __forceinline__ float f_gelu(float x) { return 0.5f * x * (1.0f + tanhf(f_gelu_inner(x))); }
__device__ __forceinline__ float f_gelu_grad(float x) {
  const float t = tanhf(f_gelu_inner(x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608028654f * (1.0f + 0.134145f * x * x);
}
__device__ __forceinline__ float f_silu_grad(float x) {
  const float s = f_sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}
// The remainder has the sign of b.
__device__ __forceinline__ float f_rem(float a, float b) {
  const float r = fmodf(a, b);
  return r == 0 ? copysignf(r, b) : (r < 0) != (b < 0) ? r + b : r;
}
// NaN if either is.
__device__ __forceinline__ float f_max(float a, float b) { return a >= b || a != a ? a : b; }
__device__ __forceinline__ float f_min(float a, float b) { return a <= b || a != a ? a : b; }

// i32 wraps round, so it is computed without sign.
__device__ __forceinline__ int i_add(int a, int b) { return (int)((u32)a + (u32)b); }
__device__ __forceinline__ int i_sub(int a, int b) { return (int)((u32)a - (u32)b); }
__device__ __forceinline__ int i_mul(int a, int b) { return (int)((u32)a * (u32)b); }
__device__ __forceinline__ int i_neg(int a) { return (int)(0u - (u32)a); }
__device__ __forceinline__ int i_abs(int a) { return a < 0 ? i_neg(a) : a; }
__device__ __forceinline__ int i_sign(int a) { return (a > 0) - (a < 0); }
__device__ __forceinline__ int i_max(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ int i_min(int a, int b) { return a < b ? a : b; }
// Rounds down; 0 where b is 0.
__device__ __forceinline__ int i_div(int a, int b) {
  if (b == 0) return 0;
  if (b == -1) return i_neg(a);
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
__device__ __forceinline__ int i_rem(int a, int b) {
  if (b == 0 || b == -1) return 0;
  const int r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
__device__ __forceinline__ int i_shl(int a, int b) { return b >= 0 && b < 32 ? (int)((u32)a << b) : 0; }
__device__ __forceinline__ int i_shr(int a, int b) { return a >> (b >= 0 && b < 32 ? b : 31); }
// Truncates and saturates; NaN gives 0.
__device__ __forceinline__ int f_to_i32(float x) { return __float2int_rz(x); }

// Elements as registers hold them: floats as f32, i32 and bool as int. Sums of squares are f64.
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return to_f32(x); }
__device__ __forceinline__ float widen(f16 x) { return to_f32(x); }
__device__ __forceinline__ int widen(int x) { return x; }
__device__ __forceinline__ int widen(u8 x) { return x; }
template <class T> __device__ __forceinline__ T narrow(float x) { return from_f32<T>(x); }
template <class T> __device__ __forceinline__ T narrow(int x) { return (T)x; }
template <class T> __device__ __forceinline__ T narrow(double x) { return (T)x; }

// N elements that lie side by side, at an address that N divides, to registers and back.
template <int N, class T, class R> __device__ __forceinline__ void load(const T* from, R* to) {
  const Vec<T, N> x = *(const Vec<T, N>*)from;
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(x.at[i]);
}
template <int N, class T, class R> __device__ __forceinline__ void store(T* to, const R* from) {
  Vec<T, N> x;
#pragma unroll
  for (int i = 0; i < N; ++i) x.at[i] = narrow<T>(from[i]);
  *(Vec<T, N>*)to = x;
}
// The same number N times.
template <int N, class T, class R> __device__ __forceinline__ void fill(T* to, R with) {
  Vec<T, N> x;
#pragma unroll
  for (int i = 0; i < N; ++i) x.at[i] = narrow<T>(with);
  *(Vec<T, N>*)to = x;
}

// Sine and cosine of an angle in turns. Whole turns are taken away in f64: a float would have lost large angles.
__device__ __forceinline__ void turn(double turns, float* sine, float* cosine) {
  sincospif(2.0f * (float)(turns - rint(turns)), sine, cosine);
}
