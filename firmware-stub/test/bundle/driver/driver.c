/* Serves the tests of this folder: the manifest code and a whole device on emulated flash, over pipes. One request a
 * line, bytes in hexadecimal, one answer a line:
 *
 *   key SLOT ID XY         put a public key in a trust slot (0 or 1); ok
 *   parse MANIFEST         the fields, or the cause
 *   verify MANIFEST        ok, or the cause
 *   device CLASS HW IMAGE  a fresh device that runs IMAGE; ok, or the cause
 *   time GPS               set its clock, 0: unknown; ok
 *   send BLOCK             broadcast a block to it without loss; ready, or step and cause
 *   install                swap, boot, confirm; sequence and size of the image that runs
 *   request MANIFEST IMAGE what a careless or hostile application can do: write slot B, request the boot, reset;
 *                          state and cause of the boot
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sow_core.h"
#include "sow_flash_emu.h"

#define LINE_MAX_BYTES 200000u
#define FRAGMENT 200u

static struct {
    struct sow_flash_emu flash;
    struct sow_port port;
    struct sow_map map;
    struct sow_identity identity;
    struct sow_config config;
    struct sow_core core;
    void *memory;
    uint64_t arena[1024];
} d;

static char line[LINE_MAX_BYTES];

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes a word in place; the bytes live until the next request. */
static uint8_t *bytes(char *word, uint32_t *n)
{
    uint8_t *out = (uint8_t *)word;

    for (*n = 0; word[0] != 0 && digit(word[0]) >= 0 && digit(word[1]) >= 0; word += 2)
        out[(*n)++] = (uint8_t)(digit(word[0]) << 4 | digit(word[1]));
    return out;
}

static uint8_t *exactly(char *word, uint32_t want)
{
    uint32_t n;
    uint8_t *out = word != NULL ? bytes(word, &n) : NULL;

    if (out == NULL || n != want) {
        fprintf(stderr, "driver: want %u bytes\n", want);
        exit(2);
    }
    return out;
}

static char *word(void)
{
    char *w = strtok(NULL, " \n");

    if (w == NULL) {
        fprintf(stderr, "driver: too few words\n");
        exit(2);
    }
    return w;
}

static uint32_t number(void)
{
    return (uint32_t)strtoul(word(), NULL, 0);
}

static void place(struct sow_region *r, uint32_t *at, uint32_t size)
{
    r->addr = *at;
    r->size = size;
    *at += size;
}

static int start(void)
{
    uint32_t entry;
    int err = sow_boot(&d.config, &entry);

    return err < 0 ? err : sow_core_open(&d.core, &d.config, d.arena, sizeof d.arena);
}

static int device(uint32_t class_id, uint16_t hardware_id, const uint8_t *image, uint32_t size)
{
    struct sow_flash_emu_geometry g = {0x08000000u, 0, 256, 8, 0xff};
    uint32_t at = g.base;

    place(&d.map.slot_a, &at, 8192);
    place(&d.map.slot_b, &at, 8192);
    place(&d.map.download, &at, 16384);
    place(&d.map.journal, &at, 2048);
    place(&d.map.boot, &at, 1024);
    place(&d.map.scratch, &at, 512);
    g.size = at - g.base;
    free(d.memory);
    d.memory = malloc(sow_flash_emu_size(&g));
    if (d.memory == NULL || sow_flash_emu_init(&d.flash, &g, d.memory) != 0)
        exit(2);
    d.port.user = &d.flash;
    d.port.read = sow_flash_emu_read;
    d.port.prog = sow_flash_emu_prog;
    d.port.erase = sow_flash_emu_erase;
    d.port.granule = 8;
    d.port.page = 256;
    d.port.erase_value = 0xff;
    d.identity.class_id = class_id;
    d.identity.hardware_id = hardware_id;
    if (sow_flash_emu_load(&d.flash, d.map.slot_a.addr, image, size) != 0)
        exit(2);
    return start();
}

static int work(void)
{
    int err;

    while ((err = sow_core_work(&d.core)) == SOW_MORE)
        ;
    return err;
}

static int broadcast(const uint8_t *block, uint32_t size)
{
    struct sow_session s;
    uint8_t fragment[FRAGMENT];
    int err;

    memset(&s, 0, sizeof s);
    s.matrix = SOW_MATRIX_V1;
    s.mc_mask = 1;
    s.frag_size = FRAGMENT;
    s.nb_frag = (uint16_t)((size + FRAGMENT - 1) / FRAGMENT);
    s.padding = (uint8_t)(s.nb_frag * FRAGMENT - size);
    if ((err = sow_core_session(&d.core, &s)) < 0)
        return err;
    for (uint16_t n = 1; n <= s.nb_frag; n++) {
        uint32_t at = (n - 1u) * FRAGMENT, len = size - at < FRAGMENT ? size - at : FRAGMENT;

        memset(fragment, 0, sizeof fragment);
        memcpy(fragment, block + at, len);
        if ((err = sow_core_fragment(&d.core, 0, n, fragment, FRAGMENT)) < 0 || (err = work()) < 0)
            return err;
    }
    return err;
}

static void answer(int err)
{
    if (err < 0)
        printf("%d\n", -err);
    else
        puts("ok");
}

static void parse(const uint8_t *raw)
{
    struct sow_manifest m;
    int err = sow_manifest_parse(&m, raw);

    if (err < 0) {
        answer(err);
        return;
    }
    printf("%u %u %u %u %u %u %u %u %u %u %u %u %u %u %u %u", m.codec, m.flags, m.key_id, m.profile, m.options,
           (unsigned)m.class_id, (unsigned)m.hardware_id, (unsigned)m.version, (unsigned)m.sequence,
           (unsigned)m.expiry, (unsigned)m.new_size, (unsigned)m.base_size, (unsigned)m.payload_size,
           (unsigned)m.link_base, (unsigned)m.scratch, (unsigned)m.ram);
    putchar(' ');
    for (unsigned i = 0; i < 8; i++)
        printf("%02x", m.base_digest[i]);
    putchar(' ');
    for (unsigned i = 0; i < 16; i++)
        printf("%02x", m.payload_digest[i]);
    putchar(' ');
    for (unsigned i = 0; i < 32; i++)
        printf("%02x", m.new_digest[i]);
    putchar('\n');
}

static void serve(const char *verb)
{
    struct sow_boot_status boot;
    struct sow_status st;
    uint32_t n, size = 0;

    if (strcmp(verb, "key") == 0) {
        struct sow_key *k = &d.identity.keys[number() & 1];

        k->id = (uint8_t)number();
        memcpy(k->pub, exactly(word(), 64), 64);
        puts("ok");
    } else if (strcmp(verb, "parse") == 0) {
        parse(exactly(word(), SOW_MANIFEST_SIZE));
    } else if (strcmp(verb, "verify") == 0) {
        answer(sow_manifest_verify(&d.config, exactly(word(), SOW_MANIFEST_SIZE)));
    } else if (strcmp(verb, "device") == 0) {
        uint32_t class_id = number();
        uint16_t hardware_id = (uint16_t)number();
        const uint8_t *image = bytes(word(), &n);

        answer(device(class_id, hardware_id, image, n));
    } else if (strcmp(verb, "time") == 0) {
        sow_core_time(&d.core, number());
        puts("ok");
    } else if (strcmp(verb, "send") == 0) {
        const uint8_t *block = bytes(word(), &n);

        if (broadcast(block, n) == SOW_DONE) {
            puts("ready");
        } else {
            sow_core_status(&d.core, 0, &st);
            printf("%u %u\n", st.step, st.cause);
        }
    } else if (strcmp(verb, "install") == 0) {
        int err = sow_core_install(&d.core);

        if (err >= 0 && (err = start()) >= 0)
            err = sow_boot_confirm(&d.config);
        if (err < 0 || (err = start()) < 0) {
            answer(err);
            return;
        }
        sow_boot_read(&d.config, &boot);
        sow_image_check(&d.config, &d.map.slot_a, NULL, &size, NULL);
        printf("%u %u\n", (unsigned)boot.sequence, (unsigned)size);
    } else if (strcmp(verb, "request") == 0) {
        uint8_t raw[SOW_MANIFEST_SIZE];
        const uint8_t *image;

        memcpy(raw, exactly(word(), sizeof raw), sizeof raw);
        image = bytes(word(), &n);
        if (d.port.erase(d.port.user, d.map.slot_b.addr, d.map.slot_b.size) < 0 ||
            sow_flash_emu_load(&d.flash, d.map.slot_b.addr, image, n) != 0)
            exit(2);
        if (sow_boot_request(&d.config, raw) < 0 || start() < 0)
            exit(2);
        sow_boot_read(&d.config, &boot);
        printf("%u %u\n", boot.state, boot.cause);
    } else {
        fprintf(stderr, "driver: unknown verb %s\n", verb);
        exit(2);
    }
}

int main(void)
{
    d.config.port = &d.port;
    d.config.map = &d.map;
    d.config.identity = &d.identity;
    while (fgets(line, sizeof line, stdin) != NULL) {
        const char *verb = strtok(line, " \n");

        if (verb != NULL)
            serve(verb);
        fflush(stdout);
    }
    free(d.memory);
    return 0;
}
