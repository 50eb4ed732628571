// A decode step of one or several sequences, one token each, through all layers with one team of threads.

#pragma once

#include "attention.h"
#include "panels.h"

struct linear {
    int64_t kind, outs, columns;
    const void *data, *scales;
};

struct layer {
    const float *attention_norm, *feed_forward_norm;
    struct linear query, key, value, output, gate, up, down;
};

// The language model. `frequencies` (head_dim / 2) are those of the rotary embedding.
struct model {
    int64_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocabulary, cache_kind;
    double epsilon;
    const float *frequencies, *norm;
    const struct layer *layer;
    struct linear head;
};

// One function for each kind: inlined at each use they would take long to compile.
#define DEFINE_ROWS(kind) \
    static __attribute__((noinline)) void multiply_##kind( \
        const struct linear *w, const float *x, int64_t rows, float *y, int is_added \
    ) { \
        multiply_rows(kind, x, rows, w->data, w->outs, w->columns, y, is_added); \
    }
#define DEFINE_PANELS(kind) \
    static __attribute__((noinline)) void multiply_##kind( \
        const struct linear *w, struct quantized x, int64_t rows, float *y, int is_added \
    ) { \
        multiply_panels(kind, x, rows, w->data, w->scales, w->outs, y, is_added); \
    }
DEFINE_ROWS(FLOAT32)
DEFINE_ROWS(BFLOAT16)
DEFINE_ROWS(FLOAT16)
DEFINE_PANELS(INT8)
DEFINE_PANELS(INT4)

// y = x times the weight, or added to y; the threads share it. `q` is x quantized, if the weight is in panels.
static void multiply_one(
    const struct linear *w, const float *x, struct quantized q, int64_t rows, float *y, int is_added
) {
    switch ((enum kind)w->kind) {
        case FLOAT32: multiply_FLOAT32(w, x, rows, y, is_added); break;
        case BFLOAT16: multiply_BFLOAT16(w, x, rows, y, is_added); break;
        case FLOAT16: multiply_FLOAT16(w, x, rows, y, is_added); break;
        case INT8: multiply_INT8(w, q, rows, y, is_added); break;
        case INT4: multiply_INT4(w, q, rows, y, is_added); break;
    }
}

// The same rows times several weights, which may be of different kinds.
static __attribute__((noinline)) void multiply_several(
    const struct linear *const *w, int count, const float *x, int64_t rows, float *const *y, int is_added, char *scratch
) {
    struct quantized q = place_quantized(scratch, rows, w[0]->columns);
    enum kind last = FLOAT32;
    for (int i = 0; i < count; i++) {
        enum kind kind = (enum kind)w[i]->kind;
        if (is_panel(kind) && kind != last) {
            if (is_panel(last)) {
#pragma omp barrier
            }
            quantize_rows(kind, x, rows, q);
            last = kind;
        }
        multiply_one(w[i], x, q, rows, y[i], is_added);
    }
#pragma omp barrier
}

INLINE void normalize_row(const float *x, const float *weight, float epsilon, int64_t columns, float *y) {
    vec squares = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES) squares += LOAD(vec, x + i) * LOAD(vec, x + i);
    for (; i < columns; i++) rest += x[i] * x[i];
    float scale = 1.0f / sqrtf((sum(squares) + rest) / (float)columns + epsilon);
    for (i = 0; i < columns; i++) y[i] = x[i] * scale * weight[i];
}

INLINE void rotate_head(float *x, const float *cosines, const float *sines, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float left = x[i], right = x[half + i];
        x[i] = left * cosines[i] - right * sines[i];
        x[half + i] = right * cosines[half + i] + left * sines[half + i];
    }
}

static void normalize_rows(
    const float *x, const float *weight, float epsilon, int64_t rows, int64_t columns, float *y
) {
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; n++) normalize_row(x + n * columns, weight, epsilon, columns, y + n * columns);
}

// Rotates queries and keys and writes keys and values at the position of each sequence.
static void write_cache(
    const struct model *m, int64_t rows, float *q, float *k, const float *v, const float *cosines, const float *sines,
    void *const *keys, void *const *values, const int64_t *positions, const int64_t *capacities
) {
    int64_t dim = m->head_dim, heads = m->heads + m->kv_heads;
    enum kind kind = (enum kind)m->cache_kind;
#pragma omp for schedule(static)
    for (int64_t task = 0; task < rows * heads; task++) {
        int64_t n = task / heads, head = task % heads;
        if (head < m->heads) {
            rotate_head(q + (n * m->heads + head) * dim, cosines + n * dim, sines + n * dim, dim / 2);
            continue;
        }
        head -= m->heads;
        float *key = k + (n * m->kv_heads + head) * dim;
        const float *value = v + (n * m->kv_heads + head) * dim;
        rotate_head(key, cosines + n * dim, sines + n * dim, dim / 2);
        int64_t bytes = row_bytes(kind, dim), offset = (head * capacities[n] + positions[n]) * bytes;
        for (int64_t i = 0; i < dim; i += LANES) {
            store(kind, (char *)keys[n] + offset, i, LOAD(vec, key + i));
            store(kind, (char *)values[n] + offset, i, LOAD(vec, value + i));
        }
    }
}

static void activate(float *gate, const float *up, int64_t count) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; i += LANES) {
        vec x = LOAD(vec, gate + i);
        ivec is_negative = (ivec)x < 0;
        vec decay = exponential((vec)((ivec)x | INT32_MIN));  // of -|x|
        vec sigmoid = 1.0f / (1.0f + decay);
        vec lower = decay * sigmoid;
        vec factor = (vec)((is_negative & (ivec)lower) | (~is_negative & (ivec)sigmoid));
        vec y = x * factor * LOAD(vec, up + i);
        memcpy(gate + i, &y, sizeof y);
    }
}

struct buffers {
    float *normed, *q, *k, *v, *attended, *gate, *up, *cosines, *sines;
    int64_t *lengths;
    char *quantized;
};

static int64_t place_buffers(const struct model *m, int64_t rows, char *scratch, struct buffers *b) {
    char *place = align_up(scratch), *start = place;
    int64_t widest = m->hidden > m->intermediate ? m->hidden : m->intermediate;
    int64_t inner = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    if (inner > widest) widest = inner;
    int64_t sizes[] = {m->hidden, inner, kv, kv, inner, m->intermediate, m->intermediate, m->head_dim, m->head_dim};
    float **parts[] = {&b->normed, &b->q, &b->k, &b->v, &b->attended, &b->gate, &b->up, &b->cosines, &b->sines};
    for (int i = 0; i < 9; i++) {
        *parts[i] = (float *)place;
        place = align_up(place + 4 * rows * sizes[i]);
    }
    b->lengths = (int64_t *)place;
    b->quantized = align_up(place + 8 * rows);
    return b->quantized - start + quantized_bytes(rows, widest) + 64;
}

static void run_layers(
    const struct model *m, int64_t rows, float *x, const int64_t *positions, void *const *keys, void *const *values,
    const int64_t *capacities, struct buffers b
) {
    float epsilon = (float)m->epsilon, scale = 1.0f / sqrtf((float)m->head_dim);
    int64_t half = m->head_dim / 2;
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; n++) {
        b.lengths[n] = positions[n] + 1;
        for (int64_t i = 0; i < m->head_dim; i++) {
            float angle = (float)positions[n] * m->frequencies[i % half];
            b.cosines[n * m->head_dim + i] = cosf(angle);
            b.sines[n * m->head_dim + i] = sinf(angle);
        }
    }
    for (int64_t l = 0; l < m->layers; l++) {
        const struct layer *w = m->layer + l;
        void *const *own_keys = keys + l * rows, *const *own_values = values + l * rows;
        normalize_rows(x, w->attention_norm, epsilon, rows, m->hidden, b.normed);
        multiply_several(
            (const struct linear *[]){&w->query, &w->key, &w->value}, 3, b.normed, rows, (float *[]){b.q, b.k, b.v}, 0,
            b.quantized
        );
        write_cache(m, rows, b.q, b.k, b.v, b.cosines, b.sines, own_keys, own_values, positions, capacities);
        attend_all(
            (enum kind)m->cache_kind, b.q, (const void *const *)own_keys, (const void *const *)own_values, b.lengths,
            capacities, rows, m->heads, m->kv_heads, m->head_dim, scale, b.attended
        );
        multiply_several((const struct linear *[]){&w->output}, 1, b.attended, rows, (float *[]){x}, 1, b.quantized);
        normalize_rows(x, w->feed_forward_norm, epsilon, rows, m->hidden, b.normed);
        multiply_several(
            (const struct linear *[]){&w->gate, &w->up}, 2, b.normed, rows, (float *[]){b.gate, b.up}, 0, b.quantized
        );
        activate(b.gate, b.up, rows * m->intermediate);
        multiply_several((const struct linear *[]){&w->down}, 1, b.gate, rows, (float *[]){x}, 1, b.quantized);
    }
    normalize_rows(x, m->norm, epsilon, rows, m->hidden, b.normed);
}
