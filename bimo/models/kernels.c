// The parts of a decoder's training step between its matrix products, each in one pass over memory.
//
// kernels.py compiles this file for the machine it runs on and says what every function means. Included twice by itself:
// once with activations in bfloat16, once in float32; sums are always float32. Rows are divided among OpenMP threads in a
// fixed way, so that the same number of threads gives the same bits.
#ifndef SCALAR

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include <stdint.h>
#include <string.h>

static inline float from_bits(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline uint32_t to_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }

static inline float read_bfloat16(uint16_t x) { return from_bits((uint32_t)x << 16); }
static inline uint16_t write_bfloat16(float x) {  // to nearest, ties to even
    uint32_t bits = to_bits(x);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline float read_float32(float x) { return x; }
static inline float write_float32(float x) { return x; }

// e^x to 2e-7: 2^n by the exponent's bits times a polynomial on [-ln 2 / 2, ln 2 / 2]. NaN stays NaN.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float t = x * 1.44269504f, n = rintf(t), f = (t - n) * 0.693147181f;
    float p = 1.0f + f * (1.0f + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720))))));
    return p * from_bits((uint32_t)((int32_t)n + 127) << 23);
}

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(name) PASTE(name, TYPE)
#define READ PASTE(read, TYPE)
#define WRITE PASTE(write, TYPE)

#define SCALAR uint16_t
#define TYPE bfloat16
#include "kernels.c"
#undef SCALAR
#undef TYPE
#define SCALAR float
#define TYPE float32
#include "kernels.c"
#if defined(__AVX512BF16__) && defined(__linux__)
#include "kernels_products.h"
#include "kernels_attention.h"
#include "kernels_muon.h"
#else
int64_t products(void) { return 0; }
int64_t attention_scratch(int64_t T, int64_t D) { return 0; }
int64_t orthogonal_scratch(int64_t R, int64_t C) { return 0; }
#endif

#else

// y = x / rms(x) * weight over rows of n; rstd keeps 1 / rms for the way back.
void NAME(rms_norm)(const SCALAR *restrict x, const float *restrict weight, SCALAR *restrict y, float *restrict rstd,
                    int64_t rows, int64_t n, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const SCALAR *from = x + r * n;
        SCALAR *to = y + r * n;
        float sum = 0;
        for (int64_t i = 0; i < n; i++) { float v = READ(from[i]); sum += v * v; }
        float scale = rstd[r] = 1.0f / sqrtf(sum / n + eps);
        for (int64_t i = 0; i < n; i++) to[i] = WRITE(READ(from[i]) * scale * weight[i]);
    }
}

// dx, and (if d_weight) d_weight as one row of n for each part of the rows, to be summed by the caller.
void NAME(rms_norm_backward)(const SCALAR *restrict dy, const SCALAR *restrict x, const float *restrict weight,
                             const float *restrict rstd, SCALAR *restrict dx, float *restrict d_weight,
                             int64_t rows, int64_t n, int64_t parts) {
#pragma omp parallel for schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        for (int64_t r = rows * part / parts; r < rows * (part + 1) / parts; r++) {
            const SCALAR *gradient = dy + r * n, *from = x + r * n;
            SCALAR *to = dx + r * n;
            float scale = rstd[r], dot = 0;
            for (int64_t i = 0; i < n; i++) {
                float g = READ(gradient[i]), normal = READ(from[i]) * scale;
                dot += g * weight[i] * normal;
            }
            if (d_weight)
                for (int64_t i = 0; i < n; i++) d_weight[part * n + i] += READ(gradient[i]) * (READ(from[i]) * scale);
            dot /= n;
            for (int64_t i = 0; i < n; i++)
                to[i] = WRITE(scale * (READ(gradient[i]) * weight[i] - READ(from[i]) * scale * dot));
        }
    }
}

// One head of D numbers as attention takes it: normalised (if weight), rotated (if c, of D/2) and scaled; returns 1 / rms.
static inline float NAME(head)(float *restrict values, const SCALAR *restrict from, const float *restrict weight,
                               const float *restrict c, const float *restrict s, int64_t D, float eps, float scale) {
    int64_t half = D / 2;
    float normal = 1.0f;
    for (int64_t i = 0; i < D; i++) values[i] = READ(from[i]);
    if (weight) {
        float sum = 0;
        for (int64_t i = 0; i < D; i++) sum += values[i] * values[i];
        normal = 1.0f / sqrtf(sum / D + eps);
        for (int64_t i = 0; i < D; i++) values[i] *= normal * weight[i];
    }
    if (c)
        for (int64_t i = 0; i < half; i++) {
            float first = values[i], second = values[i + half];
            values[i] = first * c[i] - second * s[i];
            values[i + half] = second * c[i] + first * s[i];
        }
    for (int64_t i = 0; i < D; i++) values[i] *= scale;
    return normal;
}

// Its way back, in place, after the scale; adds to d_weight (if there is one).
static inline void NAME(head_backward)(float *restrict values, const SCALAR *restrict from, const float *restrict weight,
                                       const float *restrict c, const float *restrict s, float normal,
                                       float *restrict d_weight, int64_t D) {
    int64_t half = D / 2;
    if (c)
        for (int64_t i = 0; i < half; i++) {
            float first = values[i], second = values[i + half];
            values[i] = first * c[i] + second * s[i];
            values[i + half] = second * c[i] - first * s[i];
        }
    if (!weight) return;
    float dot = 0;
    if (d_weight)
        for (int64_t i = 0; i < D; i++) d_weight[i] += values[i] * (READ(from[i]) * normal);
    for (int64_t i = 0; i < D; i++) {
        values[i] *= weight[i];
        dot += values[i] * (READ(from[i]) * normal);
    }
    dot /= D;
    for (int64_t i = 0; i < D; i++) values[i] = normal * (values[i] - READ(from[i]) * normal * dot);
}

// (B, T, H, D) -> (B, H, T, D), each head as above; angles are (B or 1, T, D/2), angle_rows 1 or 0. rstd (B, T, H).
void NAME(heads)(const SCALAR *restrict x, const float *restrict weight, const float *restrict cosine,
                 const float *restrict sine, SCALAR *restrict y, float *restrict rstd, int64_t B, int64_t T, int64_t H,
                 int64_t D, int64_t angle_rows, float eps, float scale) {
    int64_t half = D / 2;
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t b = 0; b < B; b++) for (int64_t t = 0; t < T; t++) for (int64_t h = 0; h < H; h++) {
        const SCALAR *from = x + ((b * T + t) * H + h) * D;
        SCALAR *to = y + ((b * H + h) * T + t) * D;
        const float *c = cosine ? cosine + (b * angle_rows * T + t) * half : 0;
        const float *s = cosine ? sine + (b * angle_rows * T + t) * half : 0;
        float values[D], normal = NAME(head)(values, from, weight, c, s, D, eps, scale);
        if (rstd) rstd[(b * T + t) * H + h] = normal;
        for (int64_t i = 0; i < D; i++) to[i] = WRITE(values[i]);
    }
}

// The way back of heads: dy (B, H, T, D) -> dx (B, T, H, D), and (if d_weight) d_weight as one row of D for each of B.
void NAME(heads_backward)(const SCALAR *restrict dy, const SCALAR *restrict x, const float *restrict weight,
                          const float *restrict cosine, const float *restrict sine, const float *restrict rstd,
                          SCALAR *restrict dx, float *restrict d_weight, int64_t B, int64_t T, int64_t H, int64_t D,
                          int64_t angle_rows, float scale) {
    int64_t half = D / 2;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < B; b++) for (int64_t t = 0; t < T; t++) for (int64_t h = 0; h < H; h++) {
        const SCALAR *gradient = dy + ((b * H + h) * T + t) * D;
        int64_t head = ((b * T + t) * H + h) * D;
        SCALAR *to = dx + head;
        const float *c = cosine ? cosine + (b * angle_rows * T + t) * half : 0;
        const float *s = cosine ? sine + (b * angle_rows * T + t) * half : 0;
        float values[D];
        for (int64_t i = 0; i < D; i++) values[i] = READ(gradient[i]) * scale;
        NAME(head_backward)(values, x + head, weight, c, s, weight ? rstd[(b * T + t) * H + h] : 1.0f,
                            d_weight ? d_weight + b * D : 0, D);
        for (int64_t i = 0; i < D; i++) to[i] = WRITE(values[i]);
    }
}

// scores (B, H, Q, S) of the queries from position t0 and the keys from position k0 on, of T each, in place: softmax over
// the positions from first[b][t] to t, zero elsewhere. The last query is that of the last key.
void NAME(softmax)(SCALAR *restrict scores, const int32_t *restrict first, int64_t B, int64_t H, int64_t T, int64_t t0,
                   int64_t Q, int64_t k0, int64_t S) {
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t row = 0; row < B * H; row++) for (int64_t t = 0; t < Q; t++) {
        SCALAR *s = scores + (row * Q + t) * S;
        int64_t begin = first[row / H * T + t0 + t] - k0, end = t0 + t + 1 - k0;
        float values[S], most = -INFINITY, sum = 0;
        for (int64_t i = begin; i < end; i++) values[i] = READ(s[i]);
#pragma omp simd reduction(max : most)
        for (int64_t i = begin; i < end; i++) most = values[i] > most ? values[i] : most;
        for (int64_t i = begin; i < end; i++) { values[i] = exponential(values[i] - most); sum += values[i]; }
        sum = 1.0f / sum;
        memset(s, 0, begin * sizeof(SCALAR));
        for (int64_t i = begin; i < end; i++) s[i] = WRITE(values[i] * sum);
        memset(s + end, 0, (S - end) * sizeof(SCALAR));
    }
}

// gradient (B, H, Q, S) of the weights p in place: becomes that of the scores. What is where is as above.
void NAME(softmax_backward)(const SCALAR *restrict p, SCALAR *restrict gradient, const int32_t *restrict first,
                            int64_t B, int64_t H, int64_t T, int64_t t0, int64_t Q, int64_t k0, int64_t S) {
#pragma omp parallel for schedule(static) collapse(2)
    for (int64_t row = 0; row < B * H; row++) for (int64_t t = 0; t < Q; t++) {
        const SCALAR *w = p + (row * Q + t) * S;
        SCALAR *g = gradient + (row * Q + t) * S;
        int64_t begin = first[row / H * T + t0 + t] - k0, end = t0 + t + 1 - k0;
        float dot = 0;
        for (int64_t i = begin; i < end; i++) dot += READ(w[i]) * READ(g[i]);
        memset(g, 0, begin * sizeof(SCALAR));
        for (int64_t i = begin; i < end; i++) g[i] = WRITE(READ(w[i]) * (READ(g[i]) - dot));
        memset(g + end, 0, (S - end) * sizeof(SCALAR));
    }
}

void NAME(swiglu)(const SCALAR *restrict gate, const SCALAR *restrict up, SCALAR *restrict y, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float g = READ(gate[i]);
        y[i] = WRITE(g / (1.0f + exponential(-g)) * READ(up[i]));
    }
}

void NAME(swiglu_backward)(const SCALAR *restrict dy, const SCALAR *restrict gate, const SCALAR *restrict up,
                           SCALAR *restrict d_gate, SCALAR *restrict d_up, int64_t n) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float d = READ(dy[i]), g = READ(gate[i]), sigmoid = 1.0f / (1.0f + exponential(-g));
        d_up[i] = WRITE(d * g * sigmoid);
        d_gate[i] = WRITE(d * READ(up[i]) * sigmoid * (1.0f + g * (1.0f - sigmoid)));
    }
}

// logits (R, V) in place: become softmax - one at the label; losses (R) get the cross-entropies in nats.
void NAME(cross_entropy)(SCALAR *restrict logits, const int64_t *restrict labels, float *restrict losses, int64_t R,
                         int64_t V) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        SCALAR *row = logits + r * V;
        float values[V], most = -INFINITY, sum = 0;
        for (int64_t i = 0; i < V; i++) values[i] = READ(row[i]);
#pragma omp simd reduction(max : most)  // which compilers do one by one otherwise, on account of NaN
        for (int64_t i = 0; i < V; i++) most = values[i] > most ? values[i] : most;
        float label = values[labels[r]] - most;
        for (int64_t i = 0; i < V; i++) { values[i] = exponential(values[i] - most); sum += values[i]; }
        losses[r] = logf(sum) - label;
        float scale = 1.0f / sum;
        for (int64_t i = 0; i < V; i++) row[i] = WRITE(values[i] * scale);
        row[labels[r]] = WRITE(exponential(label) * scale - 1.0f);
    }
}

// y (R, n): numbers of 4 bits, in blocks of 32 of which the low halves of 16 bytes come first, times the block's scale
// plus its least. scale and least are bfloat16, so that the product is exact.
void NAME(unpack)(const uint8_t *restrict packed, const uint16_t *restrict scale, const uint16_t *restrict least,
                  SCALAR *restrict y, int64_t R, int64_t n) {
    int64_t blocks = (n + 31) / 32;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) for (int64_t k = 0; k < blocks; k++) {
        const uint8_t *from = packed + (r * blocks + k) * 16;
        SCALAR *to = y + r * n + k * 32, last[32];
        float d = read_bfloat16(scale[r * blocks + k]), low = read_bfloat16(least[r * blocks + k]);
        SCALAR *block = (k + 1) * 32 <= n ? to : last;
        for (int64_t i = 0; i < 16; i++) {
            block[i] = WRITE((from[i] & 15) * d + low);
            block[i + 16] = WRITE((from[i] >> 4) * d + low);
        }
        if (block == last) memcpy(to, last, (n - k * 32) * sizeof(SCALAR));
    }
}

#endif
