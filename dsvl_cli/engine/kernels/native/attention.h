// Attention of single queries over a cache of keys and values, with softmax in one pass.

#pragma once

#include "rows.h"

// The scores of eight positions: dot products of a query with eight rows of keys, `bytes` apart.
INLINE vec score_positions(enum kind kind, const float *q, const char *keys, int64_t bytes, int64_t dim) {
    vec sums[LANES];
    UNROLL for (int p = 0; p < LANES; p++) sums[p] = (vec){0};
    for (int64_t i = 0; i < dim; i += LANES) {
        vec query = LOAD(vec, q + i);
        UNROLL for (int p = 0; p < LANES; p++) sums[p] += query * upcast(kind, keys + p * bytes, i);
    }
#if defined(__AVX2__)
    // A transposed sum of eight vectors.
    __m256 a = _mm256_hadd_ps((__m256)sums[0], (__m256)sums[1]), b = _mm256_hadd_ps((__m256)sums[2], (__m256)sums[3]);
    __m256 c = _mm256_hadd_ps((__m256)sums[4], (__m256)sums[5]), d = _mm256_hadd_ps((__m256)sums[6], (__m256)sums[7]);
    a = _mm256_hadd_ps(a, b), c = _mm256_hadd_ps(c, d);
    return (vec)_mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
#else
    vec scores;
    UNROLL for (int p = 0; p < LANES; p++) scores[p] = sum(sums[p]);
    return scores;
#endif
}

// A query (dim) over `length` rows of keys and values (dim); `dim` is a multiple of 8.
INLINE void attend_one(
    enum kind kind, const float *q, const char *k, const char *v, int64_t length, int64_t dim, float scale, float *out
) {
    enum { TILE_POSITIONS = 64, COLUMNS = 8 };
    int64_t bytes = row_bytes(kind, dim);
    float largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < dim; i++) out[i] = 0;
    for (int64_t start = 0; start < length; start += TILE_POSITIONS) {
        int64_t count = smaller(TILE_POSITIONS, length - start);
        const char *keys = k + start * bytes, *values = v + start * bytes;
        float scores[TILE_POSITIONS];
        vec top = {0};
        top += largest;
        int64_t p = 0;
        for (; p + LANES <= count; p += LANES, keys += LANES * bytes) {
            for (int64_t b = 0; b < LANES * bytes; b += 64) {
                __builtin_prefetch(keys + 2 * LANES * bytes + b);
                __builtin_prefetch(values + p * bytes + b, 0, 2);
            }
            vec eight = score_positions(kind, q, keys, bytes, dim) * scale;
            memcpy(scores + p, &eight, sizeof eight);
            ivec larger = eight > top;
            top = (vec)((larger & (ivec)eight) | (~larger & (ivec)top));
        }
        float next = largest;
        for (int i = 0; i < LANES; i++) next = top[i] > next ? top[i] : next;
        for (; p < count; p++, keys += bytes) {
            vec products = {0};
            for (int64_t i = 0; i < dim; i += LANES) products += LOAD(vec, q + i) * upcast(kind, keys, i);
            scores[p] = sum(products) * scale;
            next = scores[p] > next ? scores[p] : next;
        }
        if (next > largest) {
            float shrink = expf(largest - next);
            total *= shrink;
            for (int64_t i = 0; i < dim; i++) out[i] *= shrink;
            largest = next;
        }
        vec weight = {0};
        for (p = 0; p + LANES <= count; p += LANES) {
            vec eight = exponential(LOAD(vec, scores + p) - largest);
            memcpy(scores + p, &eight, sizeof eight);
            weight += eight;
        }
        total += sum(weight);
        for (; p < count; p++) total += scores[p] = expf(scores[p] - largest);
        int64_t i = 0;
        for (; i + COLUMNS * LANES <= dim; i += COLUMNS * LANES) {
            vec part[COLUMNS];
            UNROLL for (int c = 0; c < COLUMNS; c++) part[c] = LOAD(vec, out + i + c * LANES);
            const char *row = values;
            for (p = 0; p < count; p++, row += bytes)
                UNROLL for (int c = 0; c < COLUMNS; c++) part[c] += upcast(kind, row, i + c * LANES) * scores[p];
            UNROLL for (int c = 0; c < COLUMNS; c++) memcpy(out + i + c * LANES, &part[c], sizeof part[c]);
        }
        for (; i < dim; i += LANES) {
            vec part = LOAD(vec, out + i);
            const char *row = values;
            for (p = 0; p < count; p++, row += bytes) part += upcast(kind, row, i) * scores[p];
            memcpy(out + i, &part, sizeof part);
        }
    }
    for (int64_t i = 0; i < dim; i++) out[i] /= total;
}

// Attention for several sequences with one query each; the threads of the team share the heads of all.
static void attend_all(
    enum kind kind, const float *q, const void *const *k, const void *const *v, const int64_t *lengths,
    const int64_t *capacities, int64_t sequences, int64_t heads, int64_t kv_heads, int64_t dim, float scale, float *out
) {
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < sequences * heads; task++) {
        int64_t s = task / heads, head = task % heads / (heads / kv_heads);
        int64_t offset = head * capacities[s] * row_bytes(kind, dim);
        const char *keys = (const char *)k[s] + offset, *values = (const char *)v[s] + offset;
        const float *query = q + task * dim;
        if (kind == FLOAT32) attend_one(FLOAT32, query, keys, values, lengths[s], dim, scale, out + task * dim);
        if (kind == FLOAT16) attend_one(FLOAT16, query, keys, values, lengths[s], dim, scale, out + task * dim);
        if (kind == BFLOAT16) attend_one(BFLOAT16, query, keys, values, lengths[s], dim, scale, out + task * dim);
    }
}
