// The hot operations of a decode step on CPUs: products of few rows with large weights, and single-query attention.
//
// Both read each byte of the weights or the cache once and compute little with it, so they are memory-bound, and
// torch's kernels for these shapes are far from that limit on many CPUs. 16- and 32-bit weights are upcast to float in
// registers. For 8- and 4-bit weights the activations are quantized to 8 bits in groups of 32 or 64 with one scale per
// group, and multiplied as integers, as in llama.cpp; sums over groups are float.
//
// 256-bit vectors, with the vector extensions of GCC and Clang: one source for AVX2, AVX-512, NEON and later ones. The
// few places that need x86 intrinsics have a portable version. compiler.py compiles this file at first use, and every
// function is then checked against plain torch (kernels.py).

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LANES 8
#define GROUP 32   // activations that share a scale where the weights are int8
#define PACK 64    // int4 weights that share a scale, and the activations multiplied with them
#define BLOCK 512  // columns that are upcast at once when several rows share them

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));
typedef int8_t byte_vec __attribute__((vector_size(LANES)));

enum kind { FLOAT32, BFLOAT16, INT8, INT4, FLOAT16 };

#define INLINE static inline __attribute__((always_inline))
#define LOAD(type, from) ({ type loaded_; memcpy(&loaded_, (from), sizeof loaded_); loaded_; })

INLINE float sum(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

INLINE float from_bfloat16(uint16_t half) {  // the upper half of a float
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint16_t to_bfloat16(float value) {  // ties to even
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE vec from_halves(half_vec halves) {
#if defined(__AVX2__)
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)halves), 16);
#else
    return (vec)(__builtin_convertvector(halves, uvec) << 16);
#endif
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

INLINE vec to_float(ivec values) { return __builtin_convertvector(values, vec); }

// Products of weights with 8-bit activations, in eight partial sums: of 32 int8 weights from -127 to 127, or of 64 int4
// weights. The first 32 int4 weights are in the low nibbles of 32 bytes and the others in the high nibbles, each offset
// by 8 (the offset is not subtracted here).
#if defined(__AVX2__)
INLINE ivec multiply_unsigned(__m256i weights, __m256i activations) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (ivec)_mm256_dpbusd_epi32(_mm256_setzero_si256(), weights, activations);
#elif defined(__AVXVNNI__)
    return (ivec)_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), weights, activations);
#else
    // Sums of two fit in 16 bits: 2 * 127 * 127.
    return (ivec)_mm256_madd_epi16(_mm256_maddubs_epi16(weights, activations), _mm256_set1_epi16(1));
#endif
}

INLINE ivec multiply_int8(const char *weights, const int8_t *activations) {
    __m256i w = LOAD(__m256i, weights), x = LOAD(__m256i, activations);
    return multiply_unsigned(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}

INLINE ivec multiply_int4(const char *weights, const int8_t *activations) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i packed = LOAD(__m256i, weights), low = _mm256_and_si256(packed, mask);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
    __m256i x0 = LOAD(__m256i, activations), x1 = LOAD(__m256i, activations + 32);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (ivec)_mm256_dpbusd_epi32(_mm256_dpbusd_epi32(_mm256_setzero_si256(), low, x0), high, x1);
#elif defined(__AVXVNNI__)
    return (ivec)_mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), low, x0), high, x1);
#else
    // Sums of four fit in 16 bits: 4 * 15 * 127.
    __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, x0), _mm256_maddubs_epi16(high, x1));
    return (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
}
#else
INLINE ivec multiply_int8(const char *weights, const int8_t *activations) {
    const int8_t *w = (const int8_t *)weights;
    ivec total = {0};
    for (int i = 0; i < GROUP; i++) total[i / 4] += (int32_t)w[i] * activations[i];
    return total;
}

INLINE ivec multiply_int4(const char *weights, const int8_t *activations) {
    const uint8_t *w = (const uint8_t *)weights;
    ivec total = {0};
    for (int i = 0; i < PACK / 2; i++)
        total[i / 4] += (int32_t)(w[i] & 15) * activations[i] + (int32_t)(w[i] >> 4) * activations[PACK / 2 + i];
    return total;
}
#endif

INLINE vec upcast(enum kind kind, const char *row, int64_t column) {
    if (kind == FLOAT32) return LOAD(vec, row + 4 * column);
    half_vec halves = LOAD(half_vec, row + 2 * column);
    return kind == FLOAT16 ? from_float16(halves) : from_halves(halves);
}

INLINE int64_t row_bytes(enum kind kind, int64_t columns) {
    return kind == FLOAT32 ? 4 * columns : kind == INT8 ? columns : kind == INT4 ? columns / 2 : 2 * columns;
}

// One row of activations with four rows of weights; the next four rows are `ahead` bytes further on.
INLINE void dot(enum kind kind, float y[4], const float *x, const char *const w[4], int64_t columns, int64_t ahead) {
    vec a[4] = {{0}}, b[4] = {{0}};
    int64_t i = 0;
    for (; i + 2 * LANES <= columns; i += 2 * LANES) {
        vec x0 = LOAD(vec, x + i), x1 = LOAD(vec, x + i + LANES);
        for (int r = 0; r < 4; r++) {
            if (ahead) __builtin_prefetch(w[r] + row_bytes(kind, i) + ahead);
            a[r] += x0 * upcast(kind, w[r], i);
            b[r] += x1 * upcast(kind, w[r], i + LANES);
        }
    }
    for (; i < columns; i += LANES)
        for (int r = 0; r < 4; r++) a[r] += LOAD(vec, x + i) * upcast(kind, w[r], i);
    for (int r = 0; r < 4; r++) y[r] = sum(a[r] + b[r]);
}

// A row of activations quantized to 8 bits: values, and for each group its scale and, for int4, eight times its sum.
struct activations {
    const int8_t *values;
    const float *scales;
    const float *eightfold;
};

INLINE void dot_int8(float y[4], struct activations x, const char *const w[4], int64_t columns, int64_t ahead) {
    vec total[4] = {{0}};
    for (int64_t group = 0; group < columns / GROUP; group++)
        for (int r = 0; r < 4; r++) {
            __builtin_prefetch(w[r] + GROUP * group + ahead);
            total[r] += to_float(multiply_int8(w[r] + GROUP * group, x.values + GROUP * group)) * x.scales[group];
        }
    for (int r = 0; r < 4; r++) y[r] = sum(total[r]);
}

INLINE void dot_int4(
    float y[4], struct activations x, const char *const w[4], const uint16_t *const scales[4], int64_t columns,
    int64_t ahead
) {
    vec total[4] = {{0}}, offset[4] = {{0}};
    int64_t groups = columns / PACK, group = 0;
    for (; group + LANES <= groups; group += LANES)
        for (int r = 0; r < 4; r++) {
            float products[LANES];
            vec wide = from_halves(LOAD(half_vec, scales[r] + group));
            vec scaled = wide * LOAD(vec, x.scales + group);
            memcpy(products, &scaled, sizeof products);
            offset[r] += wide * LOAD(vec, x.eightfold + group);
            const char *row = w[r] + PACK / 2 * group;
            const int8_t *values = x.values + PACK * group;
            for (int g = 0; g < LANES; g++, row += PACK / 2, values += PACK) {
                if (g % 2 == 0) __builtin_prefetch(row + ahead);
                total[r] += to_float(multiply_int4(row, values)) * products[g];
            }
        }
    for (; group < groups; group++)
        for (int r = 0; r < 4; r++) {
            float scale = from_bfloat16(scales[r][group]);
            ivec products = multiply_int4(w[r] + PACK / 2 * group, x.values + PACK * group);
            total[r] += to_float(products) * (scale * x.scales[group]);
            offset[r][0] += scale * x.eightfold[group];
        }
    for (int r = 0; r < 4; r++) y[r] = sum(total[r] - offset[r]);
}

INLINE void quantize_row(const float *x, int64_t columns, int size, int8_t *values, float *scales, float *eightfold) {
    for (int64_t group = 0; group < columns / size; group++, x += size, values += size) {
        float largest = 0;
#pragma omp simd reduction(max : largest)
        for (int i = 0; i < size; i++) {
            float magnitude = x[i] < 0 ? -x[i] : x[i];
            largest = magnitude > largest ? magnitude : largest;
        }
        float inverse = largest > 0 ? 127.0f / largest : 0;
        int32_t total = 0;
#pragma omp simd reduction(+ : total)
        for (int i = 0; i < size; i++) {
            int32_t value = (int32_t)(x[i] * inverse + (x[i] < 0 ? -0.5f : 0.5f));
            values[i] = (int8_t)value;
            total += value;
        }
        scales[group] = largest / 127.0f;
        eightfold[group] = 8.0f * scales[group] * (float)total;
    }
}

// Several rows of activations with `columns` of four rows of upcast weights; added to y.
INLINE void multiply_block(
    float *y, int64_t y_stride, const float *x, int64_t x_stride, int rows, float w[4][BLOCK], int64_t columns, int outs
) {
    for (int n = 0; n < rows; n += 2) {
        const float *x0 = x + n * x_stride, *x1 = n + 1 < rows ? x0 + x_stride : x0;
        vec a[4] = {{0}}, b[4] = {{0}};
        for (int64_t i = 0; i < columns; i += LANES) {
            vec left = LOAD(vec, x0 + i), right = LOAD(vec, x1 + i);
            for (int r = 0; r < 4; r++) {
                vec weight = LOAD(vec, w[r] + i);
                a[r] += left * weight;
                b[r] += right * weight;
            }
        }
        for (int r = 0; r < outs; r++) {
            y[n * y_stride + r] += sum(a[r]);
            if (n + 1 < rows) y[(n + 1) * y_stride + r] += sum(b[r]);
        }
    }
}

INLINE void multiply(
    enum kind kind, const float *x, const int8_t *scratch, int rows, const char *w, const void *scales, int64_t outs,
    int64_t columns, float *y
) {
    int64_t bytes = row_bytes(kind, columns), groups = columns / (kind == INT4 ? PACK : GROUP);
    const float *x_scales = (const float *)(scratch + rows * columns), *eightfold = x_scales + rows * groups;
#pragma omp for schedule(static) nowait
    for (int64_t out = 0; out < outs; out += 4) {
        int count = outs - out < 4 ? (int)(outs - out) : 4;
        int64_t ahead = outs - out < 8 ? 0 : 4 * bytes;
        const char *row[4];
        const uint16_t *scale[4];
        float four[4];
        for (int r = 0; r < 4; r++) {
            int64_t index = out + (r < count ? r : 0);
            row[r] = w + index * bytes;
            scale[r] = (const uint16_t *)scales + index * groups;
        }
        if (kind == INT8 || kind == INT4) {
            for (int n = 0; n < rows; n++) {
                struct activations one = {scratch + n * columns, x_scales + n * groups, eightfold + n * groups};
                if (kind == INT4)
                    dot_int4(four, one, row, scale, columns, ahead);
                else
                    dot_int8(four, one, row, columns, ahead);
                for (int r = 0; r < count; r++)
                    y[n * outs + out + r] = kind == INT8 ? four[r] * ((const float *)scales)[out + r] : four[r];
            }
        } else if (rows == 1) {
            dot(kind, four, x, row, columns, ahead);
            for (int r = 0; r < count; r++) y[out + r] = four[r];
        } else {
            float wide[4][BLOCK] __attribute__((aligned(64)));
            for (int n = 0; n < rows; n++) memset(y + n * outs + out, 0, sizeof(float) * (size_t)count);
            for (int64_t from = 0; from < columns; from += BLOCK) {
                int64_t width = columns - from < BLOCK ? columns - from : BLOCK;
                for (int r = 0; r < 4; r++)
                    for (int64_t i = 0; i < width; i += LANES) {
                        vec weights = upcast(kind, row[r], from + i);
                        memcpy(wide[r] + i, &weights, sizeof weights);
                    }
                multiply_block(y + out, outs, x + from, columns, rows, wide, width, count);
            }
        }
    }
}

// For each of `count` weights of one kind: y[i] (rows, outs[i]) = x (rows, columns) times w[i] (outs[i], columns)
// transposed. `columns` is a multiple of 32, for INT4 of 64. INT8: scales[i] has a float per out; INT4: a bfloat16 per
// group of each out. For these two `scratch` has rows * columns bytes, followed by 2 * rows * columns / 32 floats.
void dsvl_linear(
    int kind, const float *x, int rows, int64_t columns, int count, const void *const *w, const void *const *scales,
    const int64_t *outs, float *const *y, int8_t *scratch, int threads
) {
    int size = kind == INT4 ? PACK : GROUP;
    int64_t groups = columns / size;
    float *x_scales = (float *)(scratch + rows * columns), *eightfold = x_scales + rows * groups;
    if (kind == INT8 || kind == INT4)
        for (int n = 0; n < rows; n++) {
            int64_t group = n * groups;
            quantize_row(x + n * columns, columns, size, scratch + n * columns, x_scales + group, eightfold + group);
        }
#pragma omp parallel num_threads(threads)
    for (int i = 0; i < count; i++) {
        if (kind == FLOAT32) multiply(FLOAT32, x, scratch, rows, w[i], scales[i], outs[i], columns, y[i]);
        if (kind == BFLOAT16) multiply(BFLOAT16, x, scratch, rows, w[i], scales[i], outs[i], columns, y[i]);
        if (kind == FLOAT16) multiply(FLOAT16, x, scratch, rows, w[i], scales[i], outs[i], columns, y[i]);
        if (kind == INT8) multiply(INT8, x, scratch, rows, w[i], scales[i], outs[i], columns, y[i]);
        if (kind == INT4) multiply(INT4, x, scratch, rows, w[i], scales[i], outs[i], columns, y[i]);
    }
}

// RMS normalization of rows (rows, columns).
void dsvl_normalize(const float *x, const float *weight, float epsilon, int64_t rows, int64_t columns, float *y) {
    for (int64_t n = 0; n < rows; n++, x += columns, y += columns) {
        float total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < columns; i++) total += x[i] * x[i];
        float scale = 1.0f / sqrtf(total / (float)columns + epsilon);
        for (int64_t i = 0; i < columns; i++) y[i] = x[i] * scale * weight[i];
    }
}

// Rotary embedding of heads (rows, heads, dim) in position, by cosines and sines (rows, dim).
void dsvl_rotate(float *x, const float *cosines, const float *sines, int64_t rows, int64_t heads, int64_t dim) {
    int64_t half = dim / 2;
    for (int64_t n = 0; n < rows; n++, cosines += dim, sines += dim)
        for (int64_t h = 0; h < heads; h++, x += dim)
            for (int64_t i = 0; i < half; i++) {
                float left = x[i], right = x[half + i];
                x[i] = left * cosines[i] - right * sines[i];
                x[half + i] = right * cosines[half + i] + left * sines[half + i];
            }
}

INLINE vec from_nibbles(const uint8_t *from, int is_high) {
#if defined(__AVX2__)
    __m128i bytes = _mm_loadl_epi64((const __m128i *)from);
    bytes = _mm_and_si128(is_high ? _mm_srli_epi16(bytes, 4) : bytes, _mm_set1_epi8(15));
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
#else
    vec values;
    for (int i = 0; i < LANES; i++) values[i] = (float)(is_high ? from[i] >> 4 : from[i] & 15);
    return values;
#endif
}

INLINE float nearest_code(float weight, float scale) {
    float code = rintf(weight / scale);
    code = code < -8 ? -8 : code;
    return code > 7 ? 7 : code;
}

INLINE void pack_group(const float *w, uint8_t *data, uint16_t *scale) {
    static const float steps[] = {-8.0f, -8.5f, -7.5f, -9.0f, 7.5f};
    float largest = 0, best = INFINITY, chosen = 1;
    for (int i = 0; i < PACK; i++)
        if (fabsf(w[i]) > fabsf(largest)) largest = w[i];
    for (int s = 0; s < 5; s++) {
        float candidate = from_bfloat16(to_bfloat16(largest / steps[s]));
        if (candidate == 0) candidate = from_bfloat16(to_bfloat16(1e-12f));
        float error = 0;
#pragma omp simd reduction(+ : error)
        for (int i = 0; i < PACK; i++) {
            float code = nearest_code(w[i], candidate);
            error += (code * candidate - w[i]) * (code * candidate - w[i]);
        }
        if (error < best) best = error, chosen = candidate;
    }
    *scale = to_bfloat16(chosen);
    for (int i = 0; i < PACK / 2; i++) {
        int low = 8 + (int)nearest_code(w[i], chosen), high = 8 + (int)nearest_code(w[PACK / 2 + i], chosen);
        data[i] = (uint8_t)(low | high << 4);
    }
}

// Quantizes float weights (outs, columns); `columns` is a multiple of 64.
void dsvl_pack(int kind, const float *w, int64_t outs, int64_t columns, void *data, void *scales, int threads) {
    int64_t groups = columns / PACK;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t out = 0; out < outs; out++) {
        const float *row = w + out * columns;
        if (kind == INT4) {
            for (int64_t group = 0; group < groups; group++)
                pack_group(
                    row + PACK * group, (uint8_t *)data + PACK / 2 * (out * groups + group),
                    (uint16_t *)scales + out * groups + group
                );
            continue;
        }
        float largest = 0;
        for (int64_t i = 0; i < columns; i++) largest = fmaxf(largest, fabsf(row[i]));
        float scale = fmaxf(largest / 127.0f, 1e-12f);
        ((float *)scales)[out] = scale;
        for (int64_t i = 0; i < columns; i++) ((int8_t *)data)[out * columns + i] = (int8_t)rintf(row[i] / scale);
    }
}

INLINE void store(char *to, int is_half, int64_t position, vec values) {
    if (!is_half) {
        memcpy(to + 4 * position, &values, sizeof values);
        return;
    }
    uvec bits = (uvec)values;  // to bfloat16, ties to even
    half_vec halves = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, half_vec);
    memcpy(to + 2 * position, &halves, sizeof halves);
}

INLINE void dequantize_all(
    int kind, const char *w, const void *scales, int64_t outs, int64_t columns, char *to, int is_half, int threads
) {
    int64_t groups = columns / PACK;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t out = 0; out < outs; out++) {
        int64_t position = out * columns;
        if (kind == INT8) {
            const int8_t *from = (const int8_t *)w + position;
            float scale = ((const float *)scales)[out];
            for (int64_t i = 0; i < columns; i += LANES)
                store(to, is_half, position + i, __builtin_convertvector(LOAD(byte_vec, from + i), vec) * scale);
            continue;
        }
        const uint8_t *from = (const uint8_t *)w + position / 2;
        for (int64_t group = 0; group < groups; group++, from += PACK / 2, position += PACK) {
            float scale = from_bfloat16(((const uint16_t *)scales)[out * groups + group]);
            for (int i = 0; i < PACK / 2; i += LANES) {
                store(to, is_half, position + i, (from_nibbles(from + i, 0) - 8.0f) * scale);
                store(to, is_half, position + PACK / 2 + i, (from_nibbles(from + i, 1) - 8.0f) * scale);
            }
        }
    }
}

// Dequantizes weights (outs, columns) to float or bfloat16.
void dsvl_dequantize(
    int kind, const char *w, const void *scales, int64_t outs, int64_t columns, void *to, int is_half, int threads
) {
    if (is_half)
        dequantize_all(kind, w, scales, outs, columns, to, 1, threads);
    else
        dequantize_all(kind, w, scales, outs, columns, to, 0, threads);
}

INLINE void attend_one(
    enum kind kind, const float *q, const char *k, const char *v, int64_t length, int64_t dim, float scale, float *out
) {
    // One pass over keys and values; the sums are rescaled whenever a larger score appears.
    enum { TILE = 64 };
    int64_t bytes = row_bytes(kind, dim);
    float largest = -INFINITY, total = 0, scores[TILE];
    for (int64_t i = 0; i < dim; i++) out[i] = 0;
    for (int64_t start = 0; start < length; start += TILE) {
        int64_t count = length - start < TILE ? length - start : TILE;
        float top = largest;
        for (int64_t p = 0; p < count; p += 4) {
            const char *rows[4];
            float four[4];
            for (int r = 0; r < 4; r++) {
                rows[r] = k + (start + (p + r < count ? p + r : p)) * bytes;
                for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(v + (rows[r] - k) + b, 0, 2);
            }
            dot(kind, four, q, rows, dim, 8 * bytes);
            for (int r = 0; r < 4 && p + r < count; r++) {
                scores[p + r] = four[r] * scale;
                if (scores[p + r] > top) top = scores[p + r];
            }
        }
        if (top > largest) {
            float shrink = expf(largest - top);
            total *= shrink;
            for (int64_t i = 0; i < dim; i++) out[i] *= shrink;
            largest = top;
        }
        for (int64_t p = 0; p < count; p++) total += scores[p] = expf(scores[p] - largest);
        for (int64_t i = 0; i < dim; i += 4 * LANES) {
            int width = dim - i < 4 * LANES ? (int)(dim - i) / LANES : 4;
            vec part[4];
            for (int c = 0; c < width; c++) part[c] = LOAD(vec, out + i + c * LANES);
            const char *row = v + start * bytes;
            if (width == 4)
                for (int64_t p = 0; p < count; p++, row += bytes)
                    for (int c = 0; c < 4; c++) part[c] += upcast(kind, row, i + c * LANES) * scores[p];
            else
                for (int64_t p = 0; p < count; p++, row += bytes)
                    for (int c = 0; c < width; c++) part[c] += upcast(kind, row, i + c * LANES) * scores[p];
            for (int c = 0; c < width; c++) memcpy(out + i + c * LANES, &part[c], sizeof part[c]);
        }
    }
    for (int64_t i = 0; i < dim; i++) out[i] /= total;
}

// Attention for several sequences with one query each. `q` and `out` are (sequences, heads, dim); `k[s]` and `v[s]` are
// (kv_heads, capacities[s], dim), of which the first lengths[s] positions are valid. `dim` is a multiple of 8.
void dsvl_attend(
    int kind, const float *q, const void *const *k, const void *const *v, const int64_t *lengths,
    const int64_t *capacities, int64_t sequences, int64_t heads, int64_t kv_heads, int64_t dim, float scale, float *out,
    int threads
) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t task = 0; task < sequences * heads; task++) {
        int64_t s = task / heads, head = task % heads / (heads / kv_heads);
        int64_t offset = head * capacities[s] * row_bytes((enum kind)kind, dim);
        const char *keys = (const char *)k[s] + offset, *values = (const char *)v[s] + offset;
        if (kind == FLOAT32)
            attend_one(FLOAT32, q + task * dim, keys, values, lengths[s], dim, scale, out + task * dim);
        else if (kind == FLOAT16)
            attend_one(FLOAT16, q + task * dim, keys, values, lengths[s], dim, scale, out + task * dim);
        else
            attend_one(BFLOAT16, q + task * dim, keys, values, lengths[s], dim, scale, out + task * dim);
    }
}
