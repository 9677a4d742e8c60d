/* ECDSA P-256 verification, small before fast. Numbers have limbs of 16 bits, so that a product and two carries fit
 * a word; one Montgomery multiplication serves both the field (mod p) and the scalars (mod n). Points are Jacobian,
 * and the two scalar products share their doublings (Straus, known as Shamir's trick). The formulas are lists of
 * steps over a file of registers: a step takes a fifth of the call that it stands for.
 *
 * SPDX-License-Identifier: Apache-2.0 */

#include "sow_p256.h"

#include <stddef.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bytes are loaded into little-endian limbs as they are"
#endif

enum { LIMBS = 16 };

/* A number below 2^256, least significant limb first. */
typedef uint16_t num[LIMBS];

/* The two primes m, each with -1/m mod 2^16 behind its limbs: p = 2^256 - 2^224 + 2^192 + 2^96 - 1 of the FIELD, and
 * the order n of the group, of the scalars. */
static const uint16_t prime[2][LIMBS + 1] = {
    {0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0, 0, 1, 0, 0xffff, 0xffff, 1},
    {0x2551, 0xfc63, 0xcac2, 0xf3b9, 0x9e84, 0xa717, 0xfaad, 0xbce6, 0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0xffff, 0xffff,
     0xbc4f},
};
#define FIELD prime[0]
#define ORDER prime[1]

/* An affine point is its y and x one after the other, never infinity; Montgomery form, as all field elements below. */
static const uint16_t generator[2 * LIMBS] = {
    0x560a, 0xce95, 0x5357, 0xddf2, 0xe45c, 0xba19, 0xb8e4, 0x8b4a, 0xf325, 0xdd21, 0x8688, 0xd2e8, 0x5d85, 0x2588,
    0xff18, 0x8571, 0x143c, 0x18a9, 0x30d4, 0x79e7, 0xb601, 0x5fed, 0x95fc, 0x75ba, 0x2510, 0x7762, 0x732b, 0x79fb,
    0x55c6, 0xa537, 0x5f76, 0x1890,
};

/* r = a + b or a - b, for sign 1 or -1; returns the carry, 1, 0 or -1. */
static int32_t add_raw(uint16_t *r, const uint16_t *a, const uint16_t *b, int32_t sign)
{
    int32_t carry = 0;

    for (int i = 0; i < LIMBS; i++) {
        carry += a[i] + b[i] * sign;
        r[i] = (uint16_t)carry;
        carry >>= 16;
    }
    return carry;
}

/* t += a * x, returns the limb above it. */
static __attribute__((noinline)) uint32_t mul_add(uint16_t *t, const uint16_t *a, uint32_t x)
{
    uint32_t carry = 0;

    for (int i = 0; i < LIMBS; i += 2, t += 2, a += 2) { /* two limbs a turn: the turn costs half of a limb */
        carry += t[0] + a[0] * x;
        t[0] = (uint16_t)carry;
        carry >>= 16;
        carry += t[1] + a[1] * x;
        t[1] = (uint16_t)carry;
        carry >>= 16;
    }
    return carry;
}

/* r = a * b / 2^256 (Montgomery) mod m, but below 2m only, returns its carry. a is any number, b is below m; r may be
 * a or b. */
static __attribute__((noinline)) int32_t mul_raw(uint16_t *r, const uint16_t *a, const uint16_t *b, const uint16_t *m)
{
    uint16_t t[2 * LIMBS] = {0};
    uint32_t top = 0;

    for (int i = 0; i < LIMBS; i++) {
        top += mul_add(t + i, a, b[i]);
        top += mul_add(t + i, m, (uint16_t)(t[i] * m[LIMBS])); /* clears t[i] */
        t[i + LIMBS] = (uint16_t)top;
        top >>= 16;
    }
    memcpy(r, t + LIMBS, sizeof(num));
    return (int32_t)top;
}

static __attribute__((noinline)) int is_zero(const uint16_t *a)
{
    uint32_t any = 0;

    for (int i = 0; i < LIMBS; i++) {
        any |= a[i];
    }
    return any == 0;
}

/* Are both numbers below m? */
static int are_below(num *a, const uint16_t *m)
{
    num t;

    return add_raw(t, a[0], m, -1) & add_raw(t, a[1], m, -1);
}

static __attribute__((noinline)) int bit(const uint16_t *a, uint32_t i)
{
    return a[i / 16] >> i % 16 & 1;
}

/* Big-endian bytes into one number or two, the second of them first. */
static __attribute__((noinline)) void load(num *r, const uint8_t *bytes, uint32_t n)
{
    for (uint8_t *low = (uint8_t *)r; n-- != 0;) {
        *low++ = bytes[n];
    }
}

/* The registers: PX, PY, PZ are the sum, which is infinity where PZ is zero; GX, GY and QX, QY the points to add; U1 the
 * hash, U2 s and RR r, then U1 and U2 the two scalars. Some lie side by side as the code below needs them. */
enum reg { GY, GX, QY, QX, U1, U2, RR, PY, PX, PZ, R, H, T, REGS };

/* A step: r = a op b, mod p or mod n. */
#define STEP(op, r, a, b) ((op) << 12 | (r) << 8 | (a) << 4 | (b))
enum { END, MUL_, ADD_, SUB_, MONT_, MOD_N = 8 };
#define MUL(r, a, b) STEP(MUL_, r, a, b)
#define ADD(r, a, b) STEP(ADD_, r, a, b)
#define SUB(r, a, b) STEP(SUB_, r, a, b)
#define MONT(r) STEP(MONT_, r, r, r) /* into Montgomery form: doubled 256 times */
#define MUL_N(r, a, b) STEP(MOD_N + MUL_, r, a, b)
#define ADD_N(r, a, b) STEP(MOD_N + ADD_, r, a, b)
#define MONT_N(r) STEP(MOD_N + MONT_, r, r, r)

#define COMPARE(x, y) \
    {MUL(R, PZ, PZ), MUL(H, R, x), MUL(R, R, PZ), MUL(R, R, y), SUB(R, R, PY), SUB(H, H, PX), END}

static const struct program {
    uint16_t admit[18], invert[3], square[2], times[2], scalars[3];
    uint16_t twice[20], compare_g[7], compare_q[7], plus[13], last[3], match[3];
} program = {
    /* Q into Montgomery form; then (y^2 - x^3 + 3x) of Q less that of G, which is the coefficient of the curve. */
    .admit = {MONT(QX), MONT(QY),
              MUL(T, QX, QX), MUL(T, T, QX), MUL(R, QY, QY), SUB(R, R, T), ADD(R, R, QX), ADD(R, R, QX), ADD(R, R, QX),
              MUL(T, GX, GX), MUL(T, T, GX), MUL(H, GY, GY), SUB(H, H, T), ADD(H, H, GX), ADD(H, H, GX), ADD(H, H, GX),
              SUB(R, R, H), END},

    /* 1/s = s^(n-2), from the highest bit of n - 2 down; then hash / s and r / s. */
    .invert = {MONT_N(U2), ADD_N(T, U2, PZ), END},
    .square = {MUL_N(T, T, T), END},
    .times = {MUL_N(T, T, U2), END},
    .scalars = {MUL_N(U1, U1, T), MUL_N(U2, RR, T), END},

    /* Infinity stays infinity; no point of this curve has y = 0. */
    .twice = {MUL(T, PZ, PZ), SUB(R, PX, T), ADD(T, PX, T), MUL(T, R, T),
              ADD(R, T, T), ADD(R, R, T), /* 3 (x - z^2)(x + z^2), the slope times 2yz */
              MUL(PZ, PY, PZ), ADD(PZ, PZ, PZ), MUL(T, PY, PY), ADD(T, T, T), ADD(PY, T, T),
              MUL(H, PX, PY), /* 4xy^2 */
              MUL(T, T, PY), /* 8y^4 */
              MUL(PX, R, R), SUB(PX, PX, H), SUB(PX, PX, H), SUB(H, H, PX), MUL(PY, R, H), SUB(PY, PY, T), END},

    /* How far G or Q is from the sum: R and H are both zero when it is the sum. */
    .compare_g = COMPARE(GX, GY),
    .compare_q = COMPARE(QX, QY),

    /* The sum of a point and its negative needs no case: H, and with it z, is zero. */
    .plus = {MUL(PZ, PZ, H), MUL(T, H, H), MUL(H, H, T), MUL(T, T, PX), MUL(PX, R, R), SUB(PX, PX, H),
             SUB(PX, PX, T), SUB(PX, PX, T), SUB(T, T, PX), MUL(T, T, R), MUL(H, H, PY), SUB(PY, T, H), END},

    /* Is RR the affine x of the sum? Compared as x = RR z^2, which saves an inversion. */
    .last = {MUL(PZ, PZ, PZ), MONT(PZ), END},
    .match = {MUL(T, RR, PZ), SUB(T, T, PX), END},
};

#define RUN(reg, list) run(reg, offsetof(struct program, list))

/* Run the list at that offset of the program. Returns whether the last result is zero. */
static int run(num *reg, uint32_t list)
{
    const uint16_t *step = (const uint16_t *)(const void *)((const uint8_t *)&program + list);

    for (uint32_t doublings = 0;;) {
        const uint16_t *m = prime[*step >> 15], *a = reg[*step >> 4 & 15], *b = reg[*step & 15];
        uint16_t *r = reg[*step >> 8 & 15];
        int op = *step >> 12 & 7;
        int32_t carry = op == MUL_ ? mul_raw(r, a, b, m) : add_raw(r, a, b, op == SUB_ ? -1 : 1);

        carry += add_raw(r, r, m, -1);
        while (carry < 0) {
            carry += add_raw(r, r, m, 1);
        }
        if (op == MONT_ && ++doublings % 256 != 0) {
            continue;
        }
        if (*++step == END) {
            return is_zero(r);
        }
    }
}

/* Whoever chooses the key and the signature can make this hit every special case. */
static void add_point(num *reg, const uint16_t *point, uint32_t compare)
{
    if (is_zero(reg[PZ])) {
        memcpy(reg[PY], point, 2 * sizeof(num));
        add_raw(reg[PZ], reg[PZ], FIELD, -1); /* 2^256 mod p: 1 in Montgomery form */
        return;
    }
    if (run(reg, compare) && is_zero(reg[R])) {
        RUN(reg, twice);
    } else {
        RUN(reg, plus);
    }
}

static __attribute__((noinline)) void idle(const struct sow_p256_idle *watchdog)
{
    if (watchdog->idle != 0) {
        watchdog->idle(watchdog->user);
    }
}

int sow_p256_verify(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64])
{
    static const struct sow_p256_idle none = {0, 0};

    return sow_p256_verify_idle(pub, hash, sig, &none);
}

int sow_p256_verify_idle(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64],
                         const struct sow_p256_idle *watchdog)
{
    num reg[REGS];

    memcpy(reg[GY], generator, sizeof generator);
    load(reg + QY, pub, 64);
    load(reg + U1, hash, 32);
    load(reg + U2, sig, 64); /* s, and r behind it */
    if (!are_below(reg + QY, FIELD) || !RUN(reg, admit)) {
        return SOW_P256_BAD_KEY;
    }
    if (!are_below(reg + U2, ORDER)) {
        return SOW_P256_BAD_SIGNATURE;
    }

    memset(reg[PY], 0, 3 * sizeof(num));
    RUN(reg, invert);
    for (uint32_t i = 255; i-- != 0;) {
        idle(watchdog);
        RUN(reg, square);
        if (i < 5 ? i != 4 : bit(ORDER, i)) { /* of n - 2: like n, but for the five lowest */
            RUN(reg, times);
        }
    }
    if (RUN(reg, scalars)) { /* r or s was zero */
        return SOW_P256_BAD_SIGNATURE;
    }

    for (uint32_t i = 256; i-- != 0;) {
        idle(watchdog);
        RUN(reg, twice);
        if (bit(reg[U1], i)) {
            add_point(reg, reg[GY], offsetof(struct program, compare_g));
        }
        if (bit(reg[U2], i)) {
            add_point(reg, reg[QY], offsetof(struct program, compare_q));
        }
    }

    /* Taken mod n it must be r: it is r or r + n. Infinity is neither: y^2 = x^3 there, not zero, and z = 0. */
    RUN(reg, last);
    do {
        if (RUN(reg, match)) {
            return SOW_P256_VALID;
        }
    } while (add_raw(reg[RR], reg[RR], ORDER, 1) == 0 && are_below(reg + RR, FIELD)); /* PY behind it always is */
    return SOW_P256_BAD_SIGNATURE;
}
