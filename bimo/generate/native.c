// A Llama, Mistral, Qwen2 or Qwen3 forward pass over new positions of many sequences, whose past lies in pages.
//
// native.py compiles this file, lays the weights out for it and checks every bound before it calls. Shapes:
//
//     N  new positions, at most ``rows`` at once      H  query heads         C  width
//     D  head size                                    K  key/value heads     F  width inside the MLP
//     R  wanted rows                                  G  H / K               V  vocabulary
//
// Values between products are float32; every product rounds its input to the precision of its weights (``encode``).
// All threads run all functions that take a Worker and share what lies in their ``EACH`` loops. Who computes what, and
// which rows are put together, changes nothing in a row's result: see native_tile.h for products, ``attend`` for attention.
#include <sched.h>
#include <stdatomic.h>

#include "native_tile.h"

typedef struct {
    int64_t out, in, type;  // channels and inputs, multiples of 32
    const char *blocks;     // as native_tile.h says, one after the other
    const float *bias;      // [out] or NULL
} Matrix;

typedef struct {
    const float *attention_norm, *mlp_norm;  // [wide C]
    const float *q_norm, *k_norm;            // [D] or NULL
    Matrix qkv, o, gate_up, down;            // (H + 2 K) D, C, 2 F, C channels
} Layer;

typedef struct {
    int64_t layers, C, H, K, D, F, V, window, rows;  // window: positions seen, itself included
    int64_t kv_type, kv_bytes;                       // precision of pages; bytes of the keys or the values of a head
    float eps;
    const float *cosine, *sine;  // [positions][D / 2]
    const float *norm;           // [wide C]
    const Layer *layer;
    Matrix embedding, head;  // V channels
    char *pages;             // [page][layer][K][keys, values]: blocks of 32 positions x D, and D / 32 of 32 x positions
    char *scratch;
} Model;

typedef struct {
    int64_t N, R, width;                       // width: numbers of pages a sequence
    const int32_t *token, *position, *sequence;  // [N]
    const int32_t *pages;                      // [sequences][width]
    const int32_t *wanted;                     // [R]
} Batch;

enum { PAGE = BLOCK };

// ---- Threads

// Units of work are numbered through a call. A loop ends when all its units are done, not when all threads have come
// to its end: one that the system has taken from its processor holds up the others only in the middle of a unit.
typedef struct { _Alignas(64) _Atomic int64_t next; _Alignas(64) _Atomic int64_t done; int64_t threads; } Work;
typedef struct { Work *work; int64_t begin; int holds; } Worker;  // begin: number of the first unit of this loop

static int take(Worker *w, int64_t count, int64_t *unit) {
    if (w->holds) atomic_fetch_add_explicit(&w->work->done, 1, memory_order_release);
    int64_t next = atomic_load_explicit(&w->work->next, memory_order_relaxed), end = w->begin + count;
    while (next < end)
        if (atomic_compare_exchange_weak_explicit(&w->work->next, &next, next + 1, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            *unit = next - w->begin;
            return w->holds = 1;
        }
    w->holds = 0;
    w->begin = end;
    for (int turns = 0; atomic_load_explicit(&w->work->done, memory_order_acquire) < end; turns++) {
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
        if (turns > 1000) sched_yield();
    }
    return 0;
}
#define EACH(unit, count) for (int64_t unit, total_##unit = (count); take(w, total_##unit, &unit);)

INLINE int64_t wide(int64_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }  // rows are padded with zeros
INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE vector choose(integers mask, vector yes, vector no) {
    return (vector)((mask & (integers)yes) | (~mask & (integers)no));
}
INLINE vector larger_of(vector a, vector b) { return choose(a > b, a, b); }
INLINE vector rounded(vector x) { return (x + 12582912.0f) - 12582912.0f; }  // to nearest, of |x| < 2^22

INLINE float sum_of(vector v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2) for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}
INLINE float largest_of(vector v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

// e^x to 2e-7, at least e^-87: 2^n by the exponent's bits times a polynomial on [-ln 2 / 2, ln 2 / 2]. NaN stays NaN.
INLINE vector exponential(vector x) {
    x = choose(x < -87.0f, all(-87.0f), x);
    x = choose(x > 88.0f, all(88.0f), x);
    vector t = x * 1.44269504f, n = rounded(t), f = (t - n) * 0.693147181f;
    vector p = 1.0f + f * (1.0f + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720))))));
    integers power = (__builtin_convertvector(choose(n == n, n, all(0)), integers) + 127) << 23;
    return p * (vector)power;
}

INLINE bits to_bfloat16(vector x) {  // to nearest, ties to even; in the low halves of the lanes
    bits b = (bits)x;
    return (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
}
INLINE uint16_t as_bfloat16(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
INLINE float from_bfloat16(uint16_t x) {
    uint32_t b = (uint32_t)x << 16;
    float y;
    memcpy(&y, &b, 4);
    return y;
}

// ---- Rows as products take them

INLINE int64_t row_bytes(int64_t type, int64_t in) {  // not a multiple of 4096, or rows would share a few cache sets
    return type == INT8 ? in / GROUP * ROW_GROUP + 8 : in * (type == FLOAT32 ? 4 : 2) + 64;
}

static void encode(int64_t type, const float *x, int64_t n, char *row) {  // n: a multiple of 32
    if (type == FLOAT32) memcpy(row, x, n * sizeof(float));
    if (type == BFLOAT16) for (int64_t i = 0; i < n; i += LANES) {
        typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
        *(halves *)(row + 2 * i) = __builtin_convertvector(to_bfloat16(load(x + i)), halves);
    }
    if (type == INT8) for (; n > 0; n -= GROUP, x += GROUP, row += ROW_GROUP) {
        typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
        vector most = {0};
        for (int i = 0; i < GROUP; i += LANES) most = larger_of(most, larger_of(load(x + i), -load(x + i)));
        float largest = largest_of(most), scale = largest / 127, inverse = largest > 0 ? 127 / largest : 0;
        integers sum = {0};
        for (int i = 0; i < GROUP; i += LANES) {
            integers value = __builtin_convertvector(rounded(load(x + i) * inverse), integers);
            *(bytes *)(row + i) = __builtin_convertvector(value, bytes);
            sum += value;
        }
        int32_t start = -128 * (int32_t)sum_of(__builtin_convertvector(sum, vector));  // exact: below 2^24
        memcpy(row + GROUP, &scale, 4);
        memcpy(row + GROUP + 4, &start, 4);
    }
}

static void normalise(const float *x, const float *weight, int64_t n, int64_t padded, float eps, float *y) {
    vector squares = {0};
    for (int64_t i = 0; i < padded; i += LANES) squares += load(x + i) * load(x + i);
    float scale = 1.0f / sqrtf(sum_of(squares) / n + eps);
    for (int64_t i = 0; i < padded; i += LANES) store(y + i, load(x + i) * scale * load(weight + i));
}

// One channel of a matrix, as float [in]: a row of the embedding.
static void channel(const Matrix *m, int64_t c, float *to) {
    int64_t lane = c % BLOCK, group_bytes = m->type == INT8 ? BLOCK_GROUP : m->type == FLOAT32 ? 4 * BLOCK : 2 * BLOCK;
    const char *block = m->blocks + c / BLOCK * (m->type == INT8 ? m->in / GROUP : m->in) * group_bytes;
    for (int64_t i = 0; i < m->in; i++) {
        if (m->type == FLOAT32) to[i] = ((const float *)block)[i * BLOCK + lane];
        if (m->type == BFLOAT16) to[i] = from_bfloat16(((const uint16_t *)block)[(i / 2 * BLOCK + lane) * 2 + i % 2]);
        if (m->type == INT8) {
            const char *group = block + i / GROUP * BLOCK_GROUP;
            uint8_t value = (uint8_t)group[(i % GROUP / 4 * BLOCK + lane) * 4 + i % 4];
            uint16_t scale = ((const uint16_t *)(group + GROUP * BLOCK))[lane % 16 * 2 + lane / 16];
            to[i] = from_bfloat16(scale) * ((int)value - 128);
        }
    }
}

// ---- Products

// out [n][to] = or += rows x matrix + bias; channels beyond ``to`` are padding.
static void multiply(Worker *w, const Matrix *m, const char *rows, int64_t n, float *out, int64_t to, int add) {
    int64_t stride = row_bytes(m->type, m->in), count = m->out / BLOCK;
    int64_t size = m->type == INT8 ? m->in / GROUP * BLOCK_GROUP : m->in * BLOCK * (m->type == FLOAT32 ? 4 : 2);
    // A unit is worth two visits to shared memory, and there are enough of them for threads of unequal speed.
    int64_t most = larger(1, count / (8 * w->work->threads)), at_once = smaller(most, (1 << 16) / (size * n) + 1);
    EACH(unit, (count + at_once - 1) / at_once)
    for (int64_t b = unit * at_once; b < smaller(count, (unit + 1) * at_once); b++) {
        const float *bias = m->bias ? m->bias + b * BLOCK : NULL;
        for (int64_t first = 0, some; first < n; first += some) {
            int64_t tiles = (n - first + ROWS - 1) / ROWS;
            some = (n - first + tiles - 1) / tiles;
            float product[ROWS * BLOCK];
            dot(m->type, some, m->blocks + b * size, rows + first * stride, stride, m->in, product);
            for (int64_t r = 0; r < some; r++) {
                float *y = out + (first + r) * to + b * BLOCK;
                float sums[BLOCK], *to_y = (b + 1) * BLOCK <= to ? y : sums;
                EACH_PART {
                    vector value = load(product + r * BLOCK + c * LANES);
                    if (bias) value += load(bias + c * LANES);
                    if (add) value += load(y + c * LANES);
                    store(to_y + c * LANES, value);
                }
                if (to_y != y) memcpy(y, sums, (to - b * BLOCK) * sizeof(float));
            }
        }
    }
}

// ---- Attention

// A head (D) of queries or keys: normalised if it has weights, turned by its position's angles, rounded, padded to 32s.
static void prepare_head(const Model *m, const float *x, const float *norm, int64_t position, char *to) {
    int64_t D = m->D, half = D / 2, padded = wide(D);
    float y[padded], turned[padded];
    memset(turned, 0, sizeof turned);
    memset(y, 0, sizeof y);
    float sum = 0, scale = 1;
    memcpy(y, x, D * sizeof(float));
    if (norm) {
        vector squares = {0};
        for (int64_t i = 0; i < padded; i += LANES) squares += load(y + i) * load(y + i);
        sum = sum_of(squares);
        scale = 1.0f / sqrtf(sum / D + m->eps);
        for (int64_t i = 0; i < D; i++) y[i] *= scale * norm[i];
    }
    const float *cosine = m->cosine + position * half, *sine = m->sine + position * half;
    for (int64_t i = 0; i < half; i++) {
        turned[i] = y[i] * cosine[i] - y[i + half] * sine[i];
        turned[i + half] = y[i + half] * cosine[i] + y[i] * sine[i];
    }
    encode(m->kv_type, turned, padded, to);
}

INLINE char *keys_of(const Model *m, int64_t page, int64_t layer, int64_t head) {
    return m->pages + ((page * m->layers + layer) * m->K + head) * 2 * m->kv_bytes;
}

// Writes keys and values of all rows. One thread does a head, so that it may clear the page that a row begins: what lies
// behind the last position must be a number, for 0 times it to be 0.
static void append(Worker *w, const Model *m, const Layer *layer, const Batch *batch, const float *qkv,
                   int64_t stride) {
    int64_t index = layer - m->layer, D = m->D, padded = wide(D), size = m->kv_type == FLOAT32 ? 4 : 2;
    EACH(head, m->K) for (int64_t r = 0; r < batch->N; r++) {
        int64_t position = batch->position[r], lane = position % PAGE;
        char *keys = keys_of(m, batch->pages[batch->sequence[r] * batch->width + position / PAGE], index, head);
        char *values = keys + m->kv_bytes;
        if (!lane) memset(keys, 0, 2 * m->kv_bytes);
        const float *k = qkv + r * stride + (m->H + head) * D, *v = k + m->K * D;
        char encoded[padded * 4];
        prepare_head(m, k, layer->k_norm, position, encoded);
        for (int64_t d = 0; d < D; d += 4 / size) memcpy(keys + (d * size / 4 * PAGE + lane) * 4, encoded + d * size, 4);
        for (int64_t d = 0; d < D; d++) {
            int64_t block = d / BLOCK * PAGE * BLOCK, column = d % BLOCK;
            if (size == 4) ((float *)values)[block + lane * BLOCK + column] = v[d];
            else ((uint16_t *)values)[block + (lane / 2 * BLOCK + column) * 2 + lane % 2] = as_bfloat16(v[d]);
        }
    }
}

// Up to ROWS queries that share a key head: number i of a run of rows is head i % G of row i / G.
typedef struct { int64_t row, first, count, head; } Queries;

static const float HIDDEN = -1e30f;  // score of a position that a query does not see

// Softmax in one pass over the pages (Milakov & Gimelshein 2018), in order from the first that a query sees. A page that
// another query of the tile sees and this one does not multiplies its sums by one and adds zero: no bit changes.
static void attend(const Model *m, const Layer *layer, const Batch *batch, Queries q, const float *qkv, int64_t stride,
                   float *y, int64_t y_stride) {
    int64_t D = m->D, G = m->H / m->K, padded = wide(D), size = m->kv_type == FLOAT32 ? 4 : 2, n = q.count;
    char query[ROWS * padded * 4], weight[ROWS * PAGE * 4];
    float score[ROWS * BLOCK], part[ROWS * BLOCK], sum[ROWS * padded], total[ROWS], most[ROWS], shrink[ROWS];
    int32_t begin[ROWS], end[ROWS];
    memset(sum, 0, sizeof sum);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = q.row + (q.first + i) / G, head = q.head * G + (q.first + i) % G;
        end[i] = batch->position[row];
        begin[i] = (int32_t)larger(0, end[i] - m->window + 1);
        prepare_head(m, qkv + row * stride + head * D, layer->q_norm, end[i], query + i * padded * size);
        total[i] = 0;
        most[i] = HIDDEN;
    }
    const int32_t *pages = batch->pages + batch->sequence[q.row] * batch->width;
    int32_t lane[PAGE];
    for (int i = 0; i < PAGE; i++) lane[i] = i;
    float scale = 1.0f / sqrtf((float)D);
    for (int64_t p = begin[0] / PAGE; p <= end[n - 1] / PAGE; p++) {
        const char *keys = keys_of(m, pages[p], layer - m->layer, q.head), *values = keys + m->kv_bytes;
        dot(m->kv_type, n, keys, query, padded * size, D, score);
        for (int64_t i = 0; i < n; i++) {
            float *s = score + i * BLOCK, before = most[i];
            vector here = all(before);
            EACH_PART {
                integers at = (integers)load_bits((char *)(lane + c * LANES)) + (int32_t)(p * PAGE);
                vector x = choose((at >= begin[i]) & (at <= end[i]), load(s + c * LANES) * scale, all(HIDDEN));
                store(s + c * LANES, x);
                here = larger_of(x, here);
            }
            most[i] = largest_of(here);
            shrink[i] = exponential(all(before - most[i]))[0];
            vector more = {0};
            EACH_PART {
                vector x = load(s + c * LANES);
                store(s + c * LANES, x = choose(x > HIDDEN, exponential(x - most[i]), all(0)));
                more += x;
            }
            total[i] = total[i] * shrink[i] + sum_of(more);
            encode(m->kv_type, s, PAGE, weight + i * PAGE * size);
        }
        for (int64_t d = 0; d < padded; d += BLOCK) {
            dot(m->kv_type, n, values + d * PAGE * size, weight, PAGE * size, PAGE, part);
            for (int64_t i = 0; i < n; i++) EACH_PART {
                float *to = sum + i * padded + d + c * LANES;
                store(to, load(to) * shrink[i] + load(part + i * BLOCK + c * LANES));
            }
        }
    }
    for (int64_t i = 0; i < n; i++) {
        float *to = y + (q.row + (q.first + i) / G) * y_stride + (q.head * G + (q.first + i) % G) * D;
        for (int64_t d = 0; d < D; d++) to[d] = sum[i * padded + d] / total[i];
    }
}

// ---- The pass

typedef struct { float *x, *qkv, *y, *h; char *rows; int64_t bytes; } Scratch;

static Scratch scratch_of(const Model *m) {
    Scratch s = {0};
    float **parts[] = {&s.x, &s.qkv, &s.y, &s.h};
    int64_t widths[] = {m->C, (m->H + 2 * m->K) * m->D, m->H * m->D, 2 * wide(m->F)}, most = 0;
    for (int i = 0; i < 4; i++) {
        *parts[i] = (float *)(m->scratch + s.bytes);
        s.bytes += m->rows * wide(widths[i]) * 4;
        most = larger(most, row_bytes(FLOAT32, wide(widths[i])));
    }
    s.rows = m->scratch + s.bytes;
    s.bytes += m->rows * most;
    return s;
}

int64_t scratch_bytes(const Model *m) { return scratch_of(m).bytes; }

static void encode_rows(Worker *w, const Matrix *m, const float *x, int64_t n, int64_t stride, char *rows) {
    EACH(r, n) encode(m->type, x + r * stride, m->in, rows + r * row_bytes(m->type, m->in));
}

static void normalise_rows(Worker *w, const Model *model, const Matrix *m, const float *x, const float *weight,
                           int64_t n, char *rows) {
    EACH(r, n) {
        float y[m->in];
        normalise(x + r * m->in, weight, model->C, m->in, model->eps, y);
        encode(m->type, y, m->in, rows + r * row_bytes(m->type, m->in));
    }
}

static void gate_rows(Worker *w, const Matrix *m, float *h, int64_t n, char *rows) {  // silu(gate) * up (Shazeer 2020)
    EACH(r, n) {
        float *gate = h + r * 2 * m->in, *up = gate + m->in;
        for (int64_t i = 0; i < m->in; i += LANES)
            store(gate + i, load(gate + i) / (1.0f + exponential(-load(gate + i))) * load(up + i));
        encode(m->type, gate, m->in, rows + r * row_bytes(m->type, m->in));
    }
}

static int64_t end_of_run(const Batch *batch, int64_t row) {  // of rows of one sequence
    int64_t end = row + 1;
    while (end < batch->N && batch->sequence[end] == batch->sequence[row]) end++;
    return end;
}

static void attend_rows(Worker *w, const Model *m, const Layer *layer, const Batch *batch, const float *qkv,
                        int64_t stride, float *y, int64_t y_stride) {
    int64_t G = m->H / m->K, units = 0, row = 0, end = end_of_run(batch, 0), before = 0, here;
    for (int64_t r = 0, e; r < batch->N; r = e) {
        e = end_of_run(batch, r);
        units += ((e - r) * G + ROWS - 1) / ROWS * m->K;
    }
    EACH(unit, units) {  // of which a thread gets later and later ones
        while (unit >= before + (here = ((end - row) * G + ROWS - 1) / ROWS * m->K)) {
            before += here;
            row = end;
            end = end_of_run(batch, row);
        }
        int64_t first = (unit - before) / m->K * ROWS;
        Queries queries = {row, first, smaller(ROWS, (end - row) * G - first), (unit - before) % m->K};
        attend(m, layer, batch, queries, qkv, stride, y, y_stride);
    }
}

// At most ``rows`` positions; hidden [R][C] or logits [R][V].
static void pass(Worker *w, const Model *m, const Batch *batch, float *hidden, float *logits) {
    Scratch s = scratch_of(m);
    int64_t N = batch->N, wide_C = wide(m->C), wide_y = wide(m->H * m->D), wide_F = wide(m->F);
    int64_t wide_qkv = wide((m->H + 2 * m->K) * m->D);
    EACH(r, N) {
        channel(&m->embedding, batch->token[r], s.x + r * wide_C);
        memset(s.y + r * wide_y, 0, wide_y * sizeof(float));
    }
    for (int64_t l = 0; l < m->layers; l++) {
        const Layer *layer = m->layer + l;
        normalise_rows(w, m, &layer->qkv, s.x, layer->attention_norm, N, s.rows);
        multiply(w, &layer->qkv, s.rows, N, s.qkv, wide_qkv, 0);
        append(w, m, layer, batch, s.qkv, wide_qkv);
        attend_rows(w, m, layer, batch, s.qkv, wide_qkv, s.y, wide_y);
        encode_rows(w, &layer->o, s.y, N, wide_y, s.rows);
        multiply(w, &layer->o, s.rows, N, s.x, wide_C, 1);
        normalise_rows(w, m, &layer->gate_up, s.x, layer->mlp_norm, N, s.rows);
        multiply(w, &layer->gate_up, s.rows, N, s.h, 2 * wide_F, 0);
        gate_rows(w, &layer->down, s.h, N, s.rows);
        multiply(w, &layer->down, s.rows, N, s.x, wide_C, 1);
    }
    EACH(i, batch->R) {
        float y[wide_C];
        normalise(s.x + batch->wanted[i] * wide_C, m->norm, m->C, wide_C, m->eps, y);
        if (hidden) memcpy(hidden + i * m->C, y, m->C * sizeof(float));
        else encode(m->head.type, y, wide_C, s.rows + i * row_bytes(m->head.type, wide_C));
    }
    if (logits && batch->R) multiply(w, &m->head, s.rows, batch->R, logits, m->V, 0);
}

void forward(const Model *m, const Batch *batch, float *hidden, float *logits, int64_t threads) {
    Work work = {.threads = threads};
#pragma omp parallel num_threads(threads)
    {
        Worker worker = {&work, 0, 0};
        for (int64_t first = 0, done = 0; first < batch->N; first += m->rows) {
            Batch part = *batch;
            int32_t wanted[m->rows];
            part.N = smaller(m->rows, batch->N - first);
            part.token += first;
            part.position += first;
            part.sequence += first;
            for (part.R = 0; done + part.R < batch->R && batch->wanted[done + part.R] < first + part.N; part.R++)
                wanted[part.R] = batch->wanted[done + part.R] - (int32_t)first;
            part.wanted = wanted;
            pass(&worker, m, &part, hidden ? hidden + done * m->C : NULL, logits ? logits + done * m->V : NULL);
            done += part.R;
        }
    }
}
