// A step of Muon, as optim/muon.py defines it: each thread takes whole matrices, or blocks of them, which stay in its
// cache from gradient to weights, and of what is symmetric only one half is computed.

// What a thread works in, of R rows and C columns in whole blocks, R <= C.
typedef struct {
    uint16_t *x, *x_tiles;              // (R, C), its transpose
    uint16_t *gram, *gram_tiles, *sum;  // (R, R): x x^T, the same as a right side, b gram + c gram^2
    uint16_t *column;                   // 32 columns of x as a right side
    float *block, *update;              // (32, 32); what is to be made orthogonal, before it is
} Orthogonal;

static int64_t lay_out_orthogonal(Orthogonal *w, char *scratch, int64_t R, int64_t C) {
    char *at = scratch;
    uint16_t **parts[] = {&w->x, &w->x_tiles, &w->gram, &w->gram_tiles, &w->sum, &w->column};
    int64_t sizes[] = {R * C, R * C, R * R, R * R, R * R, R * SIDE};
    for (int i = 0; i < 6; i++) *parts[i] = take(&at, sizes[i] * 2);
    w->block = take(&at, SIDE * SIDE * 4);
    w->update = take(&at, R * C * 4);
    return at - scratch;
}

int64_t orthogonal_scratch(int64_t R, int64_t C) {
    Orthogonal work;
    return lay_out_orthogonal(&work, 0, padded(R), padded(C));
}

// y (32, 32), rows of n numbers, = product + share * old (if there is one, laid out alike); and its transpose at turned_y.
static void stored(uint16_t *y, uint16_t *turned_y, const uint16_t *old, int64_t n, float *block, float scale, float share) {
    for (int64_t r = 0; r < SIDE; r++) for (int64_t half = 0; half < SIDE; half += 16) {
        __m512 sum = _mm512_mul_ps(_mm512_load_ps(block + r * SIDE + half), _mm512_set1_ps(scale));
        if (old) {
            __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(old + r * n + half)));
            sum = _mm512_fmadd_ps((__m512)_mm512_slli_epi32(wide, 16), _mm512_set1_ps(share), sum);
        }
        _mm512_store_ps(block + r * SIDE + half, sum);
        _mm256_storeu_si256((__m256i *)(y + r * n + half), (__m256i)_mm512_cvtneps_pbh(sum));
    }
    if (!turned_y) return;
    for (int64_t i = 0; i < SIDE; i += 16) for (int64_t j = 0; j < SIDE; j += 16) {
        __m512i rows[16];
        for (int r = 0; r < 16; r++) rows[r] = _mm512_load_si512(block + (i + r) * SIDE + j);
        turned(rows);
        for (int r = 0; r < 16; r++)
            _mm256_storeu_si256((__m256i *)(turned_y + (j + r) * n + i), (__m256i)_mm512_cvtneps_pbh((__m512)rows[r]));
    }
}

// x (rows, columns), from numbers that lie down and across apart, divided by `norm`.
static void taken(uint16_t *x, const float *from, int64_t rows, int64_t columns, int64_t down, int64_t across, float norm) {
    int64_t C = padded(columns);
    __m512 scale = _mm512_set1_ps(1.0f / norm);
    __m512i each = _mm512_mullo_epi32(COUNT, _mm512_set1_epi32((int)across * 4));
    memset(x, 0, padded(rows) * C * 2);
    for (int64_t c = 0; c < columns; c += 16) for (int64_t r = 0; r < rows; r++) {
        const float *at = from + r * down + c * across;
        __mmask16 inside = columns - c > 15 ? 0xffff : (1 << (columns - c)) - 1;
        __m512 some = across == 1 ? _mm512_maskz_loadu_ps(inside, at)
                                  : _mm512_mask_i32gather_ps(_mm512_setzero_ps(), inside, each, at, 1);
        _mm256_storeu_si256((__m256i *)(x + r * C + c), (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(some, scale)));
    }
}

static void orthogonalized(const Orthogonal *w, const float *factors, int64_t steps, int64_t R, int64_t C) {
    for (int64_t step = 0; step < steps; step++, factors += 3) {
        for (int64_t i = 0; i < R; i += SIDE) transposed(w->x_tiles + i * C, w->x + i * C, C);
        for (int64_t i = 0; i < R; i += SIDE) for (int64_t j = i; j < R; j += SIDE) {
            product(w->block, SIDE, w->x + i * C, C, w->x_tiles + j * C, 16 * C, TILE, C / SIDE, 0);
            stored(w->gram + i * R + j, j > i ? w->gram + j * R + i : 0, 0, R, w->block, 1.0f, 0);
        }
        for (int64_t i = 0; i < R; i += SIDE) paired(w->gram_tiles + i * R, w->gram + i * R, R, R);
        for (int64_t i = 0; i < R; i += SIDE) for (int64_t j = i; j < R; j += SIDE) {
            product(w->block, SIDE, w->gram + i * R, R, w->gram_tiles + j / 16 * TILE, TILE, SIDE * R, R / SIDE, 0);
            stored(w->sum + i * R + j, j > i ? w->sum + j * R + i : 0, w->gram + i * R + j, R, w->block, factors[2], factors[1]);
        }
        for (int64_t j = 0; j < C; j += SIDE) {
            for (int64_t i = 0; i < R; i += SIDE) paired(w->column + i * SIDE, w->x + i * C + j, C, SIDE);
            for (int64_t i = 0; i < R; i += SIDE) {
                product(w->block, SIDE, w->sum + i * R, R, w->column, TILE, 2 * TILE, R / SIDE, 0);
                stored(w->x + i * C + j, 0, w->x + i * C + j, C, w->block, 1.0f, factors[0]);
            }
        }
    }
}

// The new momentum of rows of a matrix, so far apart, and from it the update, whose norm is returned.
static float look_ahead(float *update, float *momentum, const float *gradient, int64_t rows, int64_t columns, int64_t apart,
                        float share) {
    float squares = 0;
    for (int64_t r = 0; r < rows; r++, update += columns, momentum += apart, gradient += apart)
        for (int64_t c = 0; c < columns; c++) {
            float g = gradient[c], m = momentum[c] + (1.0f - share) * (g - momentum[c]), u = m - (m - g) * (1.0f - share);
            momentum[c] = m;
            update[c] = u;
            squares += u * u;
        }
    return sqrtf(squares);
}

// What is the same for all matrices of a step, as kernels.py has it.
typedef struct {
    float *const *weights, *const *gradients, *const *momenta;  // N of each (rows, columns)
    const float *factors;  // of the polynomials, three each
    char *scratch;
    int64_t N, rows, columns, height, width, polynomials, threads;  // height and width are those of a block
    float safety, share, decay, rate;
} MuonStep;

void muon(const MuonStep *s) {
    int64_t down = s->rows / s->height, beside = s->columns / s->width;
    int turn = s->height > s->width;
    int64_t R = turn ? s->width : s->height, C = turn ? s->height : s->width, P = padded(C);
#pragma omp parallel num_threads(s->threads)
    {
        Orthogonal work;
        lay_out_orthogonal(&work, s->scratch + thread_number() * orthogonal_scratch(R, C), padded(R), P);
        begin_products();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < s->N * down * beside; i++) {
            int64_t matrix = i / (down * beside), row = i / beside % down * s->height, column = i % beside * s->width;
            int64_t at = row * s->columns + column;
            float *weights = s->weights[matrix] + at, *momentum = s->momenta[matrix] + at;
            float norm = look_ahead(work.update, momentum, s->gradients[matrix] + at, s->height, s->width, s->columns, s->share);
            taken(work.x, work.update, R, C, turn ? 1 : s->width, turn ? s->width : 1, norm * s->safety + 1e-7f);
            orthogonalized(&work, s->factors, s->polynomials, padded(R), P);
            for (int64_t r = 0; r < s->height; r++) for (int64_t c = 0; c < s->width; c++) {
                float y = read_bfloat16(work.x[turn ? c * P + r : r * P + c]), *w = weights + r * s->columns + c;
                *w = *w * s->decay - s->rate * y;
            }
        }
        end_products();
    }
}
