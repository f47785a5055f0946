// The nearest semi-orthogonal matrix, as optim/muon.py defines it: each thread takes whole matrices, which stay in its
// cache from the first polynomial to the last, and of what is symmetric only one half is computed.

// What a thread works in, of R rows and C columns in whole blocks, R <= C.
typedef struct {
    uint16_t *x, *x_tiles;              // (R, C), its transpose
    uint16_t *gram, *gram_tiles, *sum;  // (R, R): x x^T, the same as a right side, b gram + c gram^2
    uint16_t *column;                   // 32 columns of x as a right side
    float *block;                       // (32, 32)
} Orthogonal;

static int64_t lay_out_orthogonal(Orthogonal *w, char *scratch, int64_t R, int64_t C) {
    char *at = scratch;
    uint16_t **parts[] = {&w->x, &w->x_tiles, &w->gram, &w->gram_tiles, &w->sum, &w->column};
    int64_t sizes[] = {R * C, R * C, R * R, R * R, R * R, R * SIDE};
    for (int i = 0; i < 6; i++) *parts[i] = take(&at, sizes[i] * 2);
    w->block = take(&at, SIDE * SIDE * 4);
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

// y (N, rows, columns) from x, whose matrices lie one after the other and whose numbers lie down and across apart.
void orthogonalize(const float *x, uint16_t *y, const float *factors, char *scratch, int64_t steps, int64_t N, int64_t rows,
                   int64_t columns, int64_t down, int64_t across, int64_t threads, float safety) {
    int64_t R = padded(rows), C = padded(columns);
#pragma omp parallel num_threads(threads)
    {
        Orthogonal work;
        lay_out_orthogonal(&work, scratch + thread_number() * orthogonal_scratch(rows, columns), R, C);
        begin_products();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N; i++) {
            const float *from = x + i * rows * columns;
            float squares = 0;
            for (int64_t k = 0; k < rows * columns; k++) squares += from[k] * from[k];
            taken(work.x, from, rows, columns, down, across, sqrtf(squares) * safety + 1e-7f);
            orthogonalized(&work, factors, steps, R, C);
            for (int64_t r = 0; r < rows; r++) memcpy(y + (i * rows + r) * columns, work.x + r * C, columns * 2);
        }
        end_products();
    }
}
