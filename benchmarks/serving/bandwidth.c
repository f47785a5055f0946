// Reads memory once, as fast as it comes; what benchmarks/decode.py calls this machine's bandwidth.
#include <stdint.h>

typedef uint64_t line __attribute__((vector_size(64), aligned(8), may_alias));

uint64_t read_all(const char *memory, int64_t bytes, int64_t threads) {
    uint64_t together = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(^ : together)
    for (int64_t part = 0; part < bytes >> 20; part++) {
        line a = {0}, b = {0};
        for (const char *at = memory + (part << 20), *end = at + (1 << 20); at < end; at += 128) {
            __builtin_prefetch(at + 4096);
            __builtin_prefetch(at + 4160);
            a ^= *(const line *)at;
            b ^= *(const line *)(at + 64);
        }
        a ^= b;
        for (int i = 0; i < 8; i++) together ^= a[i];
    }
    return together;
}
