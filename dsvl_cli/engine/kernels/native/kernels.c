// The hot operations of the language model on CPUs: products with large weights, and decode steps.
//
// A decode step reads each byte of the weights and the cache once and computes little with it, so it is memory-bound,
// and torch's kernels for these shapes are far from that limit on many CPUs. This file, with the headers beside it, is
// built into the wheels for common CPUs (variants.py), or compiled at the first start (compiler.py). Every function is
// then checked against plain torch (choose.py).
//
//   vectors.h    vectors of eight floats
//   rows.h       products with 16- and 32-bit weights, as checkpoints store them
//   panels.h     products with 8- and 4-bit weights, interleaved
//   attention.h  single queries over a cache
//   step.h       all of them for one token of each sequence
//
// Functions below start a team of threads; those that they call are run by all of its threads and share the work.
// Buffers must not overlap, and have the sizes stated; the caller checks shapes.

#include "step.h"

#define MAX_WEIGHTS 8

// y[i] (rows, outs) = x (rows, columns) times weights[i] transposed, of up to MAX_WEIGHTS. `columns` is a multiple of
// 8, with 8- and 4-bit weights of 64. `scratch` has dsvl_scratch(rows, columns) bytes.
void dsvl_linear(
    int count, const struct linear *weights, const float *x, int64_t rows, float *const *y, char *scratch, int threads
) {
    const struct linear *each[MAX_WEIGHTS];
    for (int i = 0; i < count; i++) each[i] = weights + i;
#pragma omp parallel num_threads(threads)
    multiply_several(each, count, x, rows, y, 0, scratch);
    (void)threads;
}

int64_t dsvl_scratch(int64_t rows, int64_t columns) { return quantized_bytes(rows, columns); }

// RMS normalization of rows (rows, columns).
void dsvl_normalize(const float *x, const float *weight, float epsilon, int64_t rows, int64_t columns, float *y) {
    for (int64_t n = 0; n < rows; n++) normalize_row(x + n * columns, weight, epsilon, columns, y + n * columns);
}

// Rotary embedding of heads (rows, heads, dim) in position, by cosines and sines (rows, dim).
void dsvl_rotate(float *x, const float *cosines, const float *sines, int64_t rows, int64_t heads, int64_t dim) {
    for (int64_t n = 0; n < rows; n++, cosines += dim, sines += dim)
        for (int64_t h = 0; h < heads; h++, x += dim) rotate_head(x, cosines, sines, dim / 2);
}

// Attention for several sequences with one query each. `q` and `out` are (sequences, heads, dim); `k[s]` and `v[s]` are
// (kv_heads, capacities[s], dim) of a 16- or 32-bit kind, of which the first lengths[s] positions are valid. `dim` is a
// multiple of 8.
void dsvl_attend(
    int kind, const float *q, const void *const *k, const void *const *v, const int64_t *lengths,
    const int64_t *capacities, int64_t sequences, int64_t heads, int64_t kv_heads, int64_t dim, float scale, float *out,
    int threads
) {
#pragma omp parallel num_threads(threads)
    attend_all((enum kind)kind, q, k, v, lengths, capacities, sequences, heads, kv_heads, dim, scale, out);
    (void)threads;
}

// Quantizes float weights (outs, columns) to panels; `columns` is a multiple of 64. INT8: a float scale per out; INT4:
// a bfloat16 for each out of a panel and each group, (panels, groups, PANEL). The last panel must be zeros.
void dsvl_pack(int kind, const float *w, int64_t outs, int64_t columns, void *data, void *scales, int threads) {
    int64_t bytes = panel_bytes((enum kind)kind, columns), groups = columns / GROUP;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t out = 0; out < outs; out++) {
        int64_t panel = out / PANEL, row = out % PANEL;
        uint8_t *to = (uint8_t *)data + panel * bytes + 4 * row;
        if (kind == INT4)
            pack_row_int4(w + out * columns, columns, to, (uint16_t *)scales + panel * groups * PANEL + row);
        else
            pack_row_int8(w + out * columns, columns, to, (float *)scales + out);
    }
    (void)threads;
}

// Dequantizes panels to rows (outs, columns) of FLOAT32 or BFLOAT16.
void dsvl_dequantize(
    int kind, const void *data, const void *scales, int64_t outs, int64_t columns, int to_kind, void *to, int threads
) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t out = 0; out < outs; out++) {
        int64_t panel = out / PANEL, row = out % PANEL;
        const uint8_t *from = (const uint8_t *)data + panel * panel_bytes((enum kind)kind, columns) + 4 * row;
        char *place = (char *)to + out * row_bytes((enum kind)to_kind, columns);
        const uint16_t *by_group = (const uint16_t *)scales + panel * (columns / GROUP) * PANEL + row;
        if (kind == INT4)
            unpack_row_int4(from, by_group, columns, (enum kind)to_kind, place);
        else
            unpack_row_int8(from, ((const float *)scales)[out], columns, (enum kind)to_kind, place);
    }
    (void)threads;
}

// Bytes of scratch for dsvl_step.
int64_t dsvl_step_scratch(const struct model *m, int64_t rows) {
    struct buffers b;
    return place_buffers(m, rows, (char *)64, &b) + 128;
}

// One token of each of `rows` sequences through all layers.
//
// x: (rows, hidden), the embeddings; overwritten. positions: (rows), the length of each sequence before. keys, values:
// (layers, rows) pointers to (kv_heads, capacities[row], head_dim) of the model's `cache_kind`; written at
// the position.
// logits: (rows, vocabulary).
void dsvl_step(
    const struct model *m, int64_t rows, float *x, const int64_t *positions, void *const *keys, void *const *values,
    const int64_t *capacities, float *logits, char *scratch, int threads
) {
    struct buffers b;
    place_buffers(m, rows, scratch, &b);
#pragma omp parallel num_threads(threads)
    {
        run_layers(m, rows, x, positions, keys, values, capacities, b);
        multiply_several((const struct linear *[]){&m->head}, 1, b.normed, rows, &logits, 0, b.quantized);
    }
    (void)threads;
}
