/* The trailer that MCUboot finds, byte for byte, and what the library makes of those that MCUboot leaves.
 *
 * The trailers were recorded from MCUboot itself (commit 2d4bacc3, June 2026, swap-move and swap-scratch alike), which
 * took the first for a requested test and left the others after it. */
#include "kit.h"

static struct kit k;
static struct bundle b;

#define E 0xff /* a byte that is left erased, whatever that reads */
#define E7 E, E, E, E, E, E, E
#define MAGIC_8 0x77, 0xc2, 0x95, 0xf3, 0x60, 0xd2, 0xef, 0x7f, 0x35, 0x52, 0x50, 0x0f, 0x2c, 0xb6, 0x79, 0x80
#define MAGIC_16 0x10, 0x00, 0x2d, 0xe1, 0x5d, 0x29, 0x41, 0x0b, 0x8d, 0x77, 0x67, 0x9c, 0x11, 0x0f, 0x1f, 0x8a
#define SIZE 0xba, 0x13, 0x00, 0x00 /* of the images swapped: 5050 */

/* swap size, swap_info, copy_done, image_ok, magic */
struct trailers {
    uint32_t align; /* BOOT_MAX_ALIGN */
    uint8_t requested[80], swapped[80], confirmed[80], reverted[80];
};

static const struct trailers of_8 = {
    8,
    {E, E7, 2, E7, E, E7, E, E7, MAGIC_8},
    {SIZE, E, E, E, E, 2, E7, 1, E7, E, E7, MAGIC_8},
    {SIZE, E, E, E, E, 2, E7, 1, E7, 1, E7, MAGIC_8},
    {SIZE, E, E, E, E, 4, E7, 1, E7, 1, E7, MAGIC_8},
};

#define E15 E7, E, E7

static const struct trailers of_16 = {
    16,
    {E, E15, 2, E15, E, E15, E, E15, MAGIC_16},
    {SIZE, E, E, E, E, E, E7, 2, E15, 1, E15, E, E15, MAGIC_16},
    {SIZE, E, E, E, E, E, E7, 2, E15, 1, E15, 1, E15, MAGIC_16},
    {SIZE, E, E, E, E, E, E7, 4, E15, 1, E15, 1, E15, MAGIC_16},
};

static const struct trailers *t;

static uint32_t trailer_size(void)
{
    return 4 * t->align + 16;
}

static uint32_t trailer_addr(const struct sow_region *slot)
{
    return slot->addr + slot->size - trailer_size();
}

static int has_trailer(const struct sow_region *slot, const uint8_t *want)
{
    const uint8_t *got = sow_flash_emu_peek(&k.flash, trailer_addr(slot));

    for (uint32_t i = 0; i < trailer_size(); i++)
        if (got[i] != (want[i] == E ? k.port.erase_value : want[i]))
            return 0;
    return 1;
}

static struct sow_boot_status status(void)
{
    struct sow_boot_status s;

    CHECK(sow_boot_read(&k.config, &s) == SOW_OK);
    return s;
}

/* The slots as MCUboot leaves them, with an image in slot A and the trailer's page of slot B erased. */
static void leave(const uint8_t *image, uint32_t size, const uint8_t *trailer)
{
    const struct sow_region *slot = &k.map.slot_a;
    uint32_t g = k.port.granule;
    uint8_t buf[16];

    CHECK(k.port.erase(k.port.user, slot->addr, slot->size) == 0);
    CHECK(k.port.erase(k.port.user, k.map.slot_b.addr, k.map.slot_b.size) == 0);
    CHECK(sow_flash_emu_load(&k.flash, slot->addr, image, size) == 0);
    for (uint32_t at = 0; at < trailer_size(); at += g) {
        int blank = 1;

        for (uint32_t i = 0; i < g; i++) {
            blank &= trailer[at + i] == E;
            buf[i] = trailer[at + i] == E ? k.port.erase_value : trailer[at + i];
        }
        CHECK(blank || k.port.prog(k.port.user, trailer_addr(slot) + at, buf, g) == 0);
    }
}

static void a_life(uint32_t granule, uint8_t erase_value)
{
    struct layout l = {512, granule, 4096, 8192, 2048, 1024, 512, erase_value};

    snprintf(context, sizeof context, "mcuboot, granule %u, erased %#x", (unsigned)granule, erase_value);
    t = granule > 8 ? &of_16 : &of_8;
    kit_open(&k, &l, 1000, 1);
    make_bundle(&b, &k, SOW_CODEC_FULL, 3000, 5, 40, SOW_MATRIX_V1);
    CHECK(status().state == SOW_BOOT_NONE && status().sequence == 0);

    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
    CHECK(has_trailer(&k.map.slot_b, t->requested));
    CHECK(status().state == SOW_BOOT_PENDING && status().version == 0x02000005);
    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK); /* again: nothing is programmed twice */

    leave(b.image, b.image_size, t->swapped);
    CHECK(status().state == SOW_BOOT_TRIAL && status().attempts == 1 && status().sequence == 0);
    CHECK(sow_boot_request(&k.config, b.block) == -SOW_CAUSE_NOT_CONFIRMED);
    CHECK(sow_boot_confirm(&k.config) == SOW_OK);
    CHECK(has_trailer(&k.map.slot_a, t->confirmed));
    CHECK(status().state == SOW_BOOT_CONFIRMED && status().sequence == 5);
    CHECK(sow_boot_confirm(&k.config) == SOW_OK);

    /* The next one is rejected by its self-test, and MCUboot swaps back. */
    make_bundle(&b, &k, SOW_CODEC_FULL, 3100, 6, 40, SOW_MATRIX_V1);
    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
    leave(b.image, b.image_size, t->swapped);
    CHECK(status().state == SOW_BOOT_TRIAL && sow_boot_reject(&k.config, SOW_CAUSE_SELF_TEST_FAILED) == SOW_OK);
    leave(k.old, k.old_size, t->reverted);
    CHECK(status().state == SOW_BOOT_REVERTED && status().cause == SOW_CAUSE_SELF_TEST_FAILED && status().sequence == 5);

    /* One that hangs before it says anything. */
    make_bundle(&b, &k, SOW_CODEC_FULL, 3200, 7, 40, SOW_MATRIX_V1);
    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
    leave(k.old, k.old_size, t->reverted);
    CHECK(status().state == SOW_BOOT_REVERTED && status().cause == SOW_CAUSE_NOT_CONFIRMED);

    /* An image that would reach into the trailer's page. */
    make_bundle(&b, &k, SOW_CODEC_FULL, 3585, 8, 40, SOW_MATRIX_V1);
    CHECK(sow_boot_request(&k.config, b.block) == -SOW_CAUSE_IMAGE_TOO_LARGE);
    kit_close(&k);
}

int main(void)
{
    unsigned lives = 0;

    for (uint32_t granule = 1; granule <= 16; granule *= 2)
        for (int erased = 0; erased <= 0xff; erased += 0xff, lives++)
            a_life(granule, (uint8_t)erased);
    printf("MCUboot trailer    byte for byte in %u flash geometries; test, confirm, reject, hang\n", lives);
    return 0;
}

/* kit.c starts devices with our own stub; there is none here. */
int sow_boot(const struct sow_config *cfg, uint32_t *entry)
{
    (void)cfg;
    (void)entry;
    return -SOW_CAUSE_IMAGE_INVALID;
}
