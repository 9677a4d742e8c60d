/* ECDSA P-256 verification, small before fast: one Montgomery multiplication serves both the
 * field (mod p) and the scalars (mod n), points are Jacobian, and the two scalar products share
 * their doublings (Straus, known as Shamir's trick).
 *
 * SPDX-License-Identifier: Apache-2.0 */

#include "sow_p256.h"

#include <string.h>

enum { LIMBS = 8 };

/* A number below 2^256, least significant limb first. */
typedef uint32_t num[LIMBS];

/* The prime of the field, p = 2^256 - 2^224 + 2^192 + 2^96 - 1. */
static const num field = {0xffffffff, 0xffffffff, 0xffffffff, 0, 0, 0, 1, 0xffffffff};

/* The order n of the group, a prime, and -1/n mod 2^32. */
static const num order = {0xfc632551, 0xf3b9cac2, 0xa7179e84, 0xbce6faad, 0xffffffff, 0xffffffff, 0, 0xffffffff};
#define ORDER_NEG_INV 0xee00bc4fu

/* A point is its affine x and y one after the other, never infinity; Montgomery form, as all field elements below. */
static const uint32_t generator[2 * LIMBS] = {
    0x18a9143c, 0x79e730d4, 0x5fedb601, 0x75ba95fc, 0x77622510, 0x79fb732b, 0xa53755c6, 0x18905f76,
    0xce95560a, 0xddf25357, 0xba19e45c, 0x8b4ab8e4, 0xdd21f325, 0xd2e88688, 0x25885d85, 0x8571ff18,
};

static void load(num r, const uint8_t *bytes)
{
    for (int i = LIMBS - 1; i >= 0; i--, bytes += 4) {
        r[i] = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    }
}

/* r = a + b, returns the carry. */
static uint32_t add_raw(num r, const num a, const num b)
{
    uint32_t carry = 0;

    for (int i = 0; i < LIMBS; i++) {
        uint32_t x = a[i], sum = x + carry;
        carry = sum < x;
        sum += b[i];
        carry += sum < b[i];
        r[i] = sum;
    }
    return carry;
}

/* r = a - b, returns the borrow. */
static uint32_t sub_raw(num r, const num a, const num b)
{
    uint32_t borrow = 0;

    for (int i = 0; i < LIMBS; i++) {
        uint32_t x = a[i], y = b[i], d = x - y;
        r[i] = d - borrow;
        borrow = x < y || d < borrow;
    }
    return borrow;
}

static int is_below(const num a, const num b)
{
    int i = LIMBS - 1;

    while (i > 0 && a[i] == b[i]) {
        i--;
    }
    return a[i] < b[i];
}

/* a = carry * 2^256 + a mod m, for values below 2m. */
static void reduce(num a, uint32_t carry, const num m)
{
    if (carry || !is_below(a, m)) {
        sub_raw(a, a, m);
    }
}

/* Add to the two limbs above a row of a product. */
static void carry_over(uint32_t *t, uint32_t carry)
{
    t[LIMBS] += carry;
    t[LIMBS + 1] += t[LIMBS] < carry;
}

/* t += a * x, with the carry above it. Half words, because ARMv6-M multiplies 32 by 32 bits to 32 only; none of
 * the four sums can overflow. */
static void mul_add(uint32_t *t, const num a, uint32_t x)
{
    uint32_t x_lo = x & 0xffff, x_hi = x >> 16;
    uint32_t carry = 0;

    for (int i = 0; i < LIMBS; i++) {
        uint32_t lo = a[i] & 0xffff, hi = a[i] >> 16;
        uint32_t s0 = lo * x_lo + (t[i] & 0xffff) + (carry & 0xffff);
        uint32_t s1 = hi * x_lo + (t[i] >> 16) + (s0 >> 16);
        uint32_t s2 = lo * x_hi + (s1 & 0xffff) + (carry >> 16);
        t[i] = s2 << 16 | (s0 & 0xffff);
        carry = hi * x_hi + (s1 >> 16) + (s2 >> 16);
    }
    carry_over(t, carry);
}

/* t += p * t[0], with the carry above it. p is -1 mod 2^32, so this clears t[0], which is not written: nobody
 * reads it again. The rest of p is 2^96 + 2^192 - 2^224 + 2^256. */
static void clear_low_limb(uint32_t *t)
{
    uint32_t x = t[0], carry = 0;

    for (int i = 3; i < LIMBS; i++) {
        uint32_t y = 0x48u >> i & 1u ? x : 0; /* limbs 3 and 6 */
        uint32_t sum = t[i] + carry;
        carry = sum < carry;
        sum += y;
        carry += sum < y;
        t[i] = sum;
    }
    carry += x - (t[7] < x);
    t[7] -= x;
    carry_over(t, carry);
}

/* r = a * b / 2^256 mod m (Montgomery), m is field or order. a is any number, b is below m;
 * r may be a or b. */
static void mul_mod(num r, const num a, const num b, const num m)
{
    uint32_t t[2 * LIMBS + 1] = {0};

    for (int i = 0; i < LIMBS; i++) {
        mul_add(t + i, a, b[i]);
        if (m == field) {
            clear_low_limb(t + i);
        } else {
            mul_add(t + i, order, t[i] * ORDER_NEG_INV);
        }
    }
    memcpy(r, t + LIMBS, sizeof(num));
    reduce(r, t[2 * LIMBS], m);
}

/* r = 2^256 mod m: 1 in Montgomery form. */
static void one(num r, const num m)
{
    memset(r, 0, sizeof(num));
    sub_raw(r, r, m);
}

/* r = 2^512 mod m, the factor that mul_mod needs to bring a number into Montgomery form. */
static void montgomery_factor(num r, const num m)
{
    one(r, m);
    for (int i = 0; i < 256; i++) {
        reduce(r, add_raw(r, r, r), m);
    }
}

static __attribute__((noinline)) uint32_t bit(const num a, uint32_t i)
{
    return a[i / 32] >> (i % 32) & 1;
}

/* a = 1/a mod n by Fermat, a^(n-2); in and out in Montgomery form. */
static void invert_mod_order(num a)
{
    num x, e;

    memcpy(x, a, sizeof x);
    memcpy(e, order, sizeof e);
    e[0] -= 2;
    for (uint32_t i = 255; i-- != 0;) {
        mul_mod(x, x, x, order);
        if (bit(e, i)) {
            mul_mod(x, x, a, order);
        }
    }
    memcpy(a, x, sizeof x);
}

/* The point formulas are lists of steps over a file of registers: a step takes a tenth of the call that it stands
 * for. x, y, z are the sum, which is infinity where z is zero; qx, qy an affine point to add. */
enum reg { PX, PY, PZ, T, R, H, QX, QY, REGS };

#define STEP(op, r, a, b) ((op) << 9 | (a) << 6 | (b) << 3 | (r))
#define MUL(r, a, b) STEP(1, r, a, b)
#define ADD(r, a, b) STEP(2, r, a, b)
#define SUB(r, a, b) STEP(3, r, a, b)
#define END 0

static void run(num *reg, const uint16_t *step)
{
    for (; *step != END; step++) {
        uint32_t *r = reg[*step & 7];
        const uint32_t *a = reg[*step >> 6 & 7], *b = reg[*step >> 3 & 7];
        int op = *step >> 9;

        if (op == 1) {
            mul_mod(r, a, b, field);
        } else if (op == 2) {
            reduce(r, add_raw(r, a, b), field);
        } else if (sub_raw(r, a, b)) {
            add_raw(r, r, field);
        }
    }
}

/* q into Montgomery form, t being the factor; then r = y^2 - x^3 + 3x, the coefficient of the curve on which q lies. */
static const uint16_t convert[] = {
    MUL(QX, QX, T), MUL(QY, QY, T),
    MUL(T, QX, QX), MUL(T, T, QX), MUL(R, QY, QY), SUB(R, R, T), ADD(R, R, QX), ADD(R, R, QX), ADD(R, R, QX), END,
};
#define COEFFICIENT (convert + 2)

/* Infinity stays infinity; no point of this curve has y = 0. */
static const uint16_t twice[] = {
    MUL(T, PZ, PZ), SUB(R, PX, T), ADD(T, PX, T), MUL(T, R, T),
    ADD(R, T, T), ADD(R, R, T), /* 3 (x - z^2)(x + z^2), the slope times 2yz */
    MUL(PZ, PY, PZ), ADD(PZ, PZ, PZ), MUL(T, PY, PY), ADD(T, T, T), ADD(PY, T, T),
    MUL(H, PX, PY), /* 4xy^2 */
    MUL(T, T, PY), /* 8y^4 */
    MUL(PX, R, R), SUB(PX, PX, H), SUB(PX, PX, H), SUB(H, H, PX), MUL(PY, R, H), SUB(PY, PY, T), END,
};

/* r and h, which lie side by side: how far q is from the sum; both are zero when it is the sum. */
static const uint16_t compare[] = {
    MUL(R, PZ, PZ), MUL(H, R, QX), SUB(H, H, PX), MUL(R, R, PZ), MUL(R, R, QY), SUB(R, R, PY), END,
};

/* The sum of a point and its negative needs no case: h, and with it z, is zero. */
static const uint16_t plus[] = {
    MUL(PZ, PZ, H), MUL(T, H, H), MUL(H, H, T), MUL(T, T, PX), MUL(PX, R, R), SUB(PX, PX, H),
    SUB(PX, PX, T), SUB(PX, PX, T), SUB(T, T, PX), MUL(T, T, R), MUL(H, H, PY), SUB(PY, T, H), END,
};

/* z = z^2 in Montgomery form twice over, qx being the factor. */
static const uint16_t last[] = {MUL(PZ, PZ, PZ), MUL(PZ, PZ, QX), END};

static int is_zero(const uint32_t *a, int limbs)
{
    while (limbs > 0 && a[limbs - 1] == 0) {
        limbs--;
    }
    return limbs == 0;
}

/* Add q to the sum. Whoever chooses the key and the signature can make this hit every special case. */
static void point_add(num *reg, const uint32_t *q)
{
    memcpy(reg[QX], q, 2 * sizeof(num));
    if (is_zero(reg[PZ], LIMBS)) {
        memcpy(reg[PX], q, 2 * sizeof(num));
        one(reg[PZ], field);
        return;
    }
    run(reg, compare);
    run(reg, is_zero(reg[R], 2 * LIMBS) ? twice : plus);
}

static int in_order(const num a)
{
    return !is_zero(a, LIMBS) && is_below(a, order);
}

int sow_p256_verify(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64])
{
    static const struct sow_p256_idle none = {0, 0};

    return sow_p256_verify_idle(pub, hash, sig, &none);
}

int sow_p256_verify_idle(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64],
                         const struct sow_p256_idle *watchdog)
{
    num reg[REGS], u1, u2;
    uint32_t q[2 * LIMBS];

    load(reg[QX], pub);
    load(reg[QY], pub + 32);
    if (!is_below(reg[QX], field) || !is_below(reg[QY], field)) {
        return SOW_P256_BAD_KEY;
    }
    montgomery_factor(reg[T], field);
    run(reg, convert);
    memcpy(q, reg[QX], sizeof q);
    memcpy(reg[H], reg[R], sizeof reg[H]);
    memcpy(reg[QX], generator, sizeof generator);
    run(reg, COEFFICIENT);
    if (memcmp(reg[H], reg[R], sizeof reg[H]) != 0) {
        return SOW_P256_BAD_KEY;
    }

    load(u2, sig); /* r */
    load(reg[T], sig + 32);
    if (!in_order(u2) || !in_order(reg[T])) {
        return SOW_P256_BAD_SIGNATURE;
    }
    montgomery_factor(u1, order);
    mul_mod(reg[T], reg[T], u1, order);
    invert_mod_order(reg[T]);
    load(u1, hash);
    mul_mod(u1, u1, reg[T], order); /* out of Montgomery form by itself: hash and r never were in it */
    mul_mod(u2, u2, reg[T], order);

    memset(reg[PZ], 0, sizeof reg[PZ]);
    for (uint32_t i = 256; i-- != 0;) {
        if (watchdog->idle != 0) {
            watchdog->idle(watchdog->user);
        }
        run(reg, twice);
        if (bit(u1, i)) {
            point_add(reg, generator);
        }
        if (bit(u2, i)) {
            point_add(reg, q);
        }
    }
    if (is_zero(reg[PZ], LIMBS)) {
        return SOW_P256_BAD_SIGNATURE;
    }

    /* The affine x, taken mod n, must be r: x is r or r + n. Compared as x = r z^2, which
     * saves the inversion. */
    montgomery_factor(reg[QX], field);
    run(reg, last);
    load(u2, sig);
    do {
        mul_mod(u1, u2, reg[PZ], field);
        if (memcmp(u1, reg[PX], sizeof u1) == 0) {
            return SOW_P256_VALID;
        }
    } while (!add_raw(u2, u2, order) && is_below(u2, field));
    return SOW_P256_BAD_SIGNATURE;
}
