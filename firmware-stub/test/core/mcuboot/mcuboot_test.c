/* The trailer that MCUboot finds, byte for byte, and what the library makes of the one that MCUboot leaves. The
 * part of MCUboot is played by hand, after its design document ("Image trailer"). */
#include "kit.h"

static struct kit k;
static struct bundle b;

static const struct layout layout = {512, 8, 4096, 8192, 2048, 1024, 512, 0xff};

static const uint8_t pending[40] = {
    0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* swap_info: test, image 0 */
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* copy_done */
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* image_ok */
    0x77, 0xc2, 0x95, 0xf3, 0x60, 0xd2, 0xef, 0x7f, 0x35, 0x52, 0x50, 0x0f, 0x2c, 0xb6, 0x79, 0x80};

static const uint8_t *trailer(const struct sow_region *slot)
{
    return sow_flash_emu_peek(&k.flash, slot->addr + slot->size - (uint32_t)sizeof pending);
}

static struct sow_boot_status status(void)
{
    struct sow_boot_status s;

    CHECK(sow_boot_read(&k.config, &s) == SOW_OK);
    return s;
}

/* Slot A as MCUboot leaves it after a swap. */
static void load_a(const uint8_t *image, uint32_t size, uint8_t image_ok)
{
    static const uint8_t set[8] = {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const struct sow_region *slot = &k.map.slot_a;
    uint32_t end = slot->addr + slot->size;

    CHECK(k.port.erase(k.port.user, slot->addr, slot->size) == 0);
    CHECK(k.port.erase(k.port.user, k.map.slot_b.addr, k.map.slot_b.size) == 0);
    CHECK(sow_flash_emu_load(&k.flash, slot->addr, image, size) == 0);
    CHECK(k.port.prog(k.port.user, end - 16u, pending + 24, 16) == 0);
    CHECK(k.port.prog(k.port.user, end - 32u, set, 8) == 0); /* copy_done */
    if (image_ok == 1)
        CHECK(k.port.prog(k.port.user, end - 24u, set, 8) == 0);
}

int main(void)
{
    snprintf(context, sizeof context, "mcuboot");
    kit_open(&k, &layout, 1000, 1);
    make_bundle(&b, &k, SOW_CODEC_FULL, 3000, 5, 40, SOW_MATRIX_V1);
    CHECK(status().state == SOW_BOOT_NONE && status().sequence == 0);

    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
    CHECK(memcmp(trailer(&k.map.slot_b), pending, sizeof pending) == 0);
    CHECK(status().state == SOW_BOOT_PENDING && status().version == 0x02000005);
    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK); /* again: nothing is programmed twice */

    load_a(b.image, b.image_size, 0xff);
    CHECK(status().state == SOW_BOOT_TRIAL && status().attempts == 1 && status().sequence == 0);
    CHECK(sow_boot_request(&k.config, b.block) == -SOW_CAUSE_NOT_CONFIRMED);
    CHECK(sow_boot_confirm(&k.config) == SOW_OK);
    CHECK(trailer(&k.map.slot_a)[16] == 1 && trailer(&k.map.slot_a)[17] == 0xff && trailer(&k.map.slot_a)[8] == 1);
    CHECK(status().state == SOW_BOOT_CONFIRMED && status().sequence == 5);
    CHECK(sow_boot_confirm(&k.config) == SOW_OK);

    /* The next one is rejected by its self-test, and MCUboot swaps back. */
    make_bundle(&b, &k, SOW_CODEC_FULL, 3100, 6, 40, SOW_MATRIX_V1);
    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
    load_a(b.image, b.image_size, 0xff);
    CHECK(status().state == SOW_BOOT_TRIAL && sow_boot_reject(&k.config, SOW_CAUSE_SELF_TEST_FAILED) == SOW_OK);
    load_a(k.old, k.old_size, 1);
    CHECK(status().state == SOW_BOOT_REVERTED && status().cause == SOW_CAUSE_SELF_TEST_FAILED && status().sequence == 5);

    /* One that hangs before it says anything. */
    make_bundle(&b, &k, SOW_CODEC_FULL, 3200, 7, 40, SOW_MATRIX_V1);
    CHECK(sow_boot_request(&k.config, b.block) == SOW_OK);
    load_a(k.old, k.old_size, 1);
    CHECK(status().state == SOW_BOOT_REVERTED && status().cause == SOW_CAUSE_NOT_CONFIRMED);

    /* An image that would reach into the trailer's page. */
    make_bundle(&b, &k, SOW_CODEC_FULL, 3585, 8, 40, SOW_MATRIX_V1);
    CHECK(sow_boot_request(&k.config, b.block) == -SOW_CAUSE_IMAGE_TOO_LARGE);
    k.port.granule = 16;
    CHECK(sow_boot_request(&k.config, b.block) == -SOW_CAUSE_NO_FLASH);
    kit_close(&k);
    printf("MCUboot trailer    byte for byte; test, confirm, reject, hang\n");
    return 0;
}

/* kit.c starts devices with our own stub; there is none here. */
int sow_boot(const struct sow_config *cfg, uint32_t *entry)
{
    (void)cfg;
    (void)entry;
    return -SOW_CAUSE_IMAGE_INVALID;
}
