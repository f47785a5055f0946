// Products of matrices in bfloat16, 32 by 32 numbers of the result at a time, and what gets matrices ready for them.
//
// The left side is read as rows, the right side as tiles of 32 rows and 16 columns, in which numbers of two neighbouring
// rows are pairs: AMX multiplies tiles, AVX-512 their rows. Sums are float32.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
enum { SIDE = 32, TILE = 16 * 32 };  // of a block; numbers of a tile

static void *take(char **from, int64_t bytes) {
    char *taken = *from;
    *from += (bytes + 63) / 64 * 64;
    return taken;
}

static int64_t thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static int64_t padded(int64_t n) { return (n + SIDE - 1) / SIDE * SIDE; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#ifdef __AMX_BF16__
static int tiles_allowed = -1;  // the kernel has to be asked once a process
static const struct { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } TILES = {
    1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

static void product_of_tiles(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint16_t *b, int64_t beside,
                             int64_t below, int64_t chunks, int add) {
    if (add) {
        _tile_loadd(0, c, ldc * 4);
        _tile_loadd(1, c + 16, ldc * 4);
        _tile_loadd(2, c + 16 * ldc, ldc * 4);
        _tile_loadd(3, c + 16 * ldc + 16, ldc * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t i = 0; i < chunks; i++) {
        _tile_loadd(4, a + i * 32, lda * 2);
        _tile_loadd(6, b + i * below, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + i * below + beside, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * lda + i * 32, lda * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + 16, ldc * 4);
    _tile_stored(2, c + 16 * ldc, ldc * 4);
    _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
}
#endif

// c (32, 32) = or += a (32, 32 * chunks) times b, whose tiles of 32 rows and 16 columns lie beside and below one another:
// of a tile, neighbouring rows are one row of pairs.
static void product(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint16_t *b, int64_t beside,
                    int64_t below, int64_t chunks, int add) {
#ifdef __AMX_BF16__
    if (tiles_allowed) {
        product_of_tiles(c, ldc, a, lda, b, beside, below, chunks, add);
        return;
    }
#endif
    for (int64_t r = 0; r < SIDE; r += 8) {
        __m512 sums[8][2];
        for (int i = 0; i < 8; i++) for (int n = 0; n < 2; n++)
            sums[i][n] = add ? _mm512_loadu_ps(c + (r + i) * ldc + n * 16) : _mm512_setzero_ps();
        for (int64_t chunk = 0; chunk < chunks; chunk++) for (int64_t pair = 0; pair < 16; pair++) {
            const uint16_t *right = b + chunk * below + pair * 32;
            __m512bh one = (__m512bh)_mm512_loadu_si512(right), two = (__m512bh)_mm512_loadu_si512(right + beside);
            for (int i = 0; i < 8; i++) {
                int32_t both;
                memcpy(&both, a + (r + i) * lda + chunk * 32 + pair * 2, 4);
                __m512bh left = (__m512bh)_mm512_set1_epi32(both);
                sums[i][0] = _mm512_dpbf16_ps(sums[i][0], one, left);
                sums[i][1] = _mm512_dpbf16_ps(sums[i][1], two, left);
            }
        }
        for (int i = 0; i < 8; i++) for (int n = 0; n < 2; n++)
            _mm512_storeu_ps(c + (r + i) * ldc + n * 16, sums[i][n]);
    }
}

static void begin_products(void) {
#ifdef __AMX_BF16__
    if (tiles_allowed) _tile_loadconfig(&TILES);
#endif
}

static void end_products(void) {
#ifdef __AMX_BF16__
    if (tiles_allowed) _tile_release();
#endif
}

// 2 = by tiles, 1 = by vectors. To be called once before the others.
int64_t products(void) {
#ifdef __AMX_BF16__
    if (tiles_allowed < 0) tiles_allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, tile data
    return 1 + tiles_allowed;
#else
    return 1;
#endif
}

// 16 rows of 16 numbers of 32 bits become their transpose.
static inline void turned(__m512i *rows) {
    __m512i twos[16], fours[16];
    for (int i = 0; i < 16; i += 2) {
        twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) for (int k = 0; k < 2; k++) {  // column 2k, and 2k + 1, of each 4, of 4 rows
        fours[i + 2 * k] = _mm512_unpacklo_epi64(twos[i + k], twos[i + k + 2]);
        fours[i + 2 * k + 1] = _mm512_unpackhi_epi64(twos[i + k], twos[i + k + 2]);
    }
    for (int k = 0; k < 4; k++) {  // columns k, k + 4, k + 8 and k + 12
        __m512i even = _mm512_shuffle_i32x4(fours[k], fours[k + 4], 0x88), odd = _mm512_shuffle_i32x4(fours[k], fours[k + 4], 0xdd);
        __m512i even_too = _mm512_shuffle_i32x4(fours[k + 8], fours[k + 12], 0x88);
        __m512i odd_too = _mm512_shuffle_i32x4(fours[k + 8], fours[k + 12], 0xdd);
        rows[k] = _mm512_shuffle_i32x4(even, even_too, 0x88);
        rows[k + 8] = _mm512_shuffle_i32x4(even, even_too, 0xdd);
        rows[k + 4] = _mm512_shuffle_i32x4(odd, odd_too, 0x88);
        rows[k + 12] = _mm512_shuffle_i32x4(odd, odd_too, 0xdd);
    }
}

// 32 rows of n as tiles of their transpose: row of pairs i of a tile has numbers 2i and 2i + 1 of 16 rows.
static void transposed(uint16_t *tiles, const uint16_t *rows, int64_t n) {
    for (int64_t half = 0; half < 2; half++) for (int64_t i = 0; i < n; i += 32) {
        __m512i pairs[16];
        for (int r = 0; r < 16; r++) pairs[r] = _mm512_loadu_si512(rows + (half * 16 + r) * n + i);
        turned(pairs);
        for (int r = 0; r < 16; r++) _mm512_storeu_si512(tiles + half * 16 * n + (i / 2 + r) * 32, pairs[r]);
    }
}

static inline __m512i two_rows(const uint16_t *one, const uint16_t *two) {  // 16 numbers of each as pairs
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)one));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)two));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// n of the numbers of 32 rows, which lie so far apart, as tiles of themselves.
static void paired(uint16_t *tiles, const uint16_t *rows, int64_t apart, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) for (int64_t pair = 0; pair < 16; pair++) {
        const uint16_t *one = rows + pair * 2 * apart + i;
        _mm512_storeu_si512(tiles + i * 32 + pair * 32, two_rows(one, one + apart));
    }
}

// 32 rows of D as columns of (D, P).
static void across(uint16_t *columns, const uint16_t *rows, int64_t D, int64_t P) {
    __m512i each = _mm512_mullo_epi32(COUNT, _mm512_set1_epi32((int)D * 2));
    for (int64_t half = 0; half < 2; half++) for (int64_t d = 0; d < D; d += 2) {
        __m512i pairs = _mm512_i32gather_epi32(each, rows + half * 16 * D + d, 1);
        uint16_t *to = columns + d * P + half * 16;
        _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(pairs));
        _mm256_storeu_si256((__m256i *)(to + P), _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
    }
}
