#include "CChecksum.h"

#include <string.h>

#define POLYNOMIAL 0x82F63B78u /* Castagnoli, reflected */

/* ---- GF(2) arithmetic modulo the polynomial, reflected: bit 31 is x^0. ---- */

static uint32_t multiply_mod(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = (b & 1) ? (b >> 1) ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* x to the power 8 * count, modulo the polynomial. */
static uint32_t power_of_bytes(uint64_t count) {
    uint32_t result = 0x80000000u; /* 1 */
    uint32_t base = 0x00800000u;   /* x^8 */
    for (; count; count >>= 1) {
        if (count & 1) result = multiply_mod(result, base);
        base = multiply_mod(base, base);
    }
    return result;
}

uint32_t ashlar_crc32c_combine(uint32_t first, uint32_t second, uint64_t second_count) {
    return multiply_mod(first, power_of_bytes(second_count)) ^ second;
}

/* ---- Portable: slicing by eight. ---- */

static uint32_t table[8][256];
/* Lanes of the accelerated version: shift a CRC over one lane by four table look-ups. */
#define LANE 1360 /* three lanes are 4,080 bytes: a 4 KiB block in one round */
static uint32_t shift_lane[4][256];
static uint32_t shift_two_lanes[4][256];

__attribute__((constructor)) static void make_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = (c & 1) ? (c >> 1) ^ POLYNOMIAL : c >> 1;
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xFF];
    uint32_t one = power_of_bytes(LANE), two = power_of_bytes(2 * LANE);
    for (int k = 0; k < 4; k++)
        for (uint32_t i = 0; i < 256; i++) {
            shift_lane[k][i] = multiply_mod(i << (8 * k), one);
            shift_two_lanes[k][i] = multiply_mod(i << (8 * k), two);
        }
}

uint32_t ashlar_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *p = bytes;
    uint32_t c = ~crc;
    while (count >= 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        low = __builtin_bswap32(low);
        high = __builtin_bswap32(high);
#endif
        low ^= c;
        c = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^ table[4][low >> 24] ^
            table[3][high & 0xFF] ^ table[2][(high >> 8) & 0xFF] ^ table[1][(high >> 16) & 0xFF] ^ table[0][high >> 24];
        p += 8;
        count -= 8;
    }
    while (count--) c = (c >> 8) ^ table[0][(c ^ *p++) & 0xFF];
    return ~c;
}

#if defined(__x86_64__) || defined(__aarch64__)

static inline uint32_t shift(uint32_t t[4][256], uint32_t c) {
    return t[0][c & 0xFF] ^ t[1][(c >> 8) & 0xFF] ^ t[2][(c >> 16) & 0xFF] ^ t[3][c >> 24];
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#define ACCELERATED __attribute__((target("sse4.2")))
#define STEP8(c, v) ((uint32_t)_mm_crc32_u64((c), (v)))
#define STEP1(c, v) _mm_crc32_u8((c), (v))
static int accelerated(void) { return __builtin_cpu_supports("sse4.2"); }
#else
#include <arm_acle.h>
#include <sys/auxv.h>
#define ACCELERATED __attribute__((target("+crc")))
#define STEP8(c, v) __crc32cd((c), (v))
#define STEP1(c, v) __crc32cb((c), (v))
static int accelerated(void) { return (getauxval(AT_HWCAP) >> 7) & 1; /* HWCAP_CRC32 */ }
#endif

ACCELERATED static uint32_t crc32c_accelerated(uint32_t crc, const uint8_t *p, size_t count) {
    uint32_t c = ~crc;
    /* The instruction has a latency of three and a throughput of one: three lanes at once keep it busy. */
    while (count >= 3 * LANE) {
        uint32_t a = c, b = 0, d = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            uint64_t x, y, z;
            memcpy(&x, p + i, 8);
            memcpy(&y, p + LANE + i, 8);
            memcpy(&z, p + 2 * LANE + i, 8);
            a = STEP8(a, x);
            b = STEP8(b, y);
            d = STEP8(d, z);
        }
        c = shift(shift_two_lanes, a) ^ shift(shift_lane, b) ^ d;
        p += 3 * LANE;
        count -= 3 * LANE;
    }
    while (count >= 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        c = STEP8(c, x);
        p += 8;
        count -= 8;
    }
    while (count--) c = STEP1(c, *p++);
    return ~c;
}

uint32_t ashlar_crc32c(uint32_t crc, const void *bytes, size_t count) {
    return accelerated() ? crc32c_accelerated(crc, bytes, count) : ashlar_crc32c_portable(crc, bytes, count);
}

#else

uint32_t ashlar_crc32c(uint32_t crc, const void *bytes, size_t count) {
    return ashlar_crc32c_portable(crc, bytes, count);
}

#endif
