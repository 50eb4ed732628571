// Vectors of eight floats, with the vector extensions of GCC and Clang: one source for AVX2, AVX-512, NEON and others.
// The few places that need intrinsics have a portable version.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LANES 8

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));
typedef int8_t byte_vec __attribute__((vector_size(LANES)));

enum kind { FLOAT32, BFLOAT16, INT8, INT4, FLOAT16 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")  // arrays of vectors become registers only in unrolled loops
#define LOAD(type, from) ({ type loaded_; memcpy(&loaded_, (from), sizeof loaded_); loaded_; })

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE float sum(vec v) {
    typedef float quarter __attribute__((vector_size(16)));
    quarter low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, (const char *)&v + sizeof low, sizeof high);
    low += high;
    return (low[0] + low[2]) + (low[1] + low[3]);
}

INLINE float from_bfloat16(uint16_t half) {  // the upper half of a float
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint16_t to_bfloat16(float value) {  // ties to even; NaN stays NaN
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE vec from_halves(half_vec halves) {
#if defined(__AVX2__)
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)halves), 16);
#else
    return (vec)(__builtin_convertvector(halves, uvec) << 16);
#endif
}

INLINE half_vec to_halves(vec values) {  // to bfloat16
    uvec bits = (uvec)values, nan = (uvec)((bits & 0x7fffffff) > 0x7f800000);
    uvec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector((nan & (bits >> 16 | 0x40)) | (~nan & rounded), half_vec);
}

INLINE vec from_float16(half_vec halves) {
#if defined(__F16C__)
    return (vec)_mm256_cvtph_ps((__m128i)halves);
#elif defined(__aarch64__)
    float16x8_t values = vreinterpretq_f16_u16((uint16x8_t)halves);
    float32x4_t low = vcvt_f32_f16(vget_low_f16(values)), high = vcvt_high_f32_f16(values);
    vec wide;
    memcpy(&wide, &low, sizeof low);
    memcpy((char *)&wide + sizeof low, &high, sizeof high);
    return wide;
#else
    // Exponent and mantissa moved to a float's fields give the value divided by 2^112, subnormals included. Infinity
    // and NaN, whose exponents are all ones, would become finite.
    uvec bits = __builtin_convertvector(halves, uvec), shifted = (bits & 0x7fff) << 13;
    uvec special = (uvec)((bits & 0x7c00) == 0x7c00), value = (uvec)((vec)shifted * 0x1p112f);
    return (vec)((special & (shifted | 0x7f800000)) | (~special & value) | (bits & 0x8000) << 16);
#endif
}

INLINE half_vec to_float16(vec values) {  // ties to even
#if defined(__F16C__)
    return (half_vec)_mm256_cvtps_ph((__m256)values, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__aarch64__)
    float32x4_t low, high;
    memcpy(&low, &values, sizeof low);
    memcpy(&high, (const char *)&values + sizeof low, sizeof high);
    return (half_vec)vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(low), high));
#else
    half_vec halves;
    for (int i = 0; i < LANES; i++) {
        float value = values[i], magnitude = fabsf(value);
        uint32_t bits;
        if (!(magnitude < 65520.0f)) {
            bits = magnitude != magnitude ? 0x7e00 : 0x7c00;
        } else if (magnitude < 0x1p-14f) {  // subnormal: multiples of 2^-24
            bits = (uint32_t)rintf(magnitude * 0x1p24f);
        } else {
            uint32_t wide;
            memcpy(&wide, &magnitude, sizeof wide);
            bits = ((wide + 0xfff + ((wide >> 13) & 1)) >> 13) - (112 << 10);
        }
        halves[i] = (uint16_t)(bits | (signbit(value) ? 0x8000 : 0));
    }
    return halves;
#endif
}

INLINE vec to_float(ivec values) { return __builtin_convertvector(values, vec); }

INLINE vec upcast(enum kind kind, const char *row, int64_t column) {
    if (kind == FLOAT32) return LOAD(vec, row + 4 * column);
    half_vec halves = LOAD(half_vec, row + 2 * column);
    return kind == FLOAT16 ? from_float16(halves) : from_halves(halves);
}

INLINE void store(enum kind kind, char *row, int64_t column, vec values) {
    if (kind == FLOAT32) {
        memcpy(row + 4 * column, &values, sizeof values);
    } else {
        half_vec halves = kind == FLOAT16 ? to_float16(values) : to_halves(values);
        memcpy(row + 2 * column, &halves, sizeof halves);
    }
}

// e^x for x <= 0, within two units in the last place; 0 below -87.3, NaN for NaN.
INLINE vec exponential(vec x) {
    const vec limit = {-87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f};
    ivec is_tiny = x < limit;
    x = (vec)((is_tiny & (ivec)limit) | (~is_tiny & (ivec)x));
    // x = n ln 2 + r, with ln 2 in two parts; adding 1.5 * 2^23 rounds to an integer.
    vec shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec exponent = ((ivec)shifted + 127) << 23;  // the low bits of `shifted` are n
    return (vec)(~is_tiny & (ivec)(p * (vec)exponent));
}
