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

/* Affine and never infinity; Montgomery form, as all field elements below. */
struct affine {
    num x, y;
};

/* (x/z^2, y/z^3), or infinity where z is zero. */
struct jacobian {
    num x, y, z;
};

static const struct affine generator = {
    {0x18a9143c, 0x79e730d4, 0x5fedb601, 0x75ba95fc, 0x77622510, 0x79fb732b, 0xa53755c6, 0x18905f76},
    {0xce95560a, 0xddf25357, 0xba19e45c, 0x8b4ab8e4, 0xdd21f325, 0xd2e88688, 0x25885d85, 0x8571ff18},
};

static void load(num r, const uint8_t *bytes)
{
    for (int i = LIMBS - 1; i >= 0; i--, bytes += 4) {
        r[i] = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    }
}

static int is_zero(const num a)
{
    uint32_t any = 0;

    for (int i = 0; i < LIMBS; i++) {
        any |= a[i];
    }
    return any == 0;
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

static void add(num r, const num a, const num b)
{
    reduce(r, add_raw(r, a, b), field);
}

static void sub(num r, const num a, const num b)
{
    if (sub_raw(r, a, b)) {
        add_raw(r, r, field);
    }
}

/* t += a * x, returns the carry. Half words, because ARMv6-M multiplies 32 by 32 bits to 32 only;
 * none of the four sums can overflow. */
static uint32_t mul_add(num t, const num a, uint32_t x)
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
    return carry;
}

/* t += p * t[0], returns the carry. p is -1 mod 2^32, so this clears t[0], which is not written:
 * nobody reads it again. The rest of p is 2^96 + 2^192 - 2^224 + 2^256. */
static uint32_t clear_low_limb(num t)
{
    uint32_t x = t[0], carry = 0;

    for (int i = 3; i < LIMBS; i++) {
        uint32_t y = i % 3 == 0 ? x : 0;
        uint32_t sum = t[i] + carry;
        carry = sum < carry;
        sum += y;
        carry += sum < y;
        t[i] = sum;
    }
    carry += x - (t[7] < x);
    t[7] -= x;
    return carry;
}

/* r = a * b / 2^256 mod m (Montgomery), m is field or order. a is any number, b is below m;
 * r may be a or b. */
static void mul_mod(num r, const num a, const num b, const num m)
{
    uint32_t t[2 * LIMBS + 1] = {0};

    for (int i = 0; i < LIMBS; i++) {
        uint64_t top = (uint64_t)t[i + LIMBS] + mul_add(t + i, a, b[i]);
        top += m == field ? clear_low_limb(t + i) : mul_add(t + i, order, t[i] * ORDER_NEG_INV);
        t[i + LIMBS] = (uint32_t)top;
        t[i + LIMBS + 1] = (uint32_t)(top >> 32);
    }
    memcpy(r, t + LIMBS, sizeof(num));
    reduce(r, t[2 * LIMBS], m);
}

static void mul(num r, const num a, const num b)
{
    mul_mod(r, a, b, field);
}

/* r = 2^512 mod m, the factor that mul_mod needs to bring a number into Montgomery form. */
static void montgomery_factor(num r, const num m)
{
    memset(r, 0, sizeof(num));
    sub_raw(r, r, m); /* 2^256 - m */
    for (int i = 0; i < 256; i++) {
        reduce(r, add_raw(r, r, r), m);
    }
}

static int bit(const num a, int i)
{
    return (int)(a[i / 32] >> (i % 32) & 1);
}

/* a = 1/a mod n by Fermat, a^(n-2); in and out in Montgomery form. */
static void invert_mod_order(num a)
{
    num x, e;

    memcpy(x, a, sizeof x);
    memcpy(e, order, sizeof e);
    e[0] -= 2;
    for (int i = 254; i >= 0; i--) {
        mul_mod(x, x, x, order);
        if (bit(e, i)) {
            mul_mod(x, x, a, order);
        }
    }
    memcpy(a, x, sizeof x);
}

/* b = y^2 - x^3 + 3x: the coefficient of the curve on which (x, y) lies. */
static void coefficient(num b, const struct affine *q)
{
    num t;

    mul(t, q->x, q->x);
    mul(t, t, q->x);
    mul(b, q->y, q->y);
    sub(b, b, t);
    for (int i = 0; i < 3; i++) {
        add(b, b, q->x);
    }
}

/* a = 2a. Infinity stays infinity; no point of this curve has y = 0. */
static void point_double(struct jacobian *a)
{
    num m, s, t;

    mul(t, a->z, a->z);
    sub(m, a->x, t);
    add(t, a->x, t);
    mul(t, m, t);
    add(m, t, t);
    add(m, m, t); /* 3 (x - z^2)(x + z^2), the slope times 2yz */
    mul(a->z, a->y, a->z);
    add(a->z, a->z, a->z);
    mul(t, a->y, a->y);
    add(t, t, t);
    add(a->y, t, t);
    mul(s, a->x, a->y); /* 4xy^2 */
    mul(t, t, a->y);    /* 8y^4 */
    mul(a->x, m, m);
    sub(a->x, a->x, s);
    sub(a->x, a->x, s);
    sub(s, s, a->x);
    mul(a->y, m, s);
    sub(a->y, a->y, t);
}

/* a = a + q, but for a = q: then it leaves a alone and returns 1, for the caller to double. Whoever chooses the
 * key and the signature can make the sum hit every special case. */
static int point_add(struct jacobian *a, const struct affine *q)
{
    num h, r, t;

    if (is_zero(a->z)) {
        memcpy(a->x, q->x, sizeof a->x);
        memcpy(a->y, q->y, sizeof a->y);
        memset(a->z, 0, sizeof a->z);
        sub_raw(a->z, a->z, field); /* 1 in Montgomery form */
        return 0;
    }
    mul(r, a->z, a->z);
    mul(h, r, q->x);
    sub(h, h, a->x);
    mul(r, r, a->z);
    mul(r, r, q->y);
    sub(r, r, a->y);
    if (is_zero(h) && is_zero(r)) {
        return 1;
    }
    /* The sum of a point and its negative needs no case: h, and with it z, is zero. */
    mul(a->z, a->z, h);
    mul(t, h, h);
    mul(h, h, t);
    mul(t, t, a->x);
    mul(a->x, r, r);
    sub(a->x, a->x, h);
    sub(a->x, a->x, t);
    sub(a->x, a->x, t);
    sub(t, t, a->x);
    mul(t, t, r);
    mul(h, h, a->y);
    sub(a->y, t, h);
    return 0;
}

static int in_order(const num a)
{
    return !is_zero(a) && is_below(a, order);
}

int sow_p256_verify(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64])
{
    static const struct sow_p256_idle none = {0, 0};

    return sow_p256_verify_idle(pub, hash, sig, &none);
}

int sow_p256_verify_idle(const uint8_t pub[64], const uint8_t hash[32], const uint8_t sig[64],
                         const struct sow_p256_idle *watchdog)
{
    struct affine q;
    struct jacobian sum;
    num u1, u2, t;

    load(q.x, pub);
    load(q.y, pub + 32);
    if (!is_below(q.x, field) || !is_below(q.y, field)) {
        return SOW_P256_BAD_KEY;
    }
    montgomery_factor(t, field);
    mul(q.x, q.x, t);
    mul(q.y, q.y, t);
    coefficient(t, &generator);
    coefficient(u1, &q);
    if (memcmp(t, u1, sizeof t) != 0) {
        return SOW_P256_BAD_KEY;
    }

    load(u2, sig); /* r */
    load(t, sig + 32);
    if (!in_order(u2) || !in_order(t)) {
        return SOW_P256_BAD_SIGNATURE;
    }
    montgomery_factor(u1, order);
    mul_mod(t, t, u1, order);
    invert_mod_order(t);
    load(u1, hash);
    mul_mod(u1, u1, t, order); /* out of Montgomery form by itself: hash and r never were in it */
    mul_mod(u2, u2, t, order);

    memset(&sum, 0, sizeof sum);
    for (int i = 255; i >= 0; i--) {
        if (watchdog->idle != 0) {
            watchdog->idle(watchdog->user);
        }
        point_double(&sum);
        if (bit(u1, i) && point_add(&sum, &generator)) {
            point_double(&sum);
        }
        if (bit(u2, i) && point_add(&sum, &q)) {
            point_double(&sum);
        }
    }
    if (is_zero(sum.z)) {
        return SOW_P256_BAD_SIGNATURE;
    }

    /* The affine x, taken mod n, must be r: x is r or r + n. Compared as x = r z^2, which
     * saves the inversion. */
    mul(sum.z, sum.z, sum.z);
    montgomery_factor(u1, field);
    mul(u1, u1, sum.z);
    load(u2, sig);
    do {
        mul(t, u2, u1);
        if (memcmp(t, sum.x, sizeof t) == 0) {
            return SOW_P256_VALID;
        }
    } while (!add_raw(u2, u2, order) && is_below(u2, field));
    return SOW_P256_BAD_SIGNATURE;
}
