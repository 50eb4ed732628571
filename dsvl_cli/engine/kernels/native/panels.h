// Products with 8- and 4-bit weights in panels.
//
// A panel holds PANEL rows of a weight (out-features), interleaved so that 64 bytes are the same four columns of all of
// them: a vector of integer dot products holds the sums of different rows and needs no horizontal step, scales apply to
// a vector at once, and the same layout serves one row of activations and many. INT8: a byte each, -127 to 127. INT4:
// for each group of 64 columns 8 times 64 bytes; byte vector i has columns 4i to 4i + 3 of the group in the low nibbles
// and columns 32 + 4i to 32 + 4i + 3 in the high ones, each offset by 8. The last panel is padded with zeros.
//
// Activations are quantized too:
// - in groups of GROUP columns to 8 bits with a scale each, for INT4, and for INT8 where the CPU multiplies bytes
//   (VNNI, NEON's dot products, and the portable code);
// - in spans of SPAN columns to 16 bits with a scale each, for INT8 with AVX2 alone: there a product of bytes is no
//   faster than one of 16 bits, whose error is that of float activations.

#pragma once

#include <stdlib.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "vectors.h"

#define PANEL 16
#define GROUP 64
#define SPAN 512
#define MAX_ROWS 192  // whose activations of a span stay in the second-level cache

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define VNNI 1
#define WIDTH 16
#define TILE 8
typedef __m512i ints;
typedef __m512 floats;
#elif defined(__ARM_FEATURE_DOTPROD)
#define VNNI 0
#define WIDTH 4
#define TILE 4
typedef int32x4_t ints;
typedef float32x4_t floats;
#else
#if defined(__AVXVNNI__)
#define VNNI 1
#else
#define VNNI 0
#endif
#define WIDTH 8
#define TILE 6
typedef ivec ints;
typedef vec floats;
#endif
#define PARTS (PANEL / WIDTH)  // vectors a panel

#if defined(__AVX2__) && !VNNI
#define AVX2_ALONE 1
#else
#define AVX2_ALONE 0
#endif
// VNNI multiplies unsigned bytes with signed ones: the weights are unsigned, and what they are offset by is subtracted.
#define INT8_OFFSET (VNNI ? 128 : 0)

INLINE int uses_16_bits(enum kind kind) { return AVX2_ALONE && kind == INT8; }
INLINE int is_panel(enum kind kind) { return kind == INT8 || kind == INT4; }
INLINE int64_t panels_of(int64_t outs) { return (outs + PANEL - 1) / PANEL; }
INLINE int64_t panel_bytes(enum kind kind, int64_t columns) { return PANEL * columns / (kind == INT4 ? 2 : 1); }

// Activations quantized for one kind of weights.
//
// `values`: (spans, rows, SPAN), int8 or int16: rows of a power of two in length would compete for few lines of the
// caches. `scales` and `offsets`: (rows, columns / GROUP), of which 16-bit values use one scale per span. `offsets` is
// what the offset of the weights adds to a group's sum, negated.
struct quantized {
    void *values;
    float *scales;
    int32_t *offsets;
    int64_t columns;
};

INLINE int64_t spans_of(int64_t columns) { return (columns + SPAN - 1) / SPAN; }
INLINE int64_t quantized_bytes(int64_t rows, int64_t columns) {
    return rows * (2 * SPAN * spans_of(columns) + 8 * (columns / GROUP)) + 3 * 64;
}

INLINE char *align_up(char *place) { return (char *)(((uintptr_t)place + 63) & ~(uintptr_t)63); }

INLINE struct quantized place_quantized(char *scratch, int64_t rows, int64_t columns) {
    char *values = align_up(scratch), *scales = align_up(values + 2 * SPAN * rows * spans_of(columns));
    char *offsets = align_up(scales + 4 * rows * (columns / GROUP));
    return (struct quantized){values, (float *)scales, (int32_t *)offsets, columns};
}

// The largest magnitude; infinity or NaN if there is any.
INLINE float find_largest(const float *x, int64_t count) {
    uvec largest = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        uvec bits = LOAD(uvec, x + i) & 0x7fffffff;  // ordered like the magnitudes, NaN above infinity
        uvec larger = (uvec)(bits > largest);
        largest = (larger & bits) | (~larger & largest);
    }
    uint32_t top = 0;
    for (int i = 0; i < LANES; i++) top = largest[i] > top ? largest[i] : top;
    float value;
    memcpy(&value, &top, sizeof value);
    return value;
}

INLINE ivec round_scaled(const float *x, float inverse) {
    vec scaled = LOAD(vec, x) * inverse;
    return (ivec)(scaled + 12582912.0f) - 0x4b400000;  // 1.5 * 2^23: the low bits are the nearest integer
}

// 8 bits: a group. Values that are not finite make the scale NaN, and with it every product.
INLINE void quantize_group(const float *x, int8_t *values, float *scale, int32_t *offset, int32_t weight_offset) {
    float largest = find_largest(x, GROUP);
    int is_finite = largest < INFINITY;
    float inverse = is_finite && largest > 1e-30f ? 127.0f / largest : 0;
    ivec total = {0};
    for (int i = 0; i < GROUP; i += LANES) {
        ivec rounded = is_finite ? round_scaled(x + i, inverse) : (ivec){0};
        total += rounded;
        byte_vec bytes = __builtin_convertvector(rounded, byte_vec);
        memcpy(values + i, &bytes, sizeof bytes);
    }
    int32_t all = 0;
    for (int i = 0; i < LANES; i++) all += total[i];
    *scale = is_finite ? largest / 127.0f : NAN;
    *offset = -weight_offset * all;
}

// 16 bits: a span. SPAN / 2 products of two pairs fit in 32 bits: 512 * 127 * 32767 < 2^31.
INLINE void quantize_span(const float *x, int64_t count, int16_t *values, float *scale) {
    typedef int16_t short_vec __attribute__((vector_size(2 * LANES)));
    float largest = find_largest(x, count);
    int is_finite = largest < INFINITY;
    float inverse = is_finite && largest > 1e-30f ? 32767.0f / largest : 0;
    for (int64_t i = 0; i < count; i += LANES) {
        ivec rounded = is_finite ? round_scaled(x + i, inverse) : (ivec){0};
        short_vec shorts = __builtin_convertvector(rounded, short_vec);
        memcpy(values + i, &shorts, sizeof shorts);
    }
    *scale = is_finite ? largest / 32767.0f : NAN;
}

// Quantizes rows (rows, columns); the threads of the team share it.
static void quantize_rows(enum kind kind, const float *x, int64_t rows, struct quantized to) {
    int64_t groups = to.columns / GROUP, spans = spans_of(to.columns);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < rows * spans; task++) {
        int64_t n = task / spans, from = task % spans * SPAN, count = smaller(SPAN, to.columns - from);
        int64_t place = (task % spans * rows + n) * SPAN;
        const float *row = x + n * to.columns + from;
        if (uses_16_bits(kind)) {
            quantize_span(row, count, (int16_t *)to.values + place, to.scales + n * groups + from / GROUP);
            continue;
        }
        for (int64_t i = 0; i < count; i += GROUP) {
            int64_t group = n * groups + (from + i) / GROUP;
            int32_t offset = kind == INT4 ? 8 : INT8_OFFSET;
            quantize_group(row + i, (int8_t *)to.values + place + i, to.scales + group, to.offsets + group, offset);
        }
    }
}

// --- one vector of integer dot products ---

#if WIDTH == 16
INLINE ints broadcast(int32_t value) { return _mm512_set1_epi32(value); }
INLINE floats spread(float value) { return _mm512_set1_ps(value); }
INLINE floats int_to_float(ints value) { return _mm512_cvtepi32_ps(value); }
INLINE floats load_bfloat16(const uint16_t *from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(LOAD(__m256i, from)), 16));
}
INLINE ints dot(ints total, ints weights, int32_t quad) {
    return _mm512_dpbusd_epi32(total, weights, _mm512_set1_epi32(quad));
}
INLINE ints load_int8(const uint8_t *from) {
    return _mm512_xor_si512(LOAD(ints, from), _mm512_set1_epi8((char)0x80));
}
INLINE ints low_nibbles(ints bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi8(15)); }
INLINE ints high_nibbles(ints bytes) { return low_nibbles(_mm512_srli_epi16(bytes, 4)); }
#elif defined(__ARM_FEATURE_DOTPROD)
INLINE ints broadcast(int32_t value) { return vdupq_n_s32(value); }
INLINE floats spread(float value) { return vdupq_n_f32(value); }
INLINE floats int_to_float(ints value) { return vcvtq_f32_s32(value); }
INLINE floats load_bfloat16(const uint16_t *from) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from), 16));
}
INLINE ints dot(ints total, ints weights, int32_t quad) {
    return vdotq_s32(total, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(vdupq_n_s32(quad)));
}
INLINE ints load_int8(const uint8_t *from) { return LOAD(ints, from); }
INLINE ints low_nibbles(ints bytes) {
    return vreinterpretq_s32_u8(vandq_u8(vreinterpretq_u8_s32(bytes), vdupq_n_u8(15)));
}
INLINE ints high_nibbles(ints bytes) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(bytes), 4)); }
#else
INLINE ints broadcast(int32_t value) { return (ints){0} + value; }
INLINE floats spread(float value) { return (floats){0} + value; }
INLINE floats int_to_float(ints value) { return to_float(value); }
INLINE floats load_bfloat16(const uint16_t *from) { return from_halves(LOAD(half_vec, from)); }
INLINE ints low_nibbles(ints bytes) { return bytes & 0x0f0f0f0f; }
INLINE ints high_nibbles(ints bytes) { return (ints)((uvec)bytes >> 4) & 0x0f0f0f0f; }
#if VNNI
INLINE ints dot(ints total, ints weights, int32_t quad) {
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)total, (__m256i)weights, _mm256_set1_epi32(quad));
}
INLINE ints load_int8(const uint8_t *from) { return LOAD(ints, from) ^ (ints)_mm256_set1_epi8((char)0x80); }
#else
INLINE ints dot(ints total, ints weights, int32_t quad) {
    int8_t w[4 * WIDTH], x[4];
    memcpy(w, &weights, sizeof w);
    memcpy(x, &quad, sizeof x);
    for (int i = 0; i < WIDTH; i++)
        total[i] += w[4 * i] * x[0] + w[4 * i + 1] * x[1] + w[4 * i + 2] * x[2] + w[4 * i + 3] * x[3];
    return total;
}
INLINE ints load_int8(const uint8_t *from) { return LOAD(ints, from); }
#endif
#endif

// --- tiles: the products of a few rows with a panel, added to `total` ---

struct sums {
    floats of[TILE][PARTS];
};

// Where a tile reads: the activations of `TILE` rows, or fewer, from one column on, and the panel from that column on.
struct inputs {
    const char *values;
    const float *scales;
    const int32_t *offsets;
    int64_t stride;  // bytes from a span of all rows to the next one
    int64_t groups;  // from a row's scales to the next row's
    const uint8_t *weights;
    const uint16_t *weight_scales;  // INT4: (groups, PANEL), bfloat16
};

#if !AVX2_ALONE

// 8-bit activations with whole groups of 8- or 4-bit weights.
INLINE void multiply_tile(enum kind kind, const int rows, struct inputs in, int64_t columns, struct sums *total) {
    for (int64_t group = 0; group < columns / GROUP; group++) {
        ints sums[TILE][PARTS];
        UNROLL for (int n = 0; n < rows; n++)
            UNROLL for (int p = 0; p < PARTS; p++) sums[n][p] = broadcast(in.offsets[n * in.groups + group]);
        const char *values = in.values + group / (SPAN / GROUP) * in.stride + GROUP * group % SPAN;
        if (kind == INT4) {
            for (int i = 0; i < GROUP / 8; i++, in.weights += 4 * PANEL) {
                __builtin_prefetch(in.weights + 2048);
                UNROLL for (int p = 0; p < PARTS; p++) {
                    ints bytes = LOAD(ints, in.weights + 4 * WIDTH * p);
                    ints low = low_nibbles(bytes), high = high_nibbles(bytes);
                    UNROLL for (int n = 0; n < rows; n++) {
                        const char *row = values + n * SPAN + 4 * i;
                        sums[n][p] = dot(sums[n][p], low, LOAD(int32_t, row));
                        sums[n][p] = dot(sums[n][p], high, LOAD(int32_t, row + GROUP / 2));
                    }
                }
            }
        } else {
            for (int i = 0; i < GROUP / 4; i++, in.weights += 4 * PANEL) {
                __builtin_prefetch(in.weights + 2048);
                UNROLL for (int p = 0; p < PARTS; p++) {
                    ints bytes = load_int8(in.weights + 4 * WIDTH * p);
                    UNROLL for (int n = 0; n < rows; n++)
                        sums[n][p] = dot(sums[n][p], bytes, LOAD(int32_t, values + n * SPAN + 4 * i));
                }
            }
        }
        UNROLL for (int p = 0; p < PARTS; p++) {
            UNROLL for (int n = 0; n < rows; n++) {
                floats scale = spread(in.scales[n * in.groups + group]);
                if (kind == INT4) scale *= load_bfloat16(in.weight_scales + PANEL * group + WIDTH * p);
                total->of[n][p] += int_to_float(sums[n][p]) * scale;
            }
        }
    }
}

#define DIRECT_ROWS TILE
INLINE void unpack(enum kind kind, const uint8_t *weights, int64_t columns, char *to) {
    (void)kind, (void)weights, (void)columns, (void)to;
}
INLINE void multiply_unpacked(enum kind kind, const int rows, struct inputs in, int64_t columns, struct sums *total) {
    multiply_tile(kind, rows, in, columns, total);
}

#else

// In the inner loops all 16 registers are in use: 12 sums, two vectors of weights, activations, and a product. From
// intrinsics GCC and Clang make code with copies and spilled sums, which takes twice as long.
#define KEEP(vector) __asm__("" : "+x"(vector))  // in a register: not loaded again for each row

INLINE void add_bytes(__m256i *total, __m256i weights, __m256i quads) {  // sums of pairs, 16 bits
    __m256i product;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(*total), "=&x"(product) : "x"(weights), "x"(quads));
}

INLINE void add_shorts(__m256i *total, __m256i weights, __m256i quads) {  // sums of pairs, 32 bits
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(*total), "=&x"(product) : "x"(weights), "x"(quads));
}

INLINE ivec widen_pairs(__m256i sums) {
    static const int16_t ones[16] __attribute__((aligned(32))) = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    __asm__("vpmaddwd %1, %0, %0" : "+x"(sums) : "m"(*(const __m256i *)ones));
    return (ivec)sums;
}

// 4-bit weights: the sums of eight products of pairs fit in 16 bits, 8 * 2 * 15 * 127.
INLINE void multiply_int4(const int rows, struct inputs in, int64_t columns, struct sums *total) {
    const __m256i mask = _mm256_set1_epi8(15);
    for (int64_t group = 0; group < columns / GROUP; group++) {
        __m256i low[TILE][PARTS], high[TILE][PARTS];
        UNROLL for (int n = 0; n < rows; n++)
            UNROLL for (int p = 0; p < PARTS; p++) low[n][p] = high[n][p] = _mm256_setzero_si256();
        const char *values = in.values + group / (SPAN / GROUP) * in.stride + GROUP * group % SPAN;
        for (int i = 0; i < GROUP / 8; i++, in.weights += 4 * PANEL) {
            __builtin_prefetch(in.weights + 2048);
            UNROLL for (int p = 0; p < PARTS; p++) {
                __m256i bytes = LOAD(__m256i, in.weights + 32 * p);
                __m256i first = _mm256_and_si256(bytes, mask);
                __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
                UNROLL for (int n = 0; n < rows; n++) {
                    const char *row = values + n * SPAN + 4 * i;
                    add_bytes(&low[n][p], first, _mm256_set1_epi32(LOAD(int32_t, row)));
                    add_bytes(&high[n][p], second, _mm256_set1_epi32(LOAD(int32_t, row + GROUP / 2)));
                }
            }
        }
        UNROLL for (int p = 0; p < PARTS; p++) {
            vec scale = load_bfloat16(in.weight_scales + PANEL * group + WIDTH * p);
            UNROLL for (int n = 0; n < rows; n++) {
                ivec whole = widen_pairs(low[n][p]) + widen_pairs(high[n][p]) + in.offsets[n * in.groups + group];
                total->of[n][p] += to_float(whole) * (scale * in.scales[n * in.groups + group]);
            }
        }
    }
}

// The same with the nibbles unpacked: 16 times 64 bytes a group.
INLINE void multiply_nibbles(const int rows, struct inputs in, int64_t columns, struct sums *total) {
    for (int64_t group = 0; group < columns / GROUP; group++) {
        ivec whole[TILE][PARTS];
        UNROLL for (int half = 0; half < 2; half++) {
            __m256i sums[TILE][PARTS];
            UNROLL for (int n = 0; n < rows; n++)
                UNROLL for (int p = 0; p < PARTS; p++) sums[n][p] = _mm256_setzero_si256();
            const char *values = in.values + GROUP * group + GROUP / 2 * half;
            for (int i = 0; i < GROUP / 8; i++, in.weights += 4 * PANEL) {
                __m256i a = LOAD(__m256i, in.weights), b = LOAD(__m256i, in.weights + 32);
                KEEP(a);
                KEEP(b);
                UNROLL for (int n = 0; n < rows; n++) {
                    __m256i quad = _mm256_set1_epi32(LOAD(int32_t, values + n * SPAN + 4 * i));
                    add_bytes(&sums[n][0], a, quad);
                    add_bytes(&sums[n][1], b, quad);
                }
            }
            UNROLL for (int n = 0; n < rows; n++)
                UNROLL for (int p = 0; p < PARTS; p++) {
                    ivec part = widen_pairs(sums[n][p]);
                    whole[n][p] = half ? whole[n][p] + part : part + in.offsets[n * in.groups + group];
                }
        }
        UNROLL for (int p = 0; p < PARTS; p++) {
            vec scale = load_bfloat16(in.weight_scales + PANEL * group + WIDTH * p);
            UNROLL for (int n = 0; n < rows; n++)
                total->of[n][p] += to_float(whole[n][p]) * (scale * in.scales[n * in.groups + group]);
        }
    }
}

// The sums of pairs of two vectors, four rows of the panel each, in the order of the rows.
INLINE vec join_pairs(__m256i first, __m256i second) {
    return to_float((ivec)_mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), 0xd8));
}

// 8-bit weights with 16-bit activations, `columns` of at most a span; all weights widened in registers.
INLINE void multiply_int8(const int rows, struct inputs in, int64_t columns, struct sums *total) {
    for (int64_t from = 0; from < columns; from += SPAN) {
        int64_t quads = smaller(SPAN, columns - from) / 4;
        __m256i sums[TILE][2 * PARTS];
        UNROLL for (int n = 0; n < rows; n++)
            UNROLL for (int p = 0; p < 2 * PARTS; p++) sums[n][p] = _mm256_setzero_si256();
        const char *values = in.values + from / SPAN * in.stride;
        for (int64_t i = 0; i < quads; i++, in.weights += 4 * PANEL) {
            __builtin_prefetch(in.weights + 2048);
            UNROLL for (int p = 0; p < 2 * PARTS; p++) {
                __m256i wide = _mm256_cvtepi8_epi16(LOAD(__m128i, in.weights + 16 * p));
                UNROLL for (int n = 0; n < rows; n++) {
                    __m256i quad = _mm256_set1_epi64x(LOAD(int64_t, values + n * 2 * SPAN + 8 * i));
                    add_shorts(&sums[n][p], wide, quad);
                }
            }
        }
        UNROLL for (int n = 0; n < rows; n++)
            UNROLL for (int p = 0; p < PARTS; p++) {
                vec joined = join_pairs(sums[n][2 * p], sums[n][2 * p + 1]);
                total->of[n][p] += joined * in.scales[n * in.groups + from / GROUP];
            }
    }
}

// The same with the weights widened: two halves of the panel, 32 bytes a quad of four rows each. Not more than a span.
INLINE void multiply_shorts(const int rows, struct inputs in, int64_t columns, struct sums *total) {
    for (int p = 0; p < PARTS; p++) {
        const uint8_t *weights = in.weights + 16 * columns * p, *end = weights + 16 * columns;
        const char *values = in.values;
        __m256i first[TILE], second[TILE];
        UNROLL for (int n = 0; n < rows; n++) first[n] = second[n] = _mm256_setzero_si256();
        for (; weights < end; weights += 64, values += 8) {
            __m256i a = LOAD(__m256i, weights), b = LOAD(__m256i, weights + 32);
            KEEP(a);
            KEEP(b);
            UNROLL for (int n = 0; n < rows; n++) {
                __m256i quad = _mm256_set1_epi64x(LOAD(int64_t, values + n * 2 * SPAN));
                add_shorts(&first[n], a, quad);
                add_shorts(&second[n], b, quad);
            }
        }
        UNROLL for (int n = 0; n < rows; n++)
            total->of[n][p] += join_pairs(first[n], second[n]) * in.scales[n * in.groups];
    }
}

// Functions of their own: within a larger one the compiler runs out of registers.
#define DEFINE_UNPACKED(rows) \
    static __attribute__((noinline)) void multiply_unpacked_##rows( \
        enum kind kind, struct inputs in, int64_t columns, struct sums *total \
    ) { \
        if (kind == INT4) \
            multiply_nibbles(rows, in, columns, total); \
        else \
            multiply_shorts(rows, in, columns, total); \
    }
DEFINE_UNPACKED(1)
DEFINE_UNPACKED(2)
DEFINE_UNPACKED(3)
DEFINE_UNPACKED(4)
DEFINE_UNPACKED(5)
DEFINE_UNPACKED(6)

INLINE void multiply_tile(enum kind kind, const int rows, struct inputs in, int64_t columns, struct sums *total) {
    if (kind == INT4)
        multiply_int4(rows, in, columns, total);
    else
        multiply_int8(rows, in, columns, total);
}

INLINE void multiply_unpacked(enum kind kind, const int rows, struct inputs in, int64_t columns, struct sums *total) {
    switch (rows) {
        case 1: multiply_unpacked_1(kind, in, columns, total); break;
        case 2: multiply_unpacked_2(kind, in, columns, total); break;
        case 3: multiply_unpacked_3(kind, in, columns, total); break;
        case 4: multiply_unpacked_4(kind, in, columns, total); break;
        case 5: multiply_unpacked_5(kind, in, columns, total); break;
        default: multiply_unpacked_6(kind, in, columns, total);
    }
}

#define DIRECT_ROWS 2  // more rows share weights that are unpacked once

// A span of a panel: nibbles to bytes, bytes to 16 bits.
INLINE void unpack(enum kind kind, const uint8_t *weights, int64_t columns, char *to) {
    if (kind == INT4) {
        const __m256i mask = _mm256_set1_epi8(15);
        for (int64_t group = 0; group < columns / GROUP; group++, to += PANEL * GROUP)
            for (int i = 0; i < PANEL * GROUP / 2; i += 32, weights += 32) {
                __m256i bytes = LOAD(__m256i, weights);
                _mm256_store_si256((__m256i *)(to + i), _mm256_and_si256(bytes, mask));
                bytes = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
                _mm256_store_si256((__m256i *)(to + PANEL * GROUP / 2 + i), bytes);
            }
        return;
    }
    for (int p = 0; p < 2 * PARTS; p++)
        for (int64_t i = 0; i < columns / 4; i++) {
            __m256i wide = _mm256_cvtepi8_epi16(LOAD(__m128i, weights + 64 * i + 16 * p));
            _mm256_store_si256((__m256i *)(to + p / 2 * 16 * columns + 64 * i + p % 2 * 32), wide);
        }
}

#endif

// --- whole products ---

INLINE void add_tile(
    enum kind kind, const int rows, int is_unpacked, struct inputs in, int64_t columns, const float *row_scales,
    float *y, int64_t stride, int outs, int is_first
) {
    struct sums total;
    UNROLL for (int n = 0; n < rows; n++)
        UNROLL for (int p = 0; p < PARTS; p++) total.of[n][p] = spread(0);
    if (is_unpacked)
        multiply_unpacked(kind, rows, in, columns, &total);
    else
        multiply_tile(kind, rows, in, columns, &total);
    UNROLL for (int n = 0; n < rows; n++) {
        float sums[PANEL] __attribute__((aligned(64)));
        memcpy(sums, total.of[n], sizeof sums);
        float *to = y + n * stride;
        for (int o = 0; o < outs; o++) {
            float value = kind == INT8 ? sums[o] * row_scales[o] : sums[o];
            to[o] = is_first ? value : to[o] + value;
        }
    }
}

// Calls a macro with a constant number of rows.
#if TILE == 8
#define MORE_ROWS(call) \
    case 5: call(5); break; \
    case 6: call(6); break; \
    case 7: call(7); break; \
    default: call(8);
#elif TILE == 6
#define MORE_ROWS(call) \
    case 5: call(5); break; \
    default: call(6);
#else
#define MORE_ROWS(call)
#endif
#define FOR_ROWS(rows, call) \
    switch (rows) { \
        case 1: call(1); break; \
        case 2: call(2); break; \
        case 3: call(3); break; \
        case 4: call(4); break; \
        MORE_ROWS(call) \
    }

// y (rows, outs) = x (rows, columns) times w (outs, columns) transposed, or added to y; the threads share it.
INLINE void multiply_panels(
    enum kind kind, struct quantized x, int64_t rows, const uint8_t *w, const void *scales, int64_t outs, float *y,
    int is_added
) {
    int64_t columns = x.columns, groups = columns / GROUP, panels = panels_of(outs), bytes = panel_bytes(kind, columns);
    int64_t item = uses_16_bits(kind) ? 2 : 1, blocks = (rows + MAX_ROWS - 1) / MAX_ROWS;
    int is_unpacked = DIRECT_ROWS < TILE && rows > DIRECT_ROWS;
    // Without unpacking a panel's sums stay in registers over all columns.
    int64_t step = is_unpacked || rows > TILE ? SPAN : columns;
    // Large enough to stream, small enough that a slower core delays nobody.
    int64_t share = rows > 32 ? 4 : 8, shares = (panels + share - 1) / share;
    char buffer[PANEL * SPAN * 2] __attribute__((aligned(64)));
#pragma omp for schedule(dynamic) nowait
    for (int64_t task = 0; task < blocks * shares; task++) {
        int64_t first = task % shares * share, last = smaller(first + share, panels);
        int64_t start = task / shares * MAX_ROWS, end = smaller(start + MAX_ROWS, rows);
        for (int64_t from = 0; from < columns; from += step) {
            int64_t width = smaller(step, columns - from);
            for (int64_t panel = first; panel < last; panel++) {
                const uint8_t *weights = w + panel * bytes + panel_bytes(kind, from);
                if (is_unpacked) {
                    unpack(kind, weights, width, buffer);
                    weights = (const uint8_t *)buffer;
                }
                int left = (int)smaller(PANEL, outs - panel * PANEL), is_first = from == 0 && !is_added;
                const float *row_scales = (const float *)scales + panel * PANEL;
                for (int64_t n = start; n < end; n += TILE) {
                    struct inputs in = {
                        .values = (const char *)x.values + item * SPAN * (from / SPAN * rows + n),
                        .scales = x.scales + n * groups + from / GROUP,
                        .offsets = x.offsets + n * groups + from / GROUP,
                        .stride = item * SPAN * rows,
                        .groups = groups,
                        .weights = weights,
                        .weight_scales = (const uint16_t *)scales + (panel * groups + from / GROUP) * PANEL,
                    };
                    float *to = y + n * outs + panel * PANEL;
#define ADD_TILE(count) \
    if (is_unpacked) \
        add_tile(kind, count, 1, in, width, row_scales, to, outs, left, is_first); \
    else if (count <= DIRECT_ROWS) \
        add_tile(kind, count, 0, in, width, row_scales, to, outs, left, is_first)
                    FOR_ROWS(smaller(TILE, end - n), ADD_TILE)
#undef ADD_TILE
                }
            }
        }
    }
}

// --- packing ---

INLINE float nearest_code(float weight, float scale) {
    float code = rintf(weight / scale);
    code = code < -8 ? -8 : code;
    return code > 7 ? 7 : code;
}

INLINE float choose_scale(const float *w) {
    static const float steps[] = {-8.0f, -8.5f, -7.5f, -9.0f, 7.5f};
    float largest = 0, best = INFINITY, chosen = 1;
    for (int i = 0; i < GROUP; i++)
        if (fabsf(w[i]) > fabsf(largest)) largest = w[i];
    for (int s = 0; s < 5; s++) {
        float candidate = from_bfloat16(to_bfloat16(largest / steps[s]));
        if (candidate == 0) candidate = from_bfloat16(to_bfloat16(1e-12f));
        float error = 0;
#pragma omp simd reduction(+ : error)
        for (int i = 0; i < GROUP; i++) {
            float code = nearest_code(w[i], candidate);
            error += (code * candidate - w[i]) * (code * candidate - w[i]);
        }
        if (error < best) best = error, chosen = candidate;
    }
    return chosen;
}

INLINE void pack_row_int4(const float *row, int64_t columns, uint8_t *panel, uint16_t *scales) {
    for (int64_t group = 0; group < columns / GROUP; group++, row += GROUP, panel += PANEL * GROUP / 2) {
        float scale = choose_scale(row);
        scales[group * PANEL] = to_bfloat16(scale);
        for (int i = 0; i < GROUP / 2; i++) {
            int low = 8 + (int)nearest_code(row[i], scale), high = 8 + (int)nearest_code(row[GROUP / 2 + i], scale);
            panel[i / 4 * 4 * PANEL + i % 4] = (uint8_t)(low | high << 4);
        }
    }
}

INLINE void pack_row_int8(const float *row, int64_t columns, uint8_t *panel, float *scale) {
    float largest = 0;
    for (int64_t i = 0; i < columns; i++) largest = fmaxf(largest, fabsf(row[i]));
    *scale = fmaxf(largest / 127.0f, 1e-12f);
    for (int64_t i = 0; i < columns; i++) panel[i / 4 * 4 * PANEL + i % 4] = (uint8_t)(int8_t)rintf(row[i] / *scale);
}

INLINE void store_float(enum kind kind, char *row, int64_t column, float value) {
    if (kind == FLOAT32) {
        ((float *)row)[column] = value;
    } else {
        ((uint16_t *)row)[column] = to_bfloat16(value);
    }
}

INLINE void unpack_row_int8(const uint8_t *panel, float scale, int64_t columns, enum kind kind, char *to) {
    for (int64_t i = 0; i < columns; i++)
        store_float(kind, to, i, (float)(int8_t)panel[i / 4 * 4 * PANEL + i % 4] * scale);
}

INLINE void unpack_row_int4(const uint8_t *panel, const uint16_t *scales, int64_t columns, enum kind kind, char *to) {
    for (int64_t group = 0; group < columns / GROUP; group++, panel += PANEL * GROUP / 2) {
        float scale = from_bfloat16(scales[group * PANEL]);
        for (int i = 0; i < GROUP / 2; i++) {
            uint8_t pair = panel[i / 4 * 4 * PANEL + i % 4];
            store_float(kind, to, GROUP * group + i, (float)((pair & 15) - 8) * scale);
            store_float(kind, to, GROUP * group + GROUP / 2 + i, (float)((pair >> 4) - 8) * scale);
        }
    }
}
