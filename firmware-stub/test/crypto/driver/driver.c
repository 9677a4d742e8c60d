/* Runs the device's cryptography for the Go tests: one request per line on stdin, one answer per
 * line on stdout. Byte strings are hex, "-" is the empty one; STEP is how many bytes an update
 * call gets, 0 for all at once.
 *
 *   sha256 STEP DATA       digest
 *   zeros COUNT            SHA-256 of COUNT zero bytes
 *   verify PUB HASH SIG    return code of sow_p256_verify
 *   aes KEY IN             ciphertext
 *   cmac STEP KEY DATA     MAC
 *
 * SPDX-License-Identifier: Apache-2.0 */

#include "sow_aes.h"
#include "sow_p256.h"
#include "sow_sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 1 << 20 };

static void die(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(1);
}

static unsigned digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;

    if (at == NULL) {
        die("not a hex digit");
    }
    return (unsigned)(at - digits);
}

static size_t next_number(void)
{
    const char *word = strtok(NULL, " \n");

    if (word == NULL) {
        die("number missing");
    }
    return (size_t)strtoull(word, NULL, 10);
}

/* The next byte string, in a block of exactly its size so that a sanitizer sees any overrun. */
static uint8_t *next_bytes(size_t *n)
{
    const char *word = strtok(NULL, " \n");
    if (word == NULL) {
        die("byte string missing");
    }
    *n = strcmp(word, "-") == 0 ? 0 : strlen(word) / 2;

    uint8_t *bytes = malloc(*n ? *n : 1);
    if (bytes == NULL) {
        die("out of memory");
    }
    for (size_t i = 0; i < *n; i++) {
        bytes[i] = (uint8_t)(digit(word[2 * i]) << 4 | digit(word[2 * i + 1]));
    }
    return bytes;
}

static uint8_t *next_fixed(size_t want)
{
    size_t n;
    uint8_t *bytes = next_bytes(&n);

    if (n != want) {
        die("byte string of the wrong length");
    }
    return bytes;
}

static void answer(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf("%02x", bytes[i]);
    }
    printf("\n");
}

static void sha256(void)
{
    size_t step = next_number(), n;
    uint8_t *data = next_bytes(&n), digest[32];
    struct sow_sha256 s;

    sow_sha256_init(&s);
    for (size_t at = 0, part; at < n || at == 0; at += part) {
        part = step > 0 && step < n - at ? step : n - at;
        sow_sha256_update(&s, data + at, part);
        if (part == 0) {
            break;
        }
    }
    sow_sha256_final(&s, digest);
    answer(digest, sizeof digest);
    free(data);
}

static void zeros(void)
{
    static const uint8_t block[4096];
    struct sow_sha256 s;
    uint8_t digest[32];

    sow_sha256_init(&s);
    for (size_t n = next_number(), part; n > 0; n -= part) {
        part = n < sizeof block ? n : sizeof block;
        sow_sha256_update(&s, block, part);
    }
    sow_sha256_final(&s, digest);
    answer(digest, sizeof digest);
}

static void verify(void)
{
    uint8_t *pub = next_fixed(64), *hash = next_fixed(32), *sig = next_fixed(64);

    printf("%d\n", sow_p256_verify(pub, hash, sig));
    free(pub);
    free(hash);
    free(sig);
}

static void aes(void)
{
    uint8_t *key = next_fixed(16), *block = next_fixed(16);

    sow_aes128_encrypt(key, block, block);
    answer(block, 16);
    free(key);
    free(block);
}

static void cmac(void)
{
    size_t step = next_number(), n;
    uint8_t *key = next_fixed(16), *data = next_bytes(&n), mac[16];
    struct sow_cmac c;

    sow_cmac_init(&c, key);
    for (size_t at = 0, part; at < n; at += part) {
        part = step > 0 && step < n - at ? step : n - at;
        sow_cmac_update(&c, data + at, part);
    }
    sow_cmac_final(&c, mac);
    answer(mac, sizeof mac);
    free(key);
    free(data);
}

int main(void)
{
    static char line[MAX_LINE];

    while (fgets(line, sizeof line, stdin) != NULL) {
        const char *verb = strtok(line, " \n");
        if (verb == NULL) {
            die("empty request");
        } else if (strcmp(verb, "sha256") == 0) {
            sha256();
        } else if (strcmp(verb, "zeros") == 0) {
            zeros();
        } else if (strcmp(verb, "verify") == 0) {
            verify();
        } else if (strcmp(verb, "aes") == 0) {
            aes();
        } else if (strcmp(verb, "cmac") == 0) {
            cmac();
        } else {
            die("unknown request");
        }
        fflush(stdout);
    }
    return 0;
}
