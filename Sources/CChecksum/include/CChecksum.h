#ifndef ASHLAR_CCHECKSUM_H
#define ASHLAR_CCHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), continuing from `crc` (0 to begin). */
uint32_t ashlar_crc32c(uint32_t crc, const void *bytes, size_t count);

/* The portable version, which the accelerated one is tested against. */
uint32_t ashlar_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/* The CRC-32C of a concatenation, from the CRCs of its two parts and the length of the second in bytes. */
uint32_t ashlar_crc32c_combine(uint32_t first, uint32_t second, uint64_t second_count);

#endif
