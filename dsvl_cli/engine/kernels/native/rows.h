// Products of few rows with 16- and 32-bit weights as a checkpoint stores them, row by row; upcast in registers.

#pragma once

#include "vectors.h"

#define BLOCK 512  // columns that are upcast at once when several rows share them

INLINE int64_t row_bytes(enum kind kind, int64_t columns) { return (kind == FLOAT32 ? 4 : 2) * columns; }

// One row of activations with four rows of weights; the next four rows are `ahead` bytes further on.
INLINE void dot_rows(
    enum kind kind, float y[4], const float *x, const char *const w[4], int64_t columns, int64_t ahead
) {
    vec a[4] = {{0}}, b[4] = {{0}};
    int64_t i = 0;
    for (; i + 2 * LANES <= columns; i += 2 * LANES) {
        vec x0 = LOAD(vec, x + i), x1 = LOAD(vec, x + i + LANES);
        UNROLL for (int r = 0; r < 4; r++) {
            if (ahead) __builtin_prefetch(w[r] + row_bytes(kind, i) + ahead);
            a[r] += x0 * upcast(kind, w[r], i);
            b[r] += x1 * upcast(kind, w[r], i + LANES);
        }
    }
    for (; i < columns; i += LANES)
        UNROLL for (int r = 0; r < 4; r++) a[r] += LOAD(vec, x + i) * upcast(kind, w[r], i);
    UNROLL for (int r = 0; r < 4; r++) y[r] = sum(a[r] + b[r]);
}

// Several rows of activations with `columns` of four rows of upcast weights; added to y.
INLINE void multiply_block(
    float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t rows, float w[4][BLOCK], int64_t columns,
    int outs
) {
    for (int64_t n = 0; n < rows; n += 2) {
        const float *x0 = x + n * x_stride, *x1 = n + 1 < rows ? x0 + x_stride : x0;
        vec a[4] = {{0}}, b[4] = {{0}};
        for (int64_t i = 0; i < columns; i += LANES) {
            vec left = LOAD(vec, x0 + i), right = LOAD(vec, x1 + i);
            UNROLL for (int r = 0; r < 4; r++) {
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

// y (rows, outs) = x (rows, columns) times w (outs, columns) transposed, or added to y; the threads share it.
INLINE void multiply_rows(
    enum kind kind, const float *x, int64_t rows, const char *w, int64_t outs, int64_t columns, float *y, int is_added
) {
    enum { SHARE = 64 };  // large enough to stream, small enough that a slower core delays nobody
    int64_t bytes = row_bytes(kind, columns);
#pragma omp for schedule(dynamic) nowait
    for (int64_t first = 0; first < outs; first += SHARE) {
        int64_t last = smaller(first + SHARE, outs);
        for (int64_t out = first; out < last; out += 4) {
            int count = (int)smaller(4, last - out);
            int64_t ahead = outs - out < 8 ? 0 : 4 * bytes;
            const char *row[4];
            UNROLL for (int r = 0; r < 4; r++) row[r] = w + (out + (r < count ? r : 0)) * bytes;
            if (rows == 1) {
                float four[4];
                dot_rows(kind, four, x, row, columns, ahead);
                for (int r = 0; r < count; r++) y[out + r] = is_added ? y[out + r] + four[r] : four[r];
                continue;
            }
            float wide[4][BLOCK] __attribute__((aligned(64)));
            if (!is_added)
                for (int64_t n = 0; n < rows; n++) memset(y + n * outs + out, 0, sizeof(float) * (size_t)count);
            for (int64_t from = 0; from < columns; from += BLOCK) {
                int64_t width = smaller(BLOCK, columns - from);
                UNROLL for (int r = 0; r < 4; r++)
                    for (int64_t i = 0; i < width; i += LANES) {
                        vec weights = upcast(kind, row[r], from + i);
                        memcpy(wide[r] + i, &weights, sizeof weights);
                    }
                multiply_block(y + out, outs, x + from, columns, rows, wide, width, count);
            }
        }
    }
}
