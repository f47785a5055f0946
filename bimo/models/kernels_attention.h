// Causal attention inside documents with its heads' norms and rotation, on processors that multiply bfloat16.
//
// Scores are computed 32 queries by 32 keys, softened and used up while the nearest caches hold them (FlashAttention,
// Dao et al. 2022; its weights are made again on the way back), so that memory gets only what comes in and goes out.
// One task is a key head of a row of the batch, with all the queries that share it: its sums are added in one order,
// whatever the threads. kernels.py says what the numbers of Attention mean.
#define LOG2_E 1.44269504f
enum { MANY = 256 };  // queries that go back together

typedef struct {
    const uint16_t *q, *k, *v;         // (B, T, H, D) and twice (B, T, K, D), as projected
    const float *q_weight, *k_weight;  // (D) of the heads' norms, or none
    const float *cosine, *sine;        // (B or 1, T, D/2)
    const int32_t *first;              // (B, T), the first key that a query sees; the last is itself
    uint16_t *y;                       // (B, T, H, D)
    float *lse;                        // (B, H, T), logarithms of the sums that weights were divided by
    const uint16_t *dy;                // from here on the way back: gradients of y, and those to be computed
    uint16_t *dq, *dk, *dv;
    float *dq_weight, *dk_weight;      // (B * K, D), zeros, to be summed by the caller; or none
    char *scratch;                     // attention_scratch bytes for each thread
    int64_t B, T, H, K, D, angle_rows, threads;
    float q_eps, k_eps, scale;         // of the queries
} Attention;

// What a thread works in. P is T in whole blocks; "tiles" are what the right side of a product is read from.
typedef struct {
    uint16_t *rows;                                     // (32, D)
    uint16_t *k, *v, *k_across;                         // (P, D), (P, D), (D, P)
    uint16_t *k_tiles, *v_tiles;                        // forward
    uint16_t *q_tiles, *q_pairs, *dy_tiles, *dy_pairs;  // back, as all below; for MANY queries
    uint16_t *weights, *gradients, *pairs;              // (32, P or MANY), (32, MANY), tiles of (P, MANY)
    float *scores, *d_weights, *y;                      // (32, P), (32, 32), (MANY, D)
    float *dk, *dv, *k_rstd, *q_rstd, *lse, *dot;       // (P, D), (P, D), (P), (MANY), (MANY), (MANY)
} Work;

static int64_t lay_out(Work *w, char *scratch, int64_t T, int64_t D) {
    char *at = scratch;
    int64_t P = padded(T), many = least(P, MANY), wide = P > many ? P : many;
    uint16_t **halves[] = {&w->rows,    &w->k,        &w->v,        &w->k_across, &w->k_tiles,   &w->v_tiles, &w->q_tiles,
                           &w->q_pairs, &w->dy_tiles, &w->dy_pairs, &w->weights,  &w->gradients, &w->pairs};
    int64_t sizes[] = {SIDE * D, P * D,    P * D,    P * D,       P * D,       P * D,   many * D,
                       many * D, many * D, many * D, SIDE * wide, SIDE * many, P * many};
    for (int i = 0; i < 13; i++) *halves[i] = take(&at, sizes[i] * 2);
    float **wholes[] = {&w->scores, &w->d_weights, &w->y, &w->dk, &w->dv, &w->k_rstd, &w->q_rstd, &w->lse, &w->dot};
    int64_t floats[] = {SIDE * P, SIDE * SIDE, many * D, P * D, P * D, P, many, many, many};
    for (int i = 0; i < 9; i++) *wholes[i] = take(&at, floats[i] * 4);
    return at - scratch;
}

int64_t attention_scratch(int64_t T, int64_t D) {
    Work work;
    return lay_out(&work, 0, T, D);
}

// 32 positions of head h of x (B, T, heads, D); zeros after the last.
static void copied(uint16_t *rows, const uint16_t *x, const Attention *a, int64_t b, int64_t t0, int64_t h, int64_t heads) {
    int64_t D = a->D, n = least(SIDE, a->T - t0);
    for (int64_t r = 0; r < n; r++) memcpy(rows + r * D, x + ((b * a->T + t0 + r) * heads + h) * D, D * 2);
    memset(rows + n * D, 0, (SIDE - n) * D * 2);
}

// One of the heads that are normalised, rotated and scaled before they meet, and where its gradients go.
typedef struct {
    const uint16_t *x;  // (B, T, heads, D)
    uint16_t *dx;
    const float *weight;
    float *d_weight, eps, scale;
    int64_t h, heads;
} Head;

static Head query_head(const Attention *a, int64_t b, int64_t h) {
    float *d_weight = a->dq_weight ? a->dq_weight + (b * a->K + h / (a->H / a->K)) * a->D : 0;
    return (Head){a->q, a->dq, a->q_weight, d_weight, a->q_eps, a->scale, h, a->H};
}

static Head key_head(const Attention *a, int64_t b, int64_t h) {
    float *d_weight = a->dk_weight ? a->dk_weight + (b * a->K + h) * a->D : 0;
    return (Head){a->k, a->dk, a->k_weight, d_weight, a->k_eps, 1.0f, h, a->K};
}

// 32 positions of a head made ready; and 1 / rms of each (if rstd).
static void prepared(uint16_t *rows, float *rstd, Head head, const Attention *a, int64_t b, int64_t t0) {
    int64_t D = a->D, n = least(SIDE, a->T - t0), angle = (b * a->angle_rows * a->T + t0) * (D / 2);
    float values[D];
    for (int64_t r = 0; r < n; r++, angle += D / 2) {
        const uint16_t *from = head.x + ((b * a->T + t0 + r) * head.heads + head.h) * D;
        const float *c = a->cosine + angle, *s = a->sine + angle;
        float normal = head_bfloat16(values, from, head.weight, c, s, D, head.eps, head.scale);
        if (rstd) rstd[r] = normal;
        for (int64_t i = 0; i < D; i++) rows[r * D + i] = write_bfloat16(values[i]);
    }
    memset(rows + n * D, 0, (SIDE - n) * D * 2);
}

// The gradients of 32 positions of a head made ready, as those of what was projected.
static void returned(const float *gradients, const float *rstd, Head head, const Attention *a, int64_t b, int64_t t0) {
    int64_t D = a->D, angle = (b * a->angle_rows * a->T + t0) * (D / 2);
    float values[D];
    for (int64_t r = 0; r < least(SIDE, a->T - t0); r++, angle += D / 2) {
        int64_t at = ((b * a->T + t0 + r) * head.heads + head.h) * D;
        const float *c = a->cosine + angle, *s = a->sine + angle;
        for (int64_t i = 0; i < D; i++) values[i] = gradients[r * D + i] * head.scale;
        head_backward_bfloat16(values, head.x + at, head.weight, c, s, rstd[r], head.d_weight, D);
        for (int64_t i = 0; i < D; i++) head.dx[at + i] = write_bfloat16(values[i]);
    }
}

// 2^x to 3e-6; NaN stays NaN.
static inline __m512 power_of_two(__m512 x) {
    const float factors[] = {0.00961812911f, 0.0555041087f, 0.240226507f, 0.693147181f, 1.0f};
    __m512 whole = _mm512_roundscale_ps(x, 0), rest = _mm512_sub_ps(x, whole), y = _mm512_set1_ps(0.00133335581f);
    for (int i = 0; i < 5; i++) y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(factors[i]));
    return _mm512_scalef_ps(y, whole);
}

static inline __mmask16 lanes(int64_t n) { return n < 0 ? 0 : n > 15 ? 0xffff : (1 << n) - 1; }  // the first n

// n scores of a row, of which those from begin to end count, as weights before their division, and zeros; returns their
// sum, and the logarithm (to base 2) of what scores are to be divided by after.
static float softened(uint16_t *weights, const float *scores, int64_t begin, int64_t end, int64_t n, float *lse) {
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), base = _mm512_set1_ps(LOG2_E);
    for (int64_t i = begin / 16 * 16; i < end; i += 16) {
        __mmask16 seen = lanes(end - i) & ~lanes(begin - i);
        most = _mm512_mask_max_ps(most, seen, most, _mm512_loadu_ps(scores + i));
    }
    float shift = _mm512_reduce_max_ps(most) * LOG2_E;
    memset(weights, 0, begin * 2);
    for (int64_t i = begin / 16 * 16; i < n; i += 16) {
        __mmask16 seen = lanes(end - i) & ~lanes(begin - i);
        __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(scores + i), base, _mm512_set1_ps(shift));
        __m512 weight = _mm512_maskz_mov_ps(seen, power_of_two(x));
        sum = _mm512_add_ps(sum, weight);
        _mm256_storeu_si256((__m256i *)(weights + i), (__m256i)_mm512_cvtneps_pbh(weight));
    }
    float total = _mm512_reduce_add_ps(sum);
    *lse = shift + log2f(total);
    return total;
}

static void forward(const Attention *a, const Work *w, int64_t b, int64_t shared) {
    int64_t T = a->T, H = a->H, K = a->K, D = a->D, P = padded(T);
    for (int64_t t0 = 0; t0 < T; t0 += SIDE) {
        prepared(w->rows, 0, key_head(a, b, shared), a, b, t0);
        transposed(w->k_tiles + t0 * D, w->rows, D);
        copied(w->rows, a->v, a, b, t0, shared, K);
        paired(w->v_tiles + t0 * D, w->rows, D, D);
    }
    for (int64_t h = shared * (H / K); h < (shared + 1) * (H / K); h++) for (int64_t t0 = 0; t0 < T; t0 += SIDE) {
        const int32_t *first = a->first + b * T + t0;
        int64_t k0 = first[0] / SIDE * SIDE, n = t0 + SIDE - k0, queries = least(SIDE, T - t0);
        float sums[SIDE];
        prepared(w->rows, 0, query_head(a, b, h), a, b, t0);
        for (int64_t key = k0; key <= t0; key += SIDE)
            product(w->scores + key - k0, P, w->rows, D, w->k_tiles + key * D, 16 * D, TILE, D / 32, 0);
        for (int64_t r = 0; r < queries; r++)
            sums[r] = softened(w->weights + r * P, w->scores + r * P, first[r] - k0, t0 + r + 1 - k0, n,
                               a->lse + (b * H + h) * T + t0 + r);
        for (int64_t r = queries; r < SIDE; r++) memset(w->weights + r * P, 0, n * 2);
        for (int64_t d = 0; d < D; d += SIDE)
            product(w->y + d, D, w->weights, P, w->v_tiles + k0 * D + d / 16 * TILE, TILE, D / 16 * TILE, n / SIDE, 0);
        for (int64_t r = 0; r < queries; r++) {
            uint16_t *to = a->y + ((b * T + t0 + r) * H + h) * D;
            for (int64_t d = 0; d < D; d++) to[d] = write_bfloat16(w->y[r * D + d] / sums[r]);
        }
    }
}

// Weights of 32 keys (rows) for 32 queries from their scores, and the gradients of the scores from those of the weights:
// both as rows of MANY or fewer, the latter also as two tiles.
static void weighed(const Work *w, int64_t at, int64_t many, uint16_t *tiles, const int32_t *begin, int64_t key, int64_t t0) {
    for (int64_t n = 0; n < SIDE; n += 16) {
        __m512 lse = _mm512_loadu_ps(w->lse + at + n), dot = _mm512_loadu_ps(w->dot + at + n);
        __m512i from = _mm512_loadu_si512(begin + n), last = _mm512_add_epi32(COUNT, _mm512_set1_epi32((int)(t0 + n)));
        for (int64_t r = 0; r < SIDE; r++) {
            __m512i position = _mm512_set1_epi32((int)(key + r));
            __mmask16 seen = _mm512_cmple_epi32_mask(from, position) & _mm512_cmple_epi32_mask(position, last);
            __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(w->scores + r * SIDE + n), _mm512_set1_ps(LOG2_E), lse);
            __m512 weight = _mm512_maskz_mov_ps(seen, power_of_two(x));
            __m512 d = _mm512_mul_ps(weight, _mm512_sub_ps(_mm512_loadu_ps(w->d_weights + r * SIDE + n), dot));
            int64_t to = r * many + at + n;
            _mm256_storeu_si256((__m256i *)(w->weights + to), (__m256i)_mm512_cvtneps_pbh(weight));
            _mm256_storeu_si256((__m256i *)(w->gradients + to), (__m256i)_mm512_cvtneps_pbh(d));
        }
        for (int64_t pair = 0; pair < 16; pair++) {
            const uint16_t *one = w->gradients + pair * 2 * many + at + n;
            _mm512_storeu_si512(tiles + n / 16 * TILE + pair * 32, two_rows(one, one + many));
        }
    }
}

// 32 queries of head h made ready for the way back, as the ones at `at` of those that go back together.
static void ready(const Attention *a, const Work *w, int64_t b, int64_t t0, int64_t h, int64_t at) {
    int64_t T = a->T, H = a->H, D = a->D;
    prepared(w->rows, w->q_rstd + at, query_head(a, b, h), a, b, t0);
    transposed(w->q_tiles + at * D, w->rows, D);
    paired(w->q_pairs + at * D, w->rows, D, D);
    copied(w->rows, a->dy, a, b, t0, h, H);
    transposed(w->dy_tiles + at * D, w->rows, D);
    paired(w->dy_pairs + at * D, w->rows, D, D);
    for (int64_t r = 0; r < SIDE; r++) {
        w->lse[at + r] = w->dot[at + r] = 0;
        if (t0 + r >= T) continue;
        const uint16_t *y = a->y + ((b * T + t0 + r) * H + h) * D;
        w->lse[at + r] = a->lse[(b * H + h) * T + t0 + r];
        for (int64_t d = 0; d < D; d++) w->dot[at + r] += read_bfloat16(y[d]) * read_bfloat16(w->rows[r * D + d]);
    }
}

// Queries from t0 to end of head h: adds to w->dk and w->dv.
static void back_from(const Attention *a, const Work *w, int64_t b, int64_t h, int64_t t0, int64_t end) {
    int64_t T = a->T, D = a->D, P = padded(T), many = least(P, MANY);
    const int32_t *first = a->first + b * T;
    for (int64_t t = t0; t < end; t += SIDE) ready(a, w, b, t, h, t - t0);
    for (int64_t key = first[t0] / SIDE * SIDE; key < end; key += SIDE) {
        int64_t from = key > t0 ? key : t0, to = from;  // the queries that see some of these keys
        for (; to < end && first[to] < key + SIDE; to += SIDE) {
            int32_t begin[SIDE];
            int64_t at = to - t0;
            for (int64_t i = 0; i < SIDE; i++) begin[i] = to + i < T ? first[to + i] : INT32_MAX;
            product(w->scores, SIDE, w->k + key * D, D, w->q_tiles + at * D, 16 * D, TILE, D / 32, 0);
            product(w->d_weights, SIDE, w->v + key * D, D, w->dy_tiles + at * D, 16 * D, TILE, D / 32, 0);
            weighed(w, at, many, w->pairs + key * many + at / 16 * TILE, begin, key, to);
        }
        int64_t at = from - t0, chunks = (to - from) / SIDE;
        for (int64_t d = 0; d < D && chunks; d += SIDE) {
            int64_t tile = at * D + d / 16 * TILE, below = D / 16 * TILE;
            product(w->dv + key * D + d, D, w->weights + at, many, w->dy_pairs + tile, TILE, below, chunks, 1);
            product(w->dk + key * D + d, D, w->gradients + at, many, w->q_pairs + tile, TILE, below, chunks, 1);
        }
    }
    __m512i each = _mm512_mullo_epi32(COUNT, _mm512_set1_epi32(SIDE * 4));
    for (int64_t t = t0; t < end; t += SIDE) {
        int64_t key = first[t] / SIDE * SIDE, at = t - t0;
        for (int64_t d = 0; d < D; d += SIDE) {  // 32 numbers (rows) of 32 queries
            product(w->scores, SIDE, w->k_across + d * P + key, P, w->pairs + key * many + at / 16 * TILE, TILE,
                    many / 16 * TILE, (t + SIDE - key) / SIDE, 0);
            for (int64_t r = 0; r < SIDE; r++) for (int64_t half = 0; half < 2; half++)
                _mm512_storeu_ps(w->y + r * D + d + half * 16,
                                 _mm512_i32gather_ps(each, w->scores + half * 16 * SIDE + r, 1));
        }
        returned(w->y, w->q_rstd + at, query_head(a, b, h), a, b, t);
    }
}

static void backward(const Attention *a, const Work *w, int64_t b, int64_t shared) {
    int64_t T = a->T, G = a->H / a->K, K = a->K, D = a->D, P = padded(T);
    for (int64_t t = 0; t < T; t += SIDE) {
        prepared(w->k + t * D, w->k_rstd + t, key_head(a, b, shared), a, b, t);
        across(w->k_across + t, w->k + t * D, D, P);
        copied(w->v + t * D, a->v, a, b, t, shared, K);
    }
    memset(w->dk, 0, P * D * 4);
    memset(w->dv, 0, P * D * 4);
    for (int64_t h = shared * G; h < (shared + 1) * G; h++) for (int64_t t0 = 0; t0 < T; t0 += MANY)
        back_from(a, w, b, h, t0, least(t0 + MANY, T));
    for (int64_t t = 0; t < T; t += SIDE) {
        returned(w->dk + t * D, w->k_rstd + t, key_head(a, b, shared), a, b, t);
        for (int64_t r = 0; r < least(SIDE, T - t); r++) for (int64_t d = 0; d < D; d++)
            a->dv[((b * T + t + r) * K + shared) * D + d] = write_bfloat16(w->dv[(t + r) * D + d]);
    }
}

static void over_tasks(const Attention *a, void (*each)(const Attention *, const Work *, int64_t, int64_t)) {
#pragma omp parallel num_threads(a->threads)
    {
        Work work;
        lay_out(&work, a->scratch + thread_number() * attention_scratch(a->T, a->D), a->T, a->D);
        begin_products();
#pragma omp for schedule(static)
        for (int64_t task = 0; task < a->B * a->K; task++) each(a, &work, task / a->K, task % a->K);
        end_products();
    }
}

void attention(const Attention *a) { over_tasks(a, forward); }
void attention_backward(const Attention *a) { over_tasks(a, backward); }
