/* ECDSA over NIST P-256 (FIPS 186-5, SP 800-186): verification only. There is no signing and no
 * key handling, so nothing here is secret and running time depends on the input.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#ifndef SOW_P256_H
#define SOW_P256_H

#include <stdint.h>

enum sow_p256_code {
    SOW_P256_VALID = 0,
    SOW_P256_BAD_KEY = -1,       /* a coordinate is not below p, or the point is not on the curve */
    SOW_P256_BAD_SIGNATURE = -2, /* r or s is not in 1..n-1, or the signature is not of this hash and key */
};

/* Verify sig over hash, a SHA-256 digest. All numbers are big endian: pub is the point X | Y as in
 * SEC 1 without the leading 04, sig is r | s as in IEEE P1363. Both s and n - s verify, as the
 * standard has it: do not use a signature as a unique name.
 * Uses at most 768 bytes of stack on a Cortex-M0+. Returns one of enum sow_p256_code. */
int sow_p256_verify(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64]);

struct sow_p256_idle {
    void (*idle)(void *user); /* may be NULL */
    void *user;
};

/* The same, with a call of idle at least every half a million instructions of a Cortex-M0+, of the
 * 34 million that it takes in all. */
int sow_p256_verify_idle(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64],
                         const struct sow_p256_idle *watchdog);

#endif
