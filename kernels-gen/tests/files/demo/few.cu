// Programs on few elements, interpreted
//
// Models compute many small things from a number or two. A text for each would take longer to compile than all of them
// ever take to run, so that one kernel interprets them: a warp for each instance, a lane for each element.
constexpr int POINTERS = 24, STEPS = 96, REGISTERS = 64;
struct Pointers { void* at[POINTERS]; };
// `to`, `a`, `b` and `c` are registers, or as the case says.
struct Step { u32 op, to, a, b, c; };
struct Steps { Step at[STEPS]; };

__device__ __forceinline__ u32 bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ u32 bits(int x) { return (u32)x; }

extern "C" __global__ void __launch_bounds__(32) KERNEL_NAME(const Pointers one, const Pointers* __restrict__ table, const __grid_constant__ Steps steps, const u32 count, const u32 elements) {
  const Pointers p = table ? table[blockIdx.y] : one;
  const u32 lane = threadIdx.x;
  const bool live = lane < elements;
  u32 r[REGISTERS] = {};
  const auto f = [&](u32 at) { return __uint_as_float(r[at]); };
  const auto i = [&](u32 at) { return (int)r[at]; };
  for (u32 n = 0; n < count; ++n) {
    const Step s = steps.at[n];
    // What one lane stores, another may have had to load.
    __syncwarp();
    switch (s.op) {
      case 0: r[s.to] = s.a; break;
      case 1: r[s.to] = lane / s.b % s.c; break;
      case 2: r[s.to] = r[s.c] != 0 ? r[s.a] : r[s.b]; break;
      case 3: if (live) r[s.to] = bits(widen(((const float*)p.at[s.a])[lane / s.b % s.c])); break;
      case 4: if (live && lane % s.c == 0) ((float*)p.at[s.to])[lane / s.c] = narrow<float>(f(s.a)); break;
      case 5: r[s.to] = bits(f(s.a)); break;
      case 6: r[s.to] = bits((float)i(s.a)); break;
      case 7: if (live) r[s.to] = bits(widen(((const bf16*)p.at[s.a])[lane / s.b % s.c])); break;
      case 8: if (live && lane % s.c == 0) ((bf16*)p.at[s.to])[lane / s.c] = narrow<bf16>(f(s.a)); break;
      case 9: r[s.to] = bits(rounded<bf16>(f(s.a))); break;
      case 10: r[s.to] = bits(rounded<bf16>((float)i(s.a))); break;
      case 11: if (live) r[s.to] = bits(widen(((const f16*)p.at[s.a])[lane / s.b % s.c])); break;
      case 12: if (live && lane % s.c == 0) ((f16*)p.at[s.to])[lane / s.c] = narrow<f16>(f(s.a)); break;
      case 13: r[s.to] = bits(rounded<f16>(f(s.a))); break;
      case 14: r[s.to] = bits(rounded<f16>((float)i(s.a))); break;
      case 15: if (live) r[s.to] = bits(widen(((const int*)p.at[s.a])[lane / s.b % s.c])); break;
      case 16: if (live && lane % s.c == 0) ((int*)p.at[s.to])[lane / s.c] = narrow<int>(i(s.a)); break;
      case 17: r[s.to] = bits(f_to_i32(f(s.a))); break;
      case 18: r[s.to] = bits(i(s.a)); break;
      case 19: if (live) r[s.to] = bits(widen(((const u8*)p.at[s.a])[lane / s.b % s.c])); break;
      case 20: if (live && lane % s.c == 0) ((u8*)p.at[s.to])[lane / s.c] = narrow<u8>(i(s.a)); break;
      case 21: r[s.to] = bits(f(s.a) != 0); break;
      case 22: r[s.to] = bits(i(s.a) != 0); break;
      case 23: r[s.to] = bits(-f(s.a)); break;
      case 24: r[s.to] = bits(fabsf(f(s.a))); break;
      case 25: r[s.to] = bits(f_sign(f(s.a))); break;
      case 26: r[s.to] = bits(expf(f(s.a))); break;
      case 27: r[s.to] = bits(logf(f(s.a))); break;
      case 28: r[s.to] = bits(sqrtf(f(s.a))); break;
      case 29: r[s.to] = bits(1.0f / sqrtf(f(s.a))); break;
      case 30: r[s.to] = bits(tanhf(f(s.a))); break;
      case 31: r[s.to] = bits(f_sigmoid(f(s.a))); break;
      case 32: r[s.to] = bits(f_relu(f(s.a))); break;
      case 33: r[s.to] = bits(f(s.a) * f(s.a)); break;
      case 34: r[s.to] = bits(f(s.a) + f(s.b)); break;
      case 35: r[s.to] = bits(f(s.a) - f(s.b)); break;
      case 36: r[s.to] = bits(f(s.a) * f(s.b)); break;
      case 37: r[s.to] = bits(f(s.a) / f(s.b)); break;
      case 38: r[s.to] = bits(f_max(f(s.a), f(s.b))); break;
      case 39: r[s.to] = bits(f_min(f(s.a), f(s.b))); break;
      case 40: r[s.to] = bits(f(s.a) == f(s.b)); break;
      case 41: r[s.to] = bits(f(s.a) != f(s.b)); break;
      case 42: r[s.to] = bits(f(s.a) < f(s.b)); break;
      case 43: r[s.to] = bits(f(s.a) <= f(s.b)); break;
      case 44: r[s.to] = bits(f(s.a) > f(s.b)); break;
      case 45: r[s.to] = bits(f(s.a) >= f(s.b)); break;
      case 46: r[s.to] = bits(i_neg(i(s.a))); break;
      case 47: r[s.to] = bits(i_abs(i(s.a))); break;
      case 48: r[s.to] = bits(i_sign(i(s.a))); break;
      case 49: r[s.to] = bits(!i(s.a)); break;
      case 50: r[s.to] = bits(i_add(i(s.a), i(s.b))); break;
      case 51: r[s.to] = bits(i_sub(i(s.a), i(s.b))); break;
      case 52: r[s.to] = bits(i_mul(i(s.a), i(s.b))); break;
      case 53: r[s.to] = bits(i_max(i(s.a), i(s.b))); break;
      case 54: r[s.to] = bits(i_min(i(s.a), i(s.b))); break;
      case 55: r[s.to] = bits(i(s.a) & i(s.b)); break;
      case 56: r[s.to] = bits(i(s.a) | i(s.b)); break;
      case 57: r[s.to] = bits(i(s.a) == i(s.b)); break;
      case 58: r[s.to] = bits(i(s.a) != i(s.b)); break;
      case 59: r[s.to] = bits(i(s.a) < i(s.b)); break;
      case 60: r[s.to] = bits(i(s.a) <= i(s.b)); break;
      case 61: r[s.to] = bits(i(s.a) > i(s.b)); break;
      case 62: r[s.to] = bits(i(s.a) >= i(s.b)); break;
      case 63: r[s.to] = bits(team_fold<Sum, 32>(live ? (float)(f(s.a)) : (float)(0.0f))); break;
      case 64: r[s.to] = bits(team_fold<Sum, 32>(live ? (float)(f(s.a)) : (float)(0.0f)) / (float)elements); break;
      case 65: r[s.to] = bits((float)sqrt(team_fold<Sum, 32>(live ? (double)((double)f(s.a) * f(s.a)) : (double)(0.0f)))); break;
      case 66: r[s.to] = bits(team_fold<Max, 32>(live ? (float)(f(s.a)) : (float)(-INF))); break;
      case 67: r[s.to] = bits(team_fold<Min, 32>(live ? (float)(f(s.a)) : (float)(INF))); break;
    }
  }
}
